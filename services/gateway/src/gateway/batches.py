"""Sends what concurrent requests ask for as one call: a unary gRPC call costs more than the work behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from google.rpc import status_pb2

from gateway.downstream import ORDER_NAMES, Creation, ask, translate
from kit import telemetry
from kit.channel import Peer
from kit.errors import Fault
from kit.status import from_status
from kit.stream import Stream
from ospay.orders.v1 import orders_pb2, orders_pb2_grpc

Request = TypeVar("Request")
Response = TypeVar("Response")

# With the 2.5 s that an item may wait before: an answer within 5 s.
BATCH_SECONDS = 2.5
# With a full queue orders verifies inline: one RPC call to the chain of at most 10 s is in it.
DETECT_SECONDS = 15.0


class Batches:
    """The batch calls of orders: as many outcomes as items, in their order. Errors: Fault when a whole call fails."""

    def __init__(self, peer: Peer, orders: orders_pb2_grpc.OrderServiceAsyncStub) -> None:
        self._peer = peer
        self._orders = orders
        self._creates = Stream[orders_pb2.BatchCreateOrdersRequest, orders_pb2.BatchCreateOrdersResponse](
            peer, orders.StreamCreateOrders, orders.BatchCreateOrders, timeout=BATCH_SECONDS
        )
        self._reads = Stream[orders_pb2.BatchGetOrdersRequest, orders_pb2.BatchGetOrdersResponse](
            peer, orders.StreamGetOrders, orders.BatchGetOrders, timeout=BATCH_SECONDS
        )

    async def create(self, creations: Sequence[Creation]) -> list[orders_pb2.CreateOrderResponse | Fault]:
        """Orders to create."""
        request = orders_pb2.BatchCreateOrdersRequest(requests=[creation.request for creation in creations])
        with telemetry.spans("batch create orders", [creation.traceparent for creation in creations]):
            request.traceparent = telemetry.traceparent()
            response = await _over(self._creates, request)
        return [
            result.created if result.HasField("created") else _fault(result.error, ORDER_NAMES)
            for result in response.results
        ]

    async def get(self, requests: Sequence[orders_pb2.GetOrderRequest]) -> list[orders_pb2.Order | Fault]:
        """Orders to read."""
        request = orders_pb2.BatchGetOrdersRequest(requests=requests)
        response = await _over(self._reads, request)
        return [
            result.order if result.HasField("order") else _fault(result.error, ORDER_NAMES)
            for result in response.results
        ]

    async def detect(
        self, requests: Sequence[orders_pb2.DetectPaymentRequest]
    ) -> list[orders_pb2.DetectPaymentResponse | Fault]:
        """Claims to record; each carries the trace that it belongs to."""
        request = orders_pb2.BatchDetectPaymentsRequest(requests=requests)
        with telemetry.spans("batch detect payments", [item.traceparent for item in requests]) as onward:
            for item in request.requests:
                item.traceparent = onward.get(item.traceparent, item.traceparent)
            response = await ask(self._peer, self._orders.BatchDetectPayments, request, timeout=DETECT_SECONDS)
        return [
            result.detected if result.HasField("detected") else _fault(result.error, {}) for result in response.results
        ]


async def _over(stream: Stream[Request, Response], request: Request) -> Response:
    try:
        return await stream.call(request)
    except Fault as fault:
        raise translate(fault, {}) from None


def _fault(error: status_pb2.Status, names: Mapping[str, str]) -> Fault:
    return translate(from_status(error), names)
