"""The whole suite as `make run` starts it, and what a test needs to act as merchant, customer and operator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from local.background import RunningSuite, run_suite
from tests.collector import Collector
from tests.shop import Shop, open_shop


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """One suite for all tests that do it no harm: mines only on demand, settles late, two replicas of orders."""
    environment = {"ORDERS_SETTLEMENT_DELAY": "3600", "OSPAY_REPLICAS_ORDERS": "2"}
    with run_suite(tmp_path_factory.mktemp("suite"), environment) as running:
        yield running


@pytest.fixture
async def shop(suite: RunningSuite) -> AsyncIterator[Shop]:
    """A merchant of this test alone."""
    async with open_shop(suite) as opened:
        yield opened


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
