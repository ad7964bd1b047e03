"""`python -m bench`: the suite against the limits of this machine, in one run. See README.md."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console
from rich.table import Table

from bench.load import http, load
from bench.wrk import PROGRAM, Load, wrk
from local.background import RunningSuite, run_suite
from local.devchain import DevChain
from local.postgres import INSTALLED

ROUNDS = 3
SECONDS = 5.0
MAX_PER_SECOND = 40_000  # requests that are made before a load, so that making them takes no CPU from it
PAYMENTS = 1500
AMOUNT = 5_000_000
BASE_PER_MINOR = 10**12
TRANSFERS_PER_BLOCK = 400
PGBENCH = INSTALLED / "bin" / "pgbench"
RESULTS = Path(__file__).parent / "results" / "latest.json"


class Bench:
    """One run: the limit and the suite in turn, then the state is checked."""

    def __init__(self, suite: RunningSuite) -> None:
        self._run = suite.run
        self._merchant = self._run["merchant"]
        self._ids = itertools.count()
        self._prefix = f"b{random.randrange(10**9)}_"  # noqa: S311
        self._created: deque[str] = deque(maxlen=PAYMENTS)

    async def pgbench(self) -> float:
        """One-row inserts per second, 16 clients, on the orders database itself."""
        url = self._run["database_owners"]["orders"]
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE IF NOT EXISTS bench_row (id uuid PRIMARY KEY, note text NOT NULL)")
        await connection.close()
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
            script.write("INSERT INTO bench_row VALUES (gen_random_uuid(), repeat('x', 200));\n")
            script.flush()
            command = [str(PGBENCH), "-n", "-c16", "-j2", "-M", "prepared", f"-T{SECONDS:.0f}"]
            done = await asyncio.to_thread(
                subprocess.run, [*command, "-f", script.name, url], capture_output=True, text=True, check=True
            )
        line = next(line for line in done.stdout.splitlines() if line.startswith("tps"))
        return float(line.split()[2])

    def _creates(self) -> Any:
        for number in self._ids:
            order = f"{self._prefix}{number}"
            body = {"id": order, "merchant_id": self._merchant["id"], "asset": "USDT", "amount_minor": AMOUNT}
            self._created.append(order)
            yield http("POST", "/orders", self._merchant["api_key"], json.dumps(body).encode())

    async def creates(self, connections: int) -> Load:
        """New orders; every one acknowledged must be a row."""
        before = await self._count_orders()
        result = await self._load(self._creates(), connections, {201})
        # wrk cuts off what is under way at the end: that may be a row or not.
        made = await self._count_orders() - before
        assert result.good <= made <= result.good + (connections if PROGRAM else 0), (result.good, made)
        return result

    async def reads(self, connections: int) -> Load:
        """Random known orders."""
        ids = await self._column("orders", "SELECT id FROM orders TABLESAMPLE SYSTEM (50) LIMIT 20000")
        random.shuffle(ids)
        key = self._merchant["api_key"]
        return await self._load(
            itertools.cycle([http("GET", f"/orders/{order}", key) for order in ids]), connections, {200}
        )

    async def _load(self, requests: Iterator[bytes], connections: int, good: set[int]) -> Load:
        if PROGRAM:
            some = itertools.islice(requests, int(SECONDS * MAX_PER_SECOND))
            return await wrk(self._run["gateway_url"], some, connections=connections, seconds=SECONDS)
        result = await load(self._run["gateway_url"], requests, connections=connections, seconds=SECONDS)
        assert set(result.statuses) == good, result.statuses
        return Load(sum(result.statuses.values()), result.seconds, result.percentile(0.5), result.percentile(0.99))

    async def payments(self, chain: DevChain) -> float:
        """Payments per second from the first claim to the last booking."""
        await load(self._run["gateway_url"], itertools.islice(self._creates(), PAYMENTS), connections=64, seconds=60)
        orders = list(self._created)
        hashes = await self._transfers(chain)
        bodies = [
            json.dumps({"order_id": order, "merchant_id": self._merchant["id"], "tx_hash": tx}).encode()
            for order, tx in zip(orders, hashes, strict=True)
        ]
        claims = iter([http("POST", "/events/payment-detected", None, body) for body in bodies])
        before = await self._entries()
        started = time.perf_counter()
        result = await load(self._run["gateway_url"], claims, connections=64, seconds=60)
        assert set(result.statuses) <= {202, 200}, result.statuses
        while await self._entries() < before + 2 * PAYMENTS:
            assert time.perf_counter() - started < 120, "not all payments were booked"
            await asyncio.sleep(0.02)
        seconds = time.perf_counter() - started
        await self._check_payments(orders)
        return PAYMENTS / seconds

    async def _transfers(self, chain: DevChain) -> list[str]:
        hashes = []
        for number in range(PAYMENTS):
            sent = await chain.send_token(chain.accounts[0], self._merchant["wallet"], AMOUNT * BASE_PER_MINOR)
            hashes.append(sent)
            if number % TRANSFERS_PER_BLOCK == TRANSFERS_PER_BLOCK - 1:
                await chain.mine(1)
        await chain.finalize()
        return hashes

    async def _count_orders(self) -> int:
        return int(await self._value("orders", "SELECT count(*) FROM orders"))

    async def _entries(self) -> int:
        return int(await self._value("ledger", "SELECT count(*) FROM entries WHERE event_type = 'ORDER_PAID'"))

    async def _check_payments(self, orders: list[str]) -> None:
        paid = await self._value("orders", "SELECT count(*) FROM orders WHERE id = ANY($1) AND state = 'PAID'", orders)
        assert paid == len(orders), f"{paid} of {len(orders)} are PAID"
        net = await self._value(
            "ledger", "SELECT sum(CASE direction WHEN 'CREDIT' THEN amount_minor ELSE -amount_minor END) FROM entries"
        )
        assert net == 0, "the books do not balance"

    async def _column(self, database: str, sql: str) -> list[Any]:
        connection = await asyncpg.connect(self._run["databases"][database])
        try:
            return [row[0] for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    async def _value(self, database: str, sql: str, *arguments: object) -> Any:
        connection = await asyncpg.connect(self._run["databases"][database])
        try:
            return await connection.fetchval(sql, *arguments)
        finally:
            await connection.close()


async def measure(suite: RunningSuite) -> dict[str, Any]:
    """All figures, as medians of the rounds with every round beside them."""
    bench = Bench(suite)
    rounds: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        rounds.setdefault(name, []).append(value)

    async with DevChain.connect(suite.run["rpc_url"]) as chain:
        await bench.creates(64)  # caches, plans and pools are warm from here on
        for _ in range(ROUNDS):
            limit = await bench.pgbench()
            note("pgbench one-row inserts/s", limit)
            for connections in (64, 256):
                result = await bench.creates(connections)
                note(f"orders created/s, c={connections}", result.per_second)
                note(f"orders created ÷ pgbench, c={connections}", result.per_second / limit)
                note(f"create p99 ms, c={connections}", result.p99)
            read = await bench.reads(64)
            note("orders read/s, c=64", read.per_second)
            note("orders read ÷ pgbench, c=64", read.per_second / limit)
            paid = await bench.payments(chain)
            note("payments claim → booked /s", paid)
            note("payments ÷ pgbench", paid / limit)
    return {name: {"median": statistics.median(values), "rounds": values} for name, values in rounds.items()}


def show(figures: dict[str, Any]) -> None:
    """The table on the screen."""
    table = Table("figure", "median", "rounds")
    for name, figure in figures.items():
        table.add_row(name, f"{figure['median']:.2f}", "  ".join(f"{value:.2f}" for value in figure["rounds"]))
    Console().print(table)


def main() -> None:
    """Runs everything and writes the results."""
    with tempfile.TemporaryDirectory(prefix="ospay-bench-") as folder, run_suite(Path(folder), {}) as suite:
        figures = asyncio.run(measure(suite))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    show(figures)


if __name__ == "__main__":
    main()
