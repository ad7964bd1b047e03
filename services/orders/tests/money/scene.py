"""What is asked of the money of one order."""

from __future__ import annotations

from ospay.orders.v1 import orders_pb2
from services.orders.tests.conftest import Suite  # type: ignore[import-not-found]

# The wallet is to be watched as well, which is no matter of money.
OWED = "SELECT count(*) FROM outbox WHERE subject <> 'ospay.orders.v1.address_watched'"


async def refund(suite: Suite, refund_id: str = "r1", order_id: str = "ord_1", **fields: object) -> object:
    request = orders_pb2.RefundOrderRequest(
        merchant_id="mrc_1", order_id=order_id, refund_id=refund_id, reason="asked", **fields
    )
    return await suite.peer.call(suite.orders.RefundOrder, request, timeout=5)
