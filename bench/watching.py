"""`python -m bench.watching`: payments that nobody claims, against the node's own speed. See README.md."""

from __future__ import annotations

import asyncio
import json
import secrets
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from bip32 import BIP32

from bench.__main__ import BASE_PER_MINOR, show
from local.background import RunningSuite, run_suite
from local.devchain import DevChain

RESULTS = Path(__file__).parent / "results" / "watching.json"
AMOUNT = 5_000_000
OPEN_ORDERS = (1, 100, 10_000)
PAYMENTS = 40  # for each number of open orders, in as many blocks
LOGS_PER_TRANSACTION = 25
TRANSACTIONS = 400
LOGS = LOGS_PER_TRANSACTION * TRANSACTIONS
RAW_SECONDS = 3.0
WAIT_SECONDS = 120.0
CREATES_AT_ONCE = 64


class Watching:
    """A shop on a running suite whose chain mines on demand."""

    def __init__(self, suite: RunningSuite, chain: DevChain, http: aiohttp.ClientSession) -> None:
        self._suite = suite
        self._chain = chain
        self._http = http
        self._key = ""
        self._merchant = ""
        self._open: list[dict[str, Any]] = []

    async def register(self, **fields: str) -> None:
        """A merchant of this measurement."""
        headers = {"X-Admin-Key": self._suite.run["admin_key"]}
        made = await self._ask("POST", "/merchants", {"name": "Bench", **fields}, headers)
        self._merchant, self._key = made["id"], made["api_key"]
        self._open = []

    async def _ask(self, method: str, path: str, body: object, headers: dict[str, str]) -> Any:
        url = self._suite.run["gateway_url"] + path
        async with self._http.request(method, url, json=body, headers=headers) as answer:
            found = await answer.json()
            assert answer.status in (200, 201), found
            return found

    async def open_orders(self, count: int) -> None:
        """As many open orders, each with an address of its own that is watched."""
        gate = asyncio.Semaphore(CREATES_AT_ONCE)

        async def create() -> None:
            async with gate:
                body = {
                    "id": "b_" + secrets.token_hex(8),
                    "merchant_id": self._merchant,
                    "asset": "USDT",
                    "amount_minor": AMOUNT,
                    "expires_in_seconds": 86_400,
                }
                self._open.append(await self._ask("POST", "/orders", body, {"X-API-Key": self._key}))

        await asyncio.gather(*(create() for _ in range(count - len(self._open))))
        await self._until(
            "verifier",
            "SELECT count(*) >= $1 AND count(*) FILTER (WHERE state = 'CATCHING_UP') = 0 FROM watches",
            len(self._open),
        )

    async def pay(self) -> float:
        """Pays an open order; seconds from the block that makes it final to PAID, by the database's clock."""
        order = self._open.pop()
        sender = self._chain.accounts[0]
        await self._chain.send_token(sender, order["deposit_address"], AMOUNT * BASE_PER_MINOR, mine=True)
        await self._chain.mine(3)
        final = time.time()
        await self._chain.mine(1)
        await self._until("orders", "SELECT state = 'PAID' FROM orders WHERE id = $1", order["id"])
        paid = await self._value(
            "orders", "SELECT extract(epoch FROM paid_at)::float8 FROM orders WHERE id = $1", order["id"]
        )
        return float(paid) - final

    async def calls(self) -> tuple[float, float]:
        """(JSON-RPC calls, passes of the scanner) so far."""
        totals = {"verifier_rpc_calls_total": 0.0, "verifier_scan_seconds_count": 0.0}
        for url in self._suite.run["metrics_urls"]["verifier"]:
            async with self._http.get(url) as answer:
                for line in (await answer.text()).splitlines():
                    name = line.split("{")[0].split(" ")[0]
                    if name in totals:
                        totals[name] += float(line.rsplit(" ", 1)[1])
        return totals["verifier_rpc_calls_total"], totals["verifier_scan_seconds_count"]

    async def catch_up(self) -> tuple[float, float]:
        """(final logs/s through the watcher, logs/s of the node alone), all to one wallet, after a down-time."""
        wallet = "0x" + secrets.token_hex(20)
        await self.register(merchant_wallet_address=wallet)
        await self._until(
            "verifier", "SELECT bool_and(state = 'WATCHED') FROM watches WHERE address = $1", _bytes(wallet)
        )
        first = await self._chain.head() + 1
        self._suite.kill("verifier")
        batch = await self._chain.deploy("Batch")
        await self._chain.send_token(self._chain.accounts[0], batch, LOGS * BASE_PER_MINOR, mine=True)
        for number in range(TRANSACTIONS):
            recipients, amounts = [wallet] * LOGS_PER_TRANSACTION, [BASE_PER_MINOR] * LOGS_PER_TRANSACTION
            await self._chain.call("Batch", batch, "pay", self._chain.token, recipients, amounts)
            if number % 4 == 3:
                await self._chain.mine(1)
        await self._chain.finalize()
        seen = "SELECT count(*) FILTER (WHERE state = 'FINAL') = $2 FROM sightings WHERE recipient = $1"
        await self._until("verifier", seen, _bytes(wallet), LOGS)
        seconds = await self._value(
            "verifier",
            "SELECT extract(epoch FROM max(changed_at) - min(seen_at))::float8 FROM sightings WHERE recipient = $1",
            _bytes(wallet),
        )
        await self._until("orders", "SELECT count(*) = $2 FROM suspense WHERE lower(recipient) = $1", wallet, LOGS)
        return LOGS / float(seconds), await self._raw_logs(first, wallet)

    async def _raw_logs(self, first: int, wallet: str) -> float:
        query = {
            "fromBlock": hex(first),
            "toBlock": hex(await self._chain.finalized()),
            "address": self._chain.token,
            "topics": [None, None, "0x" + "0" * 24 + wallet[2:]],
        }
        body = json.dumps([{"jsonrpc": "2.0", "id": 1, "method": "eth_getLogs", "params": [query]}])
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < RAW_SECONDS:
            headers = {"Content-Type": "application/json"}
            async with self._http.post(self._chain.url, data=body, headers=headers) as answer:
                await answer.read()
            count += LOGS
        return count / (time.perf_counter() - started)

    async def _until(self, database: str, sql: str, *arguments: object) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        connection = await asyncpg.connect(self._suite.run["databases"][database])
        try:
            while not await connection.fetchval(sql, *arguments):
                assert time.monotonic() < deadline, f"waited {WAIT_SECONDS} s for {sql}"
                await asyncio.sleep(0.01)
        finally:
            await connection.close()

    async def _value(self, database: str, sql: str, *arguments: object) -> Any:
        connection = await asyncpg.connect(self._suite.run["databases"][database])
        try:
            return await connection.fetchval(sql, *arguments)
        finally:
            await connection.close()


def _bytes(address: str) -> bytes:
    return bytes.fromhex(address[2:])


async def measure(suite: RunningSuite) -> dict[str, Any]:
    """All figures."""
    figures: dict[str, list[float]] = {}
    async with DevChain.connect(suite.run["rpc_url"]) as chain, aiohttp.ClientSession() as http:
        watching = Watching(suite, chain, http)
        await watching.register(xpub=BIP32.from_seed(secrets.token_bytes(32)).get_xpub_from_path("m/44'/60'/0'"))
        for count in OPEN_ORDERS:
            await watching.open_orders(count)
            await watching.pay()
            calls, passes = await watching.calls()
            found = []
            for _ in range(PAYMENTS):
                await watching.open_orders(count)
                found.append(await watching.pay())
            after, passes_after = await watching.calls()
            figures[f"seconds from final to PAID, {count} open, p50"] = [statistics.median(found)]
            figures[f"seconds from final to PAID, {count} open, p99"] = [sorted(found)[int(len(found) * 0.99)]]
            figures[f"JSON-RPC calls per payment, {count} open"] = [(after - calls) / PAYMENTS]
            figures[f"JSON-RPC calls per pass, {count} open"] = [(after - calls) / (passes_after - passes)]
        ours, raw = await watching.catch_up()
        figures["final logs/s through the watcher"] = [ours]
        figures["logs/s of the node's eth_getLogs alone"] = [raw]
        figures["watcher ÷ node"] = [ours / raw]
    return {name: {"median": statistics.median(values), "rounds": values} for name, values in figures.items()}


def main() -> None:
    """Runs everything and writes the results."""
    with tempfile.TemporaryDirectory(prefix="ospay-bench-") as folder, run_suite(Path(folder), {}) as suite:
        figures = asyncio.run(measure(suite))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    show(figures)


if __name__ == "__main__":
    main()
