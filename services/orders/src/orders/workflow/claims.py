"""From a claim, through the chain's word, to a paid order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from prometheus_client import Counter

from kit.database import Connection, Database
from kit.errors import Fault, Kind
from orders.domain import CLAIMABLE_STATES, ClaimState, Debt, Order, Outcome, Tally, Verdict, settle_claim
from orders.doorbell import Doorbell
from orders.messages import claim_debt
from orders.store import claims as store
from orders.store import found, outbox
from orders.store import orders as orders_store
from orders.workflow import refund_proofs
from orders.workflow import tally as money
from orders.workflow.orders import not_found

# Anybody may claim: a bound on what one order can make the verifier do.
MAX_OPEN_CLAIMS = 32

DECISIONS = Counter("orders_claim_decisions_total", "Claims decided", ["state", "reason"])


@dataclass(frozen=True)
class Asked:
    """A claim as somebody makes it; without a merchant where the order's id is enough."""

    merchant_id: str | None
    order_id: str
    tx_hash: str
    traceparent: str


@dataclass(frozen=True)
class Detected:
    """A recorded claim: `debt` is the job, None where there is nothing (more) to do."""

    order: Order
    debt: Debt | None
    open: bool


@dataclass(frozen=True)
class _Target:
    """A claim and the order that it means."""

    asked: Asked
    order: Order

    @property
    def key(self) -> store.ClaimKey:
        return (self.order.id, self.order.merchant_id, self.asked.tx_hash)


async def detect(
    database: Database, asked: Sequence[Asked], *, give_up_after: timedelta, first_look: timedelta
) -> list[Detected | Fault]:
    """Records claims and the debts to verify them, in one commit; a result for each, in the order of `asked`.

    Faults: `order_not_found`, `ambiguous_order_id`, `too_many_claims`.
    """
    async with database.transaction() as connection:
        shared = await store.share(connection, [(item.order_id, item.merchant_id) for item in asked])
        targets = [_target(item, [order for order, _ in shared]) for item in asked]
        keys = [target.key for target in targets if isinstance(target, _Target)]
        known = await store.known_claims(connection, keys) if keys else {}
        jobs: dict[store.ClaimKey, _Target] = {}
        open_claims = {order.key: count for order, count in shared}
        results = [_look(target, known, open_claims, jobs) for target in targets]
        if not jobs:
            return results
        fresh = await store.insert_claims(connection, list(jobs))
        debts = {
            key: claim_debt(jobs[key].order, claim_id, key[2], jobs[key].asked.traceparent, made_at + give_up_after)
            for key, (claim_id, made_at) in fresh.items()
        }
        await outbox.insert(connection, list(debts.values()), first_look)
    return [
        replace(result, debt=debts.pop(target.key, None))
        if isinstance(result, Detected) and isinstance(target, _Target)
        else result
        for target, result in zip(targets, results, strict=True)
    ]


def _target(asked: Asked, orders: Sequence[Order]) -> _Target | Fault:
    found = {
        order.key: order
        for order in orders
        if order.id == asked.order_id and asked.merchant_id in (None, order.merchant_id)
    }
    if not found:
        return not_found(asked.order_id)
    if len(found) > 1:
        return Fault(Kind.CONFLICT, "ambiguous_order_id", f"more than one merchant has an order {asked.order_id}")
    return _Target(asked, next(iter(found.values())))


def _look(
    target: _Target | Fault,
    known: Mapping[store.ClaimKey, store.KnownClaim],
    open_claims: dict[tuple[str, str], int],
    jobs: dict[store.ClaimKey, _Target],
) -> Detected | Fault:
    """What is to be answered; what is a new job is put into `jobs`."""
    if isinstance(target, Fault):
        return target
    order = target.order
    if order.state not in CLAIMABLE_STATES:
        return Detected(order, None, open=False)
    before = known.get(target.key)
    if before is not None and before.reason != "given_up":
        return Detected(order, None, open=before.state is ClaimState.OPEN)
    if target.key not in jobs:
        if open_claims[order.key] >= MAX_OPEN_CLAIMS:
            return Fault(Kind.EXHAUSTED, "too_many_claims", "too many open claims on this order; try later")
        open_claims[order.key] += 1
        jobs[target.key] = target
    return Detected(order, None, open=True)


async def apply(database: Database, doorbell: Doorbell, verdicts: Sequence[Verdict], *, first_look: timedelta) -> None:
    """Does what the chain's verdicts mean, all in one commit, and rings for the ledger."""

    async def work() -> tuple[Tally, list[Debt]]:
        async with database.transaction() as connection:
            return await _apply(connection, verdicts, first_look)

    tally, debts = await money.attempt(work)
    money.tell(tally)
    doorbell.ring(debts)


async def _apply(
    connection: Connection, verdicts: Sequence[Verdict], first_look: timedelta
) -> tuple[Tally, list[Debt]]:
    # Of several verdicts on one claim the last word counts; a final one is never taken back by a waiting one,
    # because a decided claim is no longer open.
    by_claim = {verdict.claim_id: verdict for verdict in verdicts}
    final = [claim_id for claim_id, verdict in by_claim.items() if verdict.outcome is Outcome.FINAL]
    if final:
        await found.share_wallets(connection, final)
    claimed = await store.lock_claimed(connection, list(by_claim))
    hashes = {claim.tx_hash for claim, _ in claimed}
    hashes |= {transfer.tx_hash for verdict in by_claim.values() for transfer in verdict.transfers}
    tally = await money.load(connection, [order for _, order in claimed], hashes)
    decisions = [
        (claim.id, settle_claim(tally, order.key, claim.tx_hash, by_claim[claim.id])) for claim, order in claimed
    ]
    debts: list[Debt] = []
    if decisions:
        await store.update_claims(connection, decisions)
        debts = await money.write(connection, tally, first_look)
        await orders_store.follow(connection, list(tally.orders))
    for _, decision in decisions:
        DECISIONS.labels(decision.claim_state.value, decision.reason).inc()
    decided = [claim_id for claim_id, decision in decisions if decision.claim_state is not ClaimState.OPEN]
    # Not open claims: a refund's proof, or a claim that was decided before, which is closed as well.
    others = by_claim.keys() - {claim.id for claim, _ in claimed}
    proved = await refund_proofs.apply(connection, {key: by_claim[key] for key in others}) if others else []
    await outbox.close(connection, [*decided, *others, *proved])
    return tally, debts
