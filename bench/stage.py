"""A running suite, and what the measurements need of it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from bench.sizes import Sizes
from chains import checksum_address
from local.background import RunningSuite, run_suite
from local.places import remove
from local.wiring import SERVICES_WITH_DATABASE

POLL_SECONDS = 0.01
BOUND_SECONDS = 120.0


@dataclass(frozen=True)
class Merchant:
    """As `POST /merchants` made it."""

    id: str
    key: str
    wallet: str


class Stage:
    """The suite, its databases as their owners, its gateway."""

    def __init__(
        self, suite: RunningSuite, sizes: Sizes, pools: Mapping[str, asyncpg.Pool], session: aiohttp.ClientSession
    ) -> None:
        self.suite = suite
        self.sizes = sizes
        self.run = suite.run
        self.gateway: str = self.run["gateway_url"]
        self._pools = pools
        self._session = session

    @classmethod
    @asynccontextmanager
    async def open(cls, suite: RunningSuite, sizes: Sizes) -> AsyncIterator[Stage]:
        """Connects to what the suite says it is."""
        async with AsyncExitStack() as stack:
            pools = {
                name: await stack.enter_async_context(
                    asyncpg.create_pool(suite.run["database_owners"][name], min_size=0, max_size=3)
                )
                for name in SERVICES_WITH_DATABASE
            }
            timeout = aiohttp.ClientTimeout(total=20)
            session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
            yield cls(suite, sizes, pools, session)

    async def value(self, database: str, sql: str, *arguments: object) -> Any:
        """The one value of a query."""
        return await self._pools[database].fetchval(sql, *arguments)

    async def column(self, database: str, sql: str, *arguments: object) -> list[Any]:
        """The first column of a query."""
        return [row[0] for row in await self._pools[database].fetch(sql, *arguments)]

    async def execute(self, database: str, *statements: str | tuple[Any, ...]) -> None:
        """Statements in one transaction; a tuple is a statement and its arguments."""
        async with self._pools[database].acquire() as connection, connection.transaction():
            for statement in statements:
                sql, *arguments = (statement,) if isinstance(statement, str) else statement
                await connection.execute(sql, *arguments)

    async def maintain(self, database: str, statement: str) -> None:
        """One statement that cannot be in a transaction, like VACUUM."""
        await self._pools[database].execute(statement)

    async def checkpoint(self) -> None:
        """Has PostgreSQL write out what was filled in, so that it does not do so while something is measured."""
        secret = json.loads((self.suite.folder / "secrets.json").read_text())["postgres_password"]
        server = self.run["database_owners"]["orders"].rpartition("@")[2].partition("/")[0]
        connection = await asyncpg.connect(f"postgresql://postgres:{secret}@{server}/postgres?sslmode=disable")
        try:
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()

    async def merchant(self) -> Merchant:
        """A new one with a wallet of its own."""
        wallet = checksum_address("0x" + secrets.token_hex(20))
        body = {"name": "Bench", "merchant_wallet_address": wallet}
        headers = {"X-Admin-Key": self.run["admin_key"]}
        async with self._session.post(f"{self.gateway}/merchants", json=body, headers=headers) as answer:
            assert answer.status == 201, await answer.text()
            made = await answer.json()
        return Merchant(made["id"], made["api_key"], wallet)

    async def get(self, path: str, merchant: Merchant) -> Any:
        """What the gateway answers to a merchant. Errors: AssertionError unless it is 200."""
        async with self._session.get(self.gateway + path, headers={"X-API-Key": merchant.key}) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def check_books(self, merchant: Merchant, balance_minor: int) -> None:
        """Waits until nothing is in flight; the merchant's books must then show exactly this balance."""
        path = f"/reconciliation?merchant_id={merchant.id}&asset=USDT"
        found: dict[str, Any] = {}

        async def settled() -> bool:
            found.update(await self.get(path, merchant))
            return not found["in_flight_count"]

        await until(settled, f"the books of {merchant.id}")
        shown = (found["merchant_balance_minor"], found["clearing_balance_minor"], found["suspense_balance_minor"])
        assert shown == (balance_minor, -balance_minor, 0), f"{shown}, and {balance_minor} was paid"

    async def check_ledger(self) -> None:
        """All books together balance, and every event has its two sides."""
        net, lines, events = await asyncio.gather(
            self.value(
                "ledger",
                "SELECT sum(CASE direction WHEN 'CREDIT' THEN amount_minor ELSE -amount_minor END) FROM entries",
            ),
            self.value("ledger", "SELECT count(*) FROM entries"),
            self.value("ledger", "SELECT count(*) FROM events"),
        )
        assert not net, f"the books are off by {net}"
        assert lines == 2 * events, f"{lines} entries of {events} events"

    @contextmanager
    def stopped(self, *parts: str) -> Iterator[None]:
        """Parts that do nothing meanwhile: for what is measured alone, and to fill a queue before it is measured."""
        pids = [pid for part in parts for pid in self.suite.pids(part)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


@contextmanager
def fresh_suite(environment: Mapping[str, str]) -> Iterator[RunningSuite]:
    """`make run` on free ports and new state, with a chain that mines on demand; nothing is left behind."""
    folder = Path(tempfile.mkdtemp(prefix="ospay-bench-"))
    try:
        with run_suite(folder, environment) as suite:
            yield suite
    finally:
        remove(folder / "state")  # PostgreSQL's files may be elsewhere, see local/places.py
        shutil.rmtree(folder)


async def until(
    condition: Callable[[], Awaitable[bool]], what: str, seconds: float = BOUND_SECONDS, every: float = POLL_SECONDS
) -> None:
    """Asks until the condition holds. Errors: AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        await asyncio.sleep(every)
