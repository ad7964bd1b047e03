"""Refunds that the chain confirms: the merchant names its own transaction, the verifier proves it, and it counts once.

The books hold a refund from the first, and nothing here touches them: what the chain says is a fact beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from prometheus_client import Counter

from kit import telemetry
from kit.database import Connection, Database
from kit.errors import Fault, Kind, Violation
from orders.domain import Debt, Order, Outcome, Verdict
from orders.messages import claim_debt
from orders.proof import Proof, ProofState, Ruling, Shown, rule
from orders.store import addresses, orders, outbox, suspense
from orders.store import refunds as store
from orders.workflow.orders import not_found

RULINGS = Counter("orders_refund_proofs_total", "Verdicts on the transactions of refunds", ["state", "reason"])


async def get(database: Database, merchant_id: str, refund_id: str) -> Shown:
    """One refund of a merchant as it stands. Errors: Fault `refund_not_found`."""
    async with database.connection() as connection:
        found = await store.show(connection, merchant_id, refund_id)
    if found is None:
        raise _refund_not_found(refund_id)
    return found


async def list_of(database: Database, merchant_id: str, order_id: str) -> list[Shown]:
    """An order's refunds as they stand, oldest first. Errors: Fault `order_not_found`."""
    async with database.connection() as connection:
        found = await store.show_all(connection, merchant_id, order_id)
        if not found and await orders.find(connection, merchant_id, order_id) is None:
            raise not_found(order_id)
    return found


async def attach(
    database: Database,
    merchant_id: str,
    refund_id: str,
    tx_hash: str,
    *,
    give_up_after: timedelta,
    first_look: timedelta,
) -> Debt | None:
    """Names the transaction of a recorded refund and owes its verification, in one commit. None: it was named before.

    Errors: Fault `refund_not_found`, `refund_transaction_exists`, `ambiguous_payer`.
    """
    async with database.transaction() as connection:
        order = await store.lock_order(connection, merchant_id, refund_id)
        if order is None:
            raise _refund_not_found(refund_id)
        return await name(connection, order, refund_id, tx_hash, give_up_after=give_up_after, first_look=first_look)


async def name(
    connection: Connection,
    order: Order,
    refund_id: str,
    tx_hash: str,
    *,
    give_up_after: timedelta,
    first_look: timedelta,
) -> Debt | None:
    """`attach`, for a refund whose order is locked: what another caller has just named is seen."""
    refund = await store.show(connection, order.merchant_id, refund_id)
    assert refund is not None, "its order was found through it, or it was just recorded"
    if not _is_new(refund, tx_hash):
        return None
    if not refund.to_address:
        raise ambiguous_payer("is not known: a version before recorded the refund, and several have paid its order")
    claim_id, debt_id, made_at = await store.insert_proof(
        connection, order.merchant_id, refund_id, refund.attempt + 1, tx_hash
    )
    debt = claim_debt(
        order,
        claim_id,
        tx_hash,
        telemetry.traceparent(),
        made_at + give_up_after,
        recipient=refund.to_address,
        debt_id=debt_id,
    )
    await outbox.insert(connection, [debt], first_look)
    return debt


def _is_new(refund: Shown, tx_hash: str) -> bool:
    """Whether this is a transaction to be proved now. Errors: Fault `refund_transaction_exists`."""
    if refund.state is None:
        return True
    if refund.tx_hash == tx_hash:
        # Unknown is not invalid: what nobody knew in time may be known now. What the chain has refuted stays so.
        return refund.state is ProofState.REFUTED and refund.state_reason == "given_up"
    if refund.state is not ProofState.REFUTED:
        detail = f"refund {refund.id} has the transaction {refund.tx_hash}, which the chain has not refuted"
        raise Fault(Kind.CONFLICT, "refund_transaction_exists", detail)
    return True


async def apply(connection: Connection, verdicts: Mapping[UUID, Verdict]) -> list[UUID]:
    """Does what those of the verdicts mean that are on refunds' transactions. Returns the debts that are paid so.

    Errors: AlreadyThere when a transfer has proved another refund at the same moment; look again.
    """
    proofs = await store.lock_proofs(connection, list(verdicts))
    if not proofs:
        return []
    rulings = await _rule(connection, [(proof, verdicts[proof.claim_id]) for proof in proofs])
    await store.update_proofs(connection, rulings)
    confirmed = [(proof, ruling.transfer) for proof, ruling in rulings if ruling.transfer]
    if confirmed:
        await store.insert_transfers(connection, confirmed)
    for _, ruling in rulings:
        RULINGS.labels(ruling.state.value, ruling.reason).inc()
    return [proof.debt_id for proof, ruling in rulings if ruling.state is not ProofState.OPEN]


async def _rule(connection: Connection, said: Sequence[tuple[Proof, Verdict]]) -> list[tuple[Proof, Ruling]]:
    transfers = [item for _, verdict in said if verdict.outcome is Outcome.FINAL for item in verdict.transfers]
    used: set[tuple[str | None, tuple[int, str, int]]] = set()
    wallets: set[str] = set()
    if transfers:
        hashes = sorted({item.tx_hash for item in transfers})
        await store.lock_transactions(connection, hashes)
        used = await store.used_transfers(connection, hashes)
        # Which of its transfers was the return, nobody has said.
        returns = await suspense.returns_among(connection, hashes)
        used |= {(None, item.key) for item in transfers if item.tx_hash in returns}
        wallets = await addresses.wallets_among(connection, sorted({item.sender for item in transfers}))
    rulings: list[tuple[Proof, Ruling]] = []
    for proof, verdict in said:
        taken = {key for merchant_id, key in used if merchant_id in (None, proof.merchant_id)}
        ruling = rule(proof, verdict, taken, wallets)
        if ruling.transfer:
            used.add((None, ruling.transfer.key))
        rulings.append((proof, ruling))
    return rulings


def ambiguous_payer(message: str) -> Fault:
    """Nobody said who gets a refund, and the order's payments do not tell."""
    return Fault(Kind.INVALID, "ambiguous_payer", message, violations=[Violation("to_address", message)])


def _refund_not_found(refund_id: str) -> Fault:
    """The same for a refund that is not there and for another merchant's."""
    return Fault(Kind.NOT_FOUND, "refund_not_found", f"there is no refund {refund_id}")
