"""Orders with addresses of their own."""

from __future__ import annotations

from datetime import timedelta

from ospay.orders.v1 import orders_pb2
from services.orders.tests.desk import Desk  # type: ignore[import-not-found]

MINUTES = timedelta(minutes=1)


async def order(desk: Desk, order_id: str = "ord_1", **fields: object) -> str:
    """An order of 5 USDT; returns its address."""
    created = await desk.suite.create(order_id, **fields)
    return str(created.order.deposit_address)


async def refund(desk: Desk, order_id: str = "ord_1", **fields: object) -> orders_pb2.RefundOrderResponse:
    request = orders_pb2.RefundOrderRequest(
        merchant_id="mrc_1", order_id=order_id, refund_id="r1", reason="asked", **fields
    )
    response: orders_pb2.RefundOrderResponse = await desk.suite.peer.call(
        desk.suite.orders.RefundOrder, request, timeout=5
    )
    return response
