"""What an operator sees: one trace for one payment, received over real OTLP."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from local.background import RunningSuite, run_suite
from tests.shop import FIVE, eventually, open_shop

ROOT = "POST /events/payment-detected"


@dataclass(frozen=True)
class Seen:
    """A span and the service that made it."""

    service: str
    span: trace_pb2.Span


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP endpoint that keeps what it is sent."""

    seen: list[Seen] = field(default_factory=list)

    def Export(self, request, context):  # gRPC's name
        for resource in request.resource_spans:
            names = [item.value.string_value for item in resource.resource.attributes if item.key == "service.name"]
            for scope in resource.scope_spans:
                self.seen += [Seen(names[0], span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def trace(self, root_name: str) -> list[Seen]:
        """The trace of the only root of this name."""
        roots = [item for item in list(self.seen) if item.span.name == root_name and not item.span.parent_span_id]
        assert len(roots) <= 1, "one request was made"
        return [item for item in list(self.seen) if roots and item.span.trace_id == roots[0].span.trace_id]


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    servicer = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"http://127.0.0.1:{port}"
    server.stop(1).wait()


@pytest.fixture
def traced(collector: tuple[Collector, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector[1]}
    with run_suite(tmp_path_factory.mktemp("traced"), environment) as running:
        yield running


def orphans(spans: list[Seen]) -> list[str]:
    """Names of spans whose parent is not there."""
    ids = {item.span.span_id for item in spans}
    return [item.span.name for item in spans if item.span.parent_span_id and item.span.parent_span_id not in ids]


async def test_a_payment_is_one_trace(traced: RunningSuite, collector: tuple[Collector, str]) -> None:
    """From the claim's HTTP request to the ledger's commit and its confirmation: one root, no orphan, every part."""
    seen = collector[0]
    async with open_shop(traced) as shop:
        order = await shop.create()
        tx = await shop.transfer()
        await shop.claim(order, tx)
        await shop.chain.finalize()
        await shop.reaches(order, "PAID")
        await shop.booked(FIVE)

    async def whole() -> list[Seen] | None:
        # Services send their spans by themselves: a child may come before its parent.
        found = seen.trace(ROOT)
        return found if "orders close debts" in {item.span.name for item in found} and not orphans(found) else None

    spans = await eventually(whole, 20, f"the whole trace; orphans: {orphans(seen.trace(ROOT))}")
    assert [item.span.name for item in spans if not item.span.parent_span_id] == [ROOT]
    assert {item.service for item in spans} == {"gateway", "orders", "verifier", "ledger"}
    names = {item.span.name for item in spans}
    assert {
        "ospay.orders.v1.OrderService/BatchDetectPayments",
        "detect payment",
        "publish ospay.orders.v1.payment_claimed",
        "orders apply verdicts",
        "publish ospay.orders.v1.order_paid",
    } <= names
    assert any("eth_getTransactionReceipt" in name for name in names), names
    assert any(item.service == "ledger" for item in spans)
