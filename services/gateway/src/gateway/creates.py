"""Sends the orders that were collected as one call."""

from __future__ import annotations

from gateway.downstream import ORDER_NAMES, Creation, ask, translate
from kit import telemetry
from kit.channel import Peer
from kit.errors import Fault
from kit.status import from_status
from ospay.orders.v1 import orders_pb2, orders_pb2_grpc

# With the 2.5 s that an item may wait before: an answer within 5 s.
BATCH_SECONDS = 2.5


class BatchCreates:
    """BatchCreateOrders, with a response or a fault for each item."""

    def __init__(self, peer: Peer, orders: orders_pb2_grpc.OrderServiceAsyncStub) -> None:
        self._peer = peer
        self._orders = orders

    async def send(self, creations: list[Creation]) -> list[orders_pb2.CreateOrderResponse | Fault]:
        """As many outcomes as items, in their order. Errors: Fault when the whole call fails."""
        request = orders_pb2.BatchCreateOrdersRequest(requests=[creation.request for creation in creations])
        with telemetry.spans("batch create orders", [creation.traceparent for creation in creations]):
            response = await ask(self._peer, self._orders.BatchCreateOrders, request, timeout=BATCH_SECONDS)
        return [_outcome(result) for result in response.results]


def _outcome(result: orders_pb2.CreateOrderResult) -> orders_pb2.CreateOrderResponse | Fault:
    if result.HasField("created"):
        return result.created
    return translate(from_status(result.error), ORDER_NAMES)
