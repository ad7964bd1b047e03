"""`python -m bench`: the suite against the limits of this machine, in one run. See README.md."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

import uvloop
from rich.console import Console

from bench import finality, ledger, limits, memory, orders, payments, report, settlement, tracing, verifier, volume
from bench.figures import ROWS, Figures
from bench.queues import Queues
from bench.sizes import FULL, SMOKE, Sizes
from bench.stage import Stage, fresh_suite
from bench.transfers import Payer

console = Console(highlight=False)


class Measured(Protocol):
    """A part that is measured anew in each round."""

    async def measure(self, figures: Figures) -> None:
        """Notes its rows, and what they are made of."""


class Run:
    """One run of everything."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self.figures = Figures()
        self.seconds: dict[str, float] = {}

    async def everything(self) -> None:
        """The rows, in the order in which they disturb each other least."""
        started = time.perf_counter()
        await self._alone()
        await self._side_by_side()
        self.seconds["all"] = time.perf_counter() - started

    async def _alone(self) -> None:
        """What is measured on one suite: round after round, each part beside its limit."""
        async with self._suite("start") as stage, memory.watched(stage.suite, self.figures), AsyncExitStack() as stack:
            payer = await stack.enter_async_context(Payer.open(stage.run["rpc_url"]))
            queues = await stack.enter_async_context(Queues.open(stage.run["nats_url"]))
            till = payments.Till(stage, await stage.merchant(), payer)
            creating = orders.Round(stage, await stage.merchant())
            with self._part("prepare"):
                proving = await verifier.Round.prepare(stage, queues, payer)
                await creating.warm()
            parts: dict[str, Measured] = {
                "orders": creating,
                "payments": payments.Round(till),
                "ledger": ledger.Round(stage, queues),
                "settlement": settlement.Round(stage, await stage.merchant()),
                "verifier": proving,
            }
            for number in range(self._sizes.rounds):
                for name, part in parts.items():
                    with self._part(name, number):
                        await part.measure(self.figures)
            with self._part("finality"):
                await finality.measure(till, self.figures)
            with self._part("echo"):
                self.figures.note("grpc.aio echoes/s, c=64", await limits.echoes(self._sizes.limit_seconds))
            await stage.check_ledger()

    async def _side_by_side(self) -> None:
        """What is measured on two suites in turn."""
        async with self._suite("start another") as plain:
            async with (
                tracing.receiver() as receiver,
                self._suite("start one that is traced", receiver.environment) as traced,
            ):
                with self._part("tracing"):
                    await tracing.measure(plain, traced, receiver, self.figures)
            await plain.execute("orders", "TRUNCATE orders")
            async with self._suite("start one to fill") as full:
                with self._part("volume"):
                    await volume.measure(plain, full, self.figures)

    @asynccontextmanager
    async def _suite(self, name: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[Stage]:
        with ExitStack() as stack:
            with self._part(name):
                suite = stack.enter_context(fresh_suite(environment or {}))
            async with Stage.open(suite, self._sizes) as stage:
                yield stage

    @contextmanager
    def _part(self, name: str, number: int | None = None) -> Iterator[None]:
        """Says what is measured, and keeps how long it took."""
        of = "" if number is None else f", round {number + 1} of {self._sizes.rounds}"
        console.print(f"{name}{of}", end=" … ")
        started = time.perf_counter()
        yield
        took = time.perf_counter() - started
        self.seconds[name] = self.seconds.get(name, 0.0) + took
        console.print(f"{took:.1f} s")


def main() -> None:
    """Runs everything; a full run writes the results."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="The suite against what this machine can.")
    parser.add_argument("--smoke", action="store_true", help="every part once and small; checks answers and no times")
    smoke = parser.parse_args().smoke
    run = Run(SMOKE if smoke else FULL)
    uvloop.run(run.everything())
    missing = [row.key for row in ROWS if row.key not in run.figures.rounds]
    assert not missing, f"not measured: {missing}"
    if smoke:
        with tempfile.TemporaryDirectory() as folder:
            report.save(run.figures, run.seconds, Path(folder))
        console.print(f"every part answers right; {run.seconds['all']:.0f} s, of which nothing can be told about speed")
        return
    report.show(run.figures, console)
    report.save(run.figures, run.seconds, report.RESULTS)
    console.print(f"{run.seconds['all']:.0f} s; the results are in bench/results/")


if __name__ == "__main__":
    main()
