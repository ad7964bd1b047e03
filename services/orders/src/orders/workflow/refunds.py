"""Refunds that the merchant makes from its own wallet; OSPay books them and holds no key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from kit.database import AlreadyThere, Database
from kit.errors import Fault, Kind, invalid
from orders.domain import (
    Debt,
    Order,
    Refund,
    RefundRefused,
    fingerprint,
    refund_amount,
    stable_id,
    state_after_refund,
)
from orders.doorbell import Doorbell
from orders.messages import refunded_debt
from orders.store import addresses, outbox
from orders.store import orders as store
from orders.store import refunds as refunds_store
from orders.workflow import refund_proofs
from orders.workflow.orders import not_found


@dataclass(frozen=True)
class RefundRequest:
    """What is asked for; without an amount, all that is left. `tx_hash` is to be proved; addresses are EIP-55."""

    merchant_id: str
    order_id: str
    refund_id: str
    reason: str
    amount_minor: int | None
    tx_hash: str | None
    to_address: str | None
    from_address: str | None

    def request_hash(self) -> bytes:
        """What two requests must share to be the same request."""
        # Idempotency does not expire: without addresses this is what it was before there were any.
        addresses = (self.to_address, self.from_address)
        declared = () if addresses == (None, None) else addresses
        return fingerprint(self.order_id, self.amount_minor, self.reason, self.tx_hash, *declared)


@dataclass(frozen=True)
class Recorded:
    """A refund, new or known; `proof` is the verification of its transaction where this call owes one."""

    refund: Refund
    replayed: bool
    proof: Debt | None


async def refund(
    database: Database, doorbell: Doorbell, asked: RefundRequest, *, give_up_after: timedelta, first_look: timedelta
) -> Recorded:
    """Records a refund, the debt to book it and, with a transaction, the one to prove it, in one commit.

    Errors: Fault `order_not_found`, `order_not_refundable`, `refund_exceeds_received`, `idempotency_mismatch`,
    `ambiguous_payer`, `invalid_request`.
    """
    try:
        done, booking = await _refund(database, asked, give_up_after, first_look)
    except AlreadyThere:
        # The same refund id on another order, at the same time: now it is known.
        done, booking = await _refund(database, asked, give_up_after, first_look)
    if booking:
        doorbell.ring([booking])
    return done


async def _refund(
    database: Database, asked: RefundRequest, give_up_after: timedelta, first_look: timedelta
) -> tuple[Recorded, Debt | None]:
    async with database.transaction() as connection:
        # The order first: whoever repeats a refund waits here until the first attempt is decided.
        order = await store.lock(connection, asked.merchant_id, asked.order_id)
        known = await refunds_store.find(connection, asked.merchant_id, asked.refund_id)
        if known is not None:
            return Recorded(_replay(asked, known), replayed=True, proof=None), None
        if order is None:
            raise not_found(asked.order_id)
        done = _plan(order, asked)
        if asked.to_address and await addresses.is_own_address(connection, asked.to_address):
            raise invalid("to_address", "is where an order is paid: what is sent there is no refund")
        # Written down and not looked up again: others may send something, and the chain may take something back.
        to_address = asked.to_address or await refunds_store.payer(connection, order)
        if to_address is None:
            raise refund_proofs.ambiguous_payer("is needed: several have paid this order")
        event_id = stable_id("ORDER_REFUNDED", done.merchant_id, done.id, done.order_id, done.amount_minor)
        made_at = await refunds_store.insert(
            connection, done, event_id, asked.reason, asked.tx_hash, to_address, asked.from_address
        )
        booking = refunded_debt(order, done, event_id, asked.tx_hash, made_at)
        await store.mark_refunded(connection, order, done.amount_minor, done.state_after)
        await outbox.insert(connection, [booking], first_look)
        proof = None
        if asked.tx_hash:
            proof = await refund_proofs.name(
                connection, order, asked.refund_id, asked.tx_hash, give_up_after=give_up_after, first_look=first_look
            )
    return Recorded(done, replayed=False, proof=proof), booking


def _plan(order: Order, asked: RefundRequest) -> Refund:
    """What is to be recorded. Errors: Fault."""
    try:
        amount = refund_amount(order, asked.amount_minor)
    except RefundRefused as refused:
        metadata = {"status": order.state.value}
        raise Fault(Kind.CONFLICT, refused.reason, refused.detail, metadata=metadata) from None
    if asked.to_address == order.deposit_address:
        raise invalid("to_address", "is where the order was paid: what is sent there is no refund")
    return Refund(
        id=asked.refund_id,
        order_id=order.id,
        merchant_id=order.merchant_id,
        request_hash=asked.request_hash(),
        amount_minor=amount,
        state_after=state_after_refund(order, amount),
        refunded_after=order.refunded_minor + amount,
    )


def _replay(asked: RefundRequest, known: Refund) -> Refund:
    if known.request_hash != asked.request_hash():
        raise Fault(Kind.CONFLICT, "idempotency_mismatch", f"refund {asked.refund_id} was made with another body")
    return known
