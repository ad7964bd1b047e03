"""From a claim, through the chain's word, to a paid order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

import structlog
from prometheus_client import Counter

from kit.database import TOO_SLOW, UNAVAILABLE, Connection, Database
from kit.errors import Fault, Kind
from orders.domain import (
    CLAIMABLE_STATES,
    ClaimState,
    Debt,
    Order,
    OrderKey,
    Outcome,
    Tally,
    Verdict,
    settle_claim,
)
from orders.doorbell import Doorbell
from orders.messages import claim_debt
from orders.store import claims as store
from orders.store import outbox
from orders.workflow import refund_proofs
from orders.workflow import tally as money
from orders.workflow.orders import not_found

log = structlog.get_logger()

# Anybody may claim: a bound on what one order can make the verifier do, and on what each read of it goes through. The
# upper half of both is for the merchant, whose claims strangers cannot use up.
MAX_OPEN_CLAIMS = 64
MAX_CLAIMS = 1000

DECISIONS = Counter("orders_claim_decisions_total", "Claims decided", ["state", "reason"])
FAILED = Counter("orders_verdicts_failed_total", "Verdicts that could not be applied: somebody must look")


@dataclass(frozen=True)
class Asked:
    """A claim as somebody makes it; without a merchant where the order's id is enough.

    `by_merchant`: with the merchant's key, which is more than to name it.
    """

    merchant_id: str | None
    order_id: str
    tx_hash: str
    traceparent: str
    by_merchant: bool = False


@dataclass(frozen=True)
class Detected:
    """A recorded claim: `debt` is the job, None where there is nothing (more) to do."""

    order: Order
    debt: Debt | None
    open: bool


async def detect(
    database: Database, asked: Sequence[Asked], *, give_up_after: timedelta, first_look: timedelta
) -> list[Detected | Fault]:
    """Records claims and the debts to verify them, in one commit; a result for each, in the order of `asked`.

    Faults: `order_not_found`, `ambiguous_order_id`, `too_many_claims`.
    """
    async with database.transaction() as connection:
        candidates = await store.share(connection, [(item.order_id, item.merchant_id, item.tx_hash) for item in asked])
        meant: list[list[store.Candidate]] = [[] for _ in asked]
        for candidate in candidates:
            meant[candidate.place].append(candidate)
        jobs: dict[store.ClaimKey, Debt] = {}
        more: dict[OrderKey, int] = defaultdict(int)
        results = [_look(item, found, jobs, more, give_up_after) for item, found in zip(asked, meant, strict=True)]
        if not jobs:
            return results
        fresh = await store.insert(connection, list(jobs), list(jobs.values()), first_look)
    # What another batch has recorded at the same moment is its job.
    return [
        replace(result, debt=None)
        if isinstance(result, Detected) and result.debt and result.debt.event_id not in fresh
        else result
        for result in results
    ]


def _look(
    asked: Asked,
    meant: Sequence[store.Candidate],
    jobs: dict[store.ClaimKey, Debt],
    more: dict[OrderKey, int],
    give_up_after: timedelta,
) -> Detected | Fault:
    """What is to be answered; what is a new job is put into `jobs`, and counted by order in `more`."""
    if not meant:
        return not_found(asked.order_id)
    if len(meant) > 1:
        return Fault(Kind.CONFLICT, "ambiguous_order_id", f"more than one merchant has an order {asked.order_id}")
    (claim,) = meant
    order = claim.order
    if order.state not in CLAIMABLE_STATES:
        return Detected(order, None, open=False)
    if claim.state is not None and claim.reason != "given_up":
        return Detected(order, None, open=claim.state is ClaimState.OPEN)
    key = (order.id, order.merchant_id, asked.tx_hash)
    if key in jobs:
        return Detected(order, None, open=True)
    part = 1 if asked.by_merchant else 2
    if claim.open_claims + more[order.key] >= MAX_OPEN_CLAIMS // part:
        return Fault(Kind.EXHAUSTED, "too_many_claims", "too many open claims on this order; try later")
    if claim.state is None and claim.claims + more[order.key] >= MAX_CLAIMS // part:
        return Fault(Kind.EXHAUSTED, "too_many_claims", "this order has had too many claims")
    more[order.key] += 1
    jobs[key] = claim_debt(order, claim.claim_id, asked.tx_hash, asked.traceparent, claim.asked_at + give_up_after)
    return Detected(order, jobs[key], open=True)


async def apply(
    database: Database, doorbell: Doorbell, verdicts: Sequence[Verdict], *, first_look: timedelta
) -> set[UUID]:
    """Does what the chain's verdicts mean, all in one commit, and rings for the ledger. Returns the claims' ids.

    One that cannot be applied is not among them and holds up no other, and its claim stays open: the debt is delivered
    again.
    """
    try:
        await _apply_together(database, doorbell, verdicts, first_look)
    except Exception as error:
        if isinstance(error, (*UNAVAILABLE, Fault)) and not isinstance(error, TOO_SLOW):
            raise
        if len(verdicts) > 1:
            middle = len(verdicts) // 2
            return await apply(database, doorbell, verdicts[:middle], first_look=first_look) | await apply(
                database, doorbell, verdicts[middle:], first_look=first_look
            )
        FAILED.inc()
        log.error("verdict_failed", claim=str(verdicts[0].claim_id), exc_info=error)
        return set()
    return {verdict.claim_id for verdict in verdicts}


def _rank(verdict: Verdict) -> tuple[bool, bool, int, bool]:
    """Of several verdicts on one claim the last of the highest rank counts: a replica of the verifier that has not seen
    the transfer takes back no proof, and one that lags nothing that was seen at its head or later."""
    is_final, is_decided = verdict.outcome is Outcome.FINAL, verdict.outcome is not Outcome.WAITING
    return is_final, is_decided, verdict.head_number or 0, bool(verdict.transfers)


async def _apply_together(
    database: Database, doorbell: Doorbell, verdicts: Sequence[Verdict], first_look: timedelta
) -> None:
    async def work() -> tuple[Tally, list[Debt]]:
        async with database.transaction() as connection:
            return await _apply(connection, verdicts, first_look)

    tally, debts = await money.attempt(work)
    money.tell(tally)
    doorbell.ring(debts)


async def _apply(
    connection: Connection, verdicts: Sequence[Verdict], first_look: timedelta
) -> tuple[Tally, list[Debt]]:
    by_claim = {verdict.claim_id: verdict for verdict in sorted(verdicts, key=_rank)}
    final = {claim_id for claim_id, verdict in by_claim.items() if verdict.outcome is Outcome.FINAL}
    claimed = await store.lock_claimed(connection, list(by_claim), list(final))
    if paying := sorted({tx_hash for claim_id, tx_hash, _ in claimed if claim_id in final}):
        await store.lock_rivals(connection, paying)
    hashes = {tx_hash for _, tx_hash, _ in claimed}
    transfers = [transfer for verdict in by_claim.values() for transfer in verdict.transfers]
    hashes |= {transfer.tx_hash for transfer in transfers}
    senders = {transfer.sender for transfer in transfers}
    tally = await money.load(connection, [order for _, _, order in claimed], hashes, senders)
    decisions = [(id, settle_claim(tally, order.key, tx_hash, by_claim[id])) for id, tx_hash, order in claimed]
    debts: list[Debt] = []
    if decisions:
        decided = [claim_id for claim_id, decision in decisions if decision.claim_state is not ClaimState.OPEN]
        await store.update_claims(connection, decisions, decided)
        debts = await money.write(connection, tally, first_look)
        said = zip(claimed, decisions, strict=True)
        confirming = {order.key for (_, _, order), (_, decision) in said if decision.confirming}
        await money.follow(connection, tally, confirming)
    for _, decision in decisions:
        DECISIONS.labels(decision.claim_state.value, decision.reason).inc()
    # Not open claims: a refund's proof, or a claim that was decided before, which is closed as well.
    if others := by_claim.keys() - {id for id, _, _ in claimed}:
        proved = await refund_proofs.apply(connection, {key: by_claim[key] for key in others})
        await outbox.close(connection, [*proved, *others])
    return tally, debts
