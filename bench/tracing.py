"""What tracing costs: a suite that samples one request in a hundred, and one that traces nothing, in turn."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from bench.figures import Figures
from bench.orders import MANY, Orders
from bench.stage import Stage, until

SHARE = 0.01
# Of one load. The machine has fast and slow phases of seconds: most pairs of so short ones are within one of them.
SECONDS = 1.0
ROOT = "POST /orders"
# How far chance may take the share of the sampled: ten times less would be no sampling, ten times more another one.
FACTOR = 10


@dataclass
class Receiver:
    """An OTLP receiver on this machine, and how many creates it has the trace of."""

    port: int
    traces: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """Of a suite that sends a hundredth of its traces there."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": str(SHARE),
        }


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """A process of its own: what it does with the spans is not what tracing costs us."""
    command = [sys.executable, "-m", "bench.otlp", ROOT]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None, "it is a pipe"
    receiver = Receiver(int(await process.stdout.readline()))
    counting = asyncio.create_task(_count(process.stdout, receiver))
    try:
        yield receiver
    finally:
        counting.cancel()
        with suppress(asyncio.CancelledError):
            await counting
        process.terminate()
        await process.wait()


async def _count(lines: asyncio.StreamReader, receiver: Receiver) -> None:
    async for line in lines:
        receiver.traces = int(line)


async def measure(off: Stage, on: Stage, receiver: Receiver, figures: Figures) -> None:
    """The ratio; which suite is first changes from pair to pair."""
    orders = {stage: Orders(stage, await stage.merchant()) for stage in (off, on)}
    done = dict.fromkeys(orders, 0)
    for stage in orders:
        done[stage] += (await orders[stage].create(MANY, SECONDS)).good
    for number in range(on.sizes.pairs):
        turns = (off, on) if number % 2 == 0 else (on, off)
        rates = {}
        for stage in turns:
            load = await orders[stage].create(MANY, SECONDS)
            done[stage] += load.good
            rates[stage] = load.per_second
        figures.note("tracing", rates[on] / rates[off])
        figures.note("orders created/s, tracing off", rates[off])
    await _check(receiver, done[on], figures)


async def _check(receiver: Receiver, requests: int, figures: Figures) -> None:
    """Traces came, and about as many as were asked for."""

    async def sampled() -> bool:
        return receiver.traces > requests * SHARE / FACTOR

    await until(sampled, f"the traces of {requests} requests", seconds=10)
    assert receiver.traces < requests * SHARE * FACTOR, f"{receiver.traces} of {requests} requests were traced"
    figures.note("% of creates traced", 100 * receiver.traces / requests)
