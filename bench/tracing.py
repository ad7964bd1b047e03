"""What tracing costs: a suite that samples one request in a hundred, and one that traces nothing, in turn."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from bench.figures import Figures
from bench.orders import MANY, Orders
from bench.stage import Stage, until
from tests.collector import Collector

SHARE = 0.01
ROOT = "POST /orders"
# How far chance may take the share of the sampled: ten times less would be no sampling, ten times more another one.
FACTOR = 10


@contextmanager
def collector() -> Iterator[tuple[Collector, dict[str, str]]]:
    """An OTLP receiver on this machine, and the environment of a suite that sends a hundredth of its traces there."""
    kept = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(kept, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield (
            kept,
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
                "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": str(SHARE),
            },
        )
    finally:
        server.stop(1).wait()


async def measure(off: Stage, on: Stage, kept: Collector, figures: Figures) -> None:
    """The ratio; which suite is first changes from round to round."""
    orders = {stage: Orders(stage, await stage.merchant()) for stage in (off, on)}
    done = dict.fromkeys(orders, 0)
    for stage in orders:
        done[stage] += (await orders[stage].create(MANY)).good
    for number in range(on.sizes.rounds):
        turns = (off, on) if number % 2 == 0 else (on, off)
        rates = {}
        for stage in turns:
            load = await orders[stage].create(MANY)
            done[stage] += load.good
            rates[stage] = load.per_second
        figures.note("tracing", rates[on] / rates[off])
        figures.note("orders created/s, tracing off", rates[off])
    await _check(kept, done[on], figures)


async def _check(kept: Collector, requests: int, figures: Figures) -> None:
    """Traces came, and about as many as were asked for."""

    async def sampled() -> bool:
        return sum(item.span.name == ROOT for item in list(kept.seen)) > requests * SHARE / FACTOR

    await until(sampled, f"the traces of {requests} requests", seconds=10)
    roots = sum(item.span.name == ROOT for item in list(kept.seen))
    assert roots < requests * SHARE * FACTOR, f"{roots} of {requests} requests were traced"
    figures.note("% of creates traced", 100 * roots / requests)
