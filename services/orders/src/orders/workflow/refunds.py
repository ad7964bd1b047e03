"""Refunds that the merchant makes from its own wallet; OSPay books them and holds no key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from kit.database import AlreadyThere, Database
from kit.errors import Fault, Kind
from orders.domain import Debt, Refund, RefundRefused, fingerprint, refund_amount, state_after_refund
from orders.doorbell import Doorbell
from orders.messages import refunded_debt
from orders.store import money, outbox
from orders.store import orders as store
from orders.workflow.orders import not_found


@dataclass(frozen=True)
class RefundRequest:
    """What is asked for; without an amount, all that is left."""

    merchant_id: str
    order_id: str
    refund_id: str
    reason: str
    amount_minor: int | None
    tx_hash: str | None

    def request_hash(self) -> bytes:
        """What two requests must share to be the same request."""
        return fingerprint(self.order_id, self.amount_minor, self.reason, self.tx_hash)


async def refund(
    database: Database, doorbell: Doorbell, asked: RefundRequest, *, first_look: timedelta
) -> tuple[Refund, bool]:
    """Records a refund and the debt to book it, in one commit. Returns it and whether it was known.

    Errors: Fault `order_not_found`, `order_not_refundable`, `refund_exceeds_received`, `idempotency_mismatch`.
    """
    try:
        done, debt = await _refund(database, asked, first_look)
    except AlreadyThere:
        # The same refund id on another order, at the same time: now it is known.
        done, debt = await _refund(database, asked, first_look)
    if debt:
        doorbell.ring([debt])
    return done, debt is None


async def _refund(database: Database, asked: RefundRequest, first_look: timedelta) -> tuple[Refund, Debt | None]:
    async with database.transaction() as connection:
        # The order first: whoever repeats a refund waits here until the first attempt is decided.
        order = await store.lock(connection, asked.merchant_id, asked.order_id)
        known = await money.find_refund(connection, asked.merchant_id, asked.refund_id)
        if known is not None:
            return _replay(asked, known), None
        if order is None:
            raise not_found(asked.order_id)
        try:
            amount = refund_amount(order, asked.amount_minor)
        except RefundRefused as refused:
            metadata = {"status": order.state.value}
            raise Fault(Kind.CONFLICT, refused.reason, refused.detail, metadata=metadata) from None
        done = Refund(
            id=asked.refund_id,
            order_id=order.id,
            merchant_id=order.merchant_id,
            request_hash=asked.request_hash(),
            amount_minor=amount,
            state_after=state_after_refund(order, amount),
            refunded_after=order.refunded_minor + amount,
        )
        event_id = uuid4()
        made_at = await money.insert_refund(connection, done, event_id, asked.reason, asked.tx_hash)
        debt = refunded_debt(order, done, event_id, asked.tx_hash, made_at)
        await store.mark_refunded(connection, order, amount, done.state_after)
        await outbox.insert(connection, [debt], first_look)
    return done, debt


def _replay(asked: RefundRequest, known: Refund) -> Refund:
    if known.request_hash != asked.request_hash():
        raise Fault(Kind.CONFLICT, "idempotency_mismatch", f"refund {asked.refund_id} was made with another body")
    return known
