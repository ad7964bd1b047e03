"""Refunds."""

from __future__ import annotations

from gateway.downstream import Services, ask
from gateway.exchange import REPLAYED, Answer, Call, json_answer
from gateway.operation import Access, Operation, Success
from gateway.schemas.answers import Refund
from gateway.schemas.given import RefundOrder
from gateway.translation import STATUS_BY_STATE
from ospay.orders.v1 import orders_pb2


async def refund_order(services: Services, call: Call, given: RefundOrder) -> Answer:
    """Books a refund of a paid order."""
    request = orders_pb2.RefundOrderRequest(
        merchant_id=call.merchant_id,
        order_id=given.order_id,
        refund_id=given.refund_id,
        reason=given.reason,
        amount_minor=given.amount_minor,
        tx_hash=given.tx_hash,
    )
    response = await ask(services.orders_peer, services.orders.RefundOrder, request)
    body = Refund(
        order_id=response.order_id,
        refund_id=response.refund_id,
        status=STATUS_BY_STATE[response.state],
        amount_minor=response.amount_minor,
        refunded_minor=response.refunded_minor,
    )
    return json_answer(200, body, REPLAYED if response.replayed else ())


_ANSWER = {
    "order_id": "ord_123",
    "refund_id": "rfd_1",
    "status": "PAID",
    "amount_minor": 2_000_000,
    "refunded_minor": 2_000_000,
}

OPERATIONS = (
    Operation(
        method="POST",
        path="/orders/refund",
        name="refundOrder",
        summary="Book a refund; the same refund_id and body again answer with the same refund",
        handler=refund_order,
        access=Access.KEY,
        given=RefundOrder,
        example={"order_id": "ord_123", "refund_id": "rfd_1", "reason": "Out of stock", "amount_minor": 2_000_000},
        success=(Success(200, "Booked.", Refund, _ANSWER, replayed=True),),
        errors=(
            (404, "order_not_found"),
            (409, "order_not_refundable"),
            (422, "refund_exceeds_received"),
            (422, "idempotency_mismatch"),
        ),
    ),
)
