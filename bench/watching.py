"""`python -m bench.watching`: payments that nobody claims, against the node's own speed. See README.md."""

from __future__ import annotations

import asyncio
import json
import secrets
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from bip32 import BIP32
from rich.console import Console
from rich.table import Table

from bench.sizes import FULL
from bench.stage import Stage, fresh_suite, until
from bench.transfers import BASE_PER_MINOR
from chains import checksum_address
from local.devchain import DevChain

RESULTS = Path(__file__).parent / "results" / "watching.json"
AMOUNT = 5_000_000
OPEN_ORDERS = (1, 100, 10_000)
PAYMENTS = 100  # for each number of open orders, one after the other
DOWNTIMES = 3
LOGS_PER_TRANSACTION = 25
TRANSACTIONS = 400
LOGS = LOGS_PER_TRANSACTION * TRANSACTIONS
RAW_SECONDS = 3.0
CREATES_AT_ONCE = 64


@dataclass
class Shop:
    """A merchant of a running suite, whose orders nobody claims."""

    stage: Stage
    chain: DevChain
    http: aiohttp.ClientSession
    merchant: dict[str, Any]
    open: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    async def register(cls, stage: Stage, chain: DevChain, http: aiohttp.ClientSession, **fields: str) -> Shop:
        """A new merchant; `fields` say where it is paid."""
        headers = {"X-Admin-Key": stage.run["admin_key"]}
        return cls(stage, chain, http, await _post(stage, http, "/merchants", {"name": "Bench", **fields}, headers))

    async def fill(self, count: int) -> None:
        """As many open orders, each with an address of its own that is watched."""
        gate = asyncio.Semaphore(CREATES_AT_ONCE)
        headers = {"X-API-Key": self.merchant["api_key"]}

        async def create() -> None:
            body = {
                "id": "b_" + secrets.token_hex(8),
                "merchant_id": self.merchant["id"],
                "asset": "USDT",
                "amount_minor": AMOUNT,
                "expires_in_seconds": 86_400,
            }
            async with gate:
                self.open.append(await _post(self.stage, self.http, "/orders", body, headers))

        async def watched() -> bool:
            states = await self.stage.column(
                "verifier", "SELECT state FROM watches WHERE chain_id = 56 AND address = ANY($1::bytea[])", addresses
            )
            return states == ["WATCHED"] * len(addresses)

        known = len(self.open)
        await asyncio.gather(*(create() for _ in range(count - known)))
        addresses = [_bytes(order["deposit_address"]) for order in self.open[known:]]
        await until(watched, f"{len(addresses)} addresses to be watched")

    async def pay(self) -> float:
        """Pays an open order; seconds from the block that makes it final to PAID, by the database's clock."""
        order, sender = self.open.pop(), self.chain.accounts[0]
        await self.chain.send_token(sender, order["deposit_address"], AMOUNT * BASE_PER_MINOR, mine=True)
        await self.chain.mine(3)
        final = time.time()
        await self.chain.mine(1)

        is_paid = "SELECT state = 'PAID' FROM orders WHERE id = $1"

        async def paid() -> bool:
            return bool(await self.stage.value("orders", is_paid, order["id"]))

        await until(paid, "an order to be PAID")
        epoch = "SELECT extract(epoch FROM paid_at)::float8 FROM orders WHERE id = $1"
        return float(await self.stage.value("orders", epoch, order["id"])) - final


async def found(shop: Shop, count: int) -> dict[str, float]:
    """What payments take that nobody claims, with so many orders open."""
    await shop.fill(count)
    await shop.pay()  # caches and pools are warm from here on
    calls, passes = await _calls(shop)
    seconds = []
    for _ in range(PAYMENTS):
        await shop.fill(count)
        seconds.append(await shop.pay())
    after, passes_after = await _calls(shop)
    return {
        f"seconds from final to PAID, {count} open, p50": statistics.median(seconds),
        f"seconds from final to PAID, {count} open, p99": sorted(seconds)[int(PAYMENTS * 0.99)],
        f"JSON-RPC calls per payment, {count} open": (after - calls) / PAYMENTS,
        f"JSON-RPC calls per pass, {count} open": (after - calls) / (passes_after - passes),
    }


async def _calls(shop: Shop) -> tuple[float, float]:
    """(JSON-RPC calls, passes of the scanner) so far."""
    totals = {"verifier_rpc_calls_total": 0.0, "verifier_scan_seconds_count": 0.0}
    for url in shop.stage.run["metrics_urls"]["verifier"]:
        async with shop.http.get(url) as answer:
            for line in (await answer.text()).splitlines():
                name = line.split("{")[0].split(" ")[0]
                if name in totals:
                    totals[name] += float(line.rsplit(" ", 1)[1])
    return totals["verifier_rpc_calls_total"], totals["verifier_scan_seconds_count"]


async def catch_up(stage: Stage, chain: DevChain, http: aiohttp.ClientSession) -> tuple[float, float]:
    """(final logs/s through the watcher, logs/s of the node alone), all to one wallet, after a down-time."""
    wallet = checksum_address("0x" + secrets.token_hex(20))
    await Shop.register(stage, chain, http, merchant_wallet_address=wallet)

    async def watched() -> bool:
        sql = "SELECT bool_and(state = 'WATCHED') FROM watches WHERE chain_id = 56 AND address = $1"
        return bool(await stage.value("verifier", sql, _bytes(wallet)))

    async def final() -> bool:
        sql = "SELECT count(*) FROM sightings WHERE recipient = $1 AND state = 'FINAL'"
        return int(await stage.value("verifier", sql, _bytes(wallet))) == LOGS

    async def held() -> bool:
        return int(await stage.value("orders", "SELECT count(*) FROM suspense WHERE recipient = $1", wallet)) == LOGS

    await until(watched, "the wallet to be watched")
    first = await chain.head() + 1
    with stage.stopped("verifier"):
        await _transfers(chain, wallet)
    back = time.time()
    await until(final, f"{LOGS} transfers to be FINAL")
    last = "SELECT extract(epoch FROM max(changed_at))::float8 FROM sightings WHERE recipient = $1"
    seconds = float(await stage.value("verifier", last, _bytes(wallet))) - back
    await until(held, f"{LOGS} transfers to be in suspense")
    return LOGS / seconds, await _raw_logs(chain, http, first, wallet)


async def _transfers(chain: DevChain, wallet: str) -> None:
    """The logs, in blocks of a hundred; all of them final."""
    batch = await chain.deploy("Batch")
    await chain.send_token(chain.accounts[0], batch, LOGS * BASE_PER_MINOR, mine=True)
    recipients, amounts = [wallet] * LOGS_PER_TRANSACTION, [BASE_PER_MINOR] * LOGS_PER_TRANSACTION
    for number in range(TRANSACTIONS):
        await chain.call("Batch", batch, "pay", chain.token, recipients, amounts)
        if number % 4 == 3:
            await chain.mine(1)
    await chain.finalize()


async def _raw_logs(chain: DevChain, http: aiohttp.ClientSession, first: int, wallet: str) -> float:
    query = {
        "fromBlock": hex(first),
        "toBlock": hex(await chain.finalized()),
        "address": chain.token,
        "topics": [None, None, "0x" + "0" * 24 + wallet[2:].lower()],
    }
    body = json.dumps([{"jsonrpc": "2.0", "id": 1, "method": "eth_getLogs", "params": [query]}])
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < RAW_SECONDS:
        async with http.post(chain.url, data=body, headers={"Content-Type": "application/json"}) as answer:
            await answer.read()
        count += LOGS
    return count / (time.perf_counter() - started)


async def _post(
    stage: Stage, http: aiohttp.ClientSession, path: str, body: object, headers: dict[str, str]
) -> dict[str, Any]:
    async with http.post(stage.gateway + path, json=body, headers=headers) as answer:
        assert answer.status in (200, 201), await answer.text()
        return dict(await answer.json())


def _bytes(address: str) -> bytes:
    return bytes.fromhex(address[2:])


async def measure() -> dict[str, list[float]]:
    """All figures, by name; more than one value where there were rounds."""
    figures: dict[str, list[float]] = {}
    with fresh_suite({}) as suite:
        async with (
            Stage.open(suite, FULL) as stage,
            DevChain.connect(suite.run["rpc_url"]) as chain,
            aiohttp.ClientSession() as http,
        ):
            xpub = BIP32.from_seed(secrets.token_bytes(32)).get_xpub_from_path("m/44'/60'/0'")
            shop = await Shop.register(stage, chain, http, xpub=xpub)
            for count in OPEN_ORDERS:
                figures |= {name: [value] for name, value in (await found(shop, count)).items()}
            for _ in range(DOWNTIMES):
                ours, raw = await catch_up(stage, chain, http)
                figures.setdefault("final logs/s through the watcher", []).append(ours)
                figures.setdefault("logs/s of the node's eth_getLogs alone", []).append(raw)
                figures.setdefault("watcher ÷ node", []).append(ours / raw)
            await stage.check_ledger()
    return figures


def main() -> None:
    """Runs everything, shows it and writes the results."""
    figures = uvloop.run(measure())
    table = Table("what", "median", "rounds")
    for name, values in figures.items():
        table.add_row(name, f"{statistics.median(values):.4g}", "  ".join(f"{value:.4g}" for value in values))
    Console().print(table)
    content = {name: {"median": statistics.median(values), "rounds": values} for name, values in figures.items()}
    RESULTS.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
