"""`python -m bench.cpu`: CPU per create and per read, by process, in microseconds. Needs Linux and wrk."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.__main__ import Bench
from bench.wrk import Load
from local.background import RunningSuite, run_suite

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


async def measure(suite: RunningSuite) -> dict[str, dict[str, float]]:
    """Microseconds by part, by load; all rounds together."""
    bench = Bench(suite)
    await bench.creates(64)  # caches, plans and pools are warm from here on
    spent: dict[str, dict[str, float]] = {}
    done: dict[str, int] = {}

    async def note(name: str, load: Load, before: dict[str, float]) -> None:
        done[name] = done.get(name, 0) + load.good
        total = spent.setdefault(name, dict.fromkeys(PARTS, 0.0))
        for part, seconds in used(suite).items():
            total[part] += seconds - before[part]

    for _ in range(ROUNDS):
        for connections in (64, 256):
            before = used(suite)
            await note(f"create, c={connections}", await bench.creates(connections), before)
        before = used(suite)
        await note("read, c=64", await bench.reads(64), before)
    return {name: {part: 1e6 * value / done[name] for part, value in total.items()} for name, total in spent.items()}


def main() -> None:
    """Runs it and shows a table."""
    with tempfile.TemporaryDirectory(prefix="ospay-cpu-") as folder, run_suite(Path(folder), {}) as suite:
        found = asyncio.run(measure(suite))
    table = Table("µs of CPU", *PARTS, "sum")
    for name, parts in found.items():
        table.add_row(name, *(f"{parts[part]:.0f}" for part in PARTS), f"{sum(parts.values()):.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
