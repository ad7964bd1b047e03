"""`python -m bench.cpu`: CPU per create and per read, by process, in microseconds. Needs Linux and wrk."""

from __future__ import annotations

import os
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from bench.orders import FEW, MANY, Orders
from bench.sizes import FULL
from bench.stage import Stage, fresh_suite
from bench.wrk import Load
from local.background import RunningSuite

ROUNDS = 3
PARTS = ("gateway", "orders", "postgres", "verifier", "ledger", "nats", "anvil")
TICKS = os.sysconf("SC_CLK_TCK")


def seconds_of(pid: int) -> float:
    """CPU that a process and its children have used so far."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = (Path(f"/proc/{pid}/task") / str(pid) / "children").read_text().split()
    except OSError:  # it has ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS + sum(seconds_of(int(child)) for child in children)


def used(suite: RunningSuite) -> dict[str, float]:
    """CPU seconds of each part so far."""
    return {part: sum(seconds_of(pid) for pid in suite.pids(part)) for part in PARTS}


async def measure(stage: Stage) -> dict[str, dict[str, float]]:
    """Microseconds by part, by load; all rounds together."""
    orders = Orders(stage, await stage.merchant())
    await orders.create(FEW)  # caches, plans and pools are warm from here on
    spent: dict[str, dict[str, float]] = {}
    done: dict[str, int] = {}

    async def note(name: str, load: Load, before: dict[str, float]) -> None:
        done[name] = done.get(name, 0) + load.good
        total = spent.setdefault(name, dict.fromkeys(PARTS, 0.0))
        for part, seconds in used(stage.suite).items():
            total[part] += seconds - before[part]

    for _ in range(ROUNDS):
        for connections in (FEW, MANY):
            before = used(stage.suite)
            await note(f"create, c={connections}", await orders.create(connections), before)
        before = used(stage.suite)
        await note(f"read, c={FEW}", await orders.read(FEW), before)
    return {name: {part: 1e6 * value / done[name] for part, value in total.items()} for name, total in spent.items()}


async def _run() -> dict[str, dict[str, float]]:
    with fresh_suite({}) as suite:
        async with Stage.open(suite, FULL) as stage:
            return await measure(stage)


def main() -> None:
    """Runs it and shows a table."""
    table = Table("µs of CPU", *PARTS, "sum")
    for name, parts in uvloop.run(_run()).items():
        table.add_row(name, *(f"{parts[part]:.0f}" for part in PARTS), f"{sum(parts.values()):.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
