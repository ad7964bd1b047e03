"""The suite on a chain of ours, behind endpoints of ours that can be made to fail and to lie."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import asyncpg

from chains import checksum_address
from local.anvil import Anvil
from local.background import RunningSuite, run_suite
from local.devchain import DevChain
from local.ports import free_port
from local.process import running
from services.verifier.tests.malicious import Lie, MaliciousRpc, malicious
from tests.shop import BASE_PER_MINOR
from tests.simulation.model import Credit, Held, Key, Moved, Said, Sold

T = TypeVar("T")

TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
OPERATORS = ("one", "two")
ACKNOWLEDGED_SECONDS = 40.0
# No order and no claim of this world runs out of time: its chain mines many blocks a second, each a second later.
LONG = 30 * 24 * 3600
ENVIRONMENT = {"ORDERS_CLAIM_TTL": str(LONG), "ORDERS_SETTLEMENT_DELAY": str(LONG)}


class World:
    """Everything that a life needs; its methods wait for what runs in an event loop of another thread."""

    def __init__(self, suite: RunningSuite, do: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self.suite = suite
        self.do = do
        self.http: aiohttp.ClientSession
        self.chain: DevChain
        self.nodes: dict[str, MaliciousRpc] = {}

    async def ask(
        self, method: str, path: str, body: object, *, key: str = "", admin: str = "", good: Sequence[int] = (200,)
    ) -> Any:
        """The JSON answer, asked again until it is there: 503 and a lost connection are no answer."""
        headers = {"X-API-Key": key} if key else {"X-Admin-Key": admin} if admin else {}
        deadline = time.monotonic() + ACKNOWLEDGED_SECONDS
        while True:
            try:
                url = self.suite.run["gateway_url"] + path
                async with self.http.request(method, url, json=body, headers=headers) as answer:
                    found = await answer.json(content_type=None)
                    if answer.status in good:
                        return found
                    assert answer.status == 503, found
            except (aiohttp.ClientError, TimeoutError, FileNotFoundError):
                pass
            assert time.monotonic() < deadline, f"no answer to {path} within {ACKNOWLEDGED_SECONDS} s"
            await asyncio.sleep(0.1)

    async def register(self, **fields: str) -> tuple[str, str]:
        """A merchant's id and key."""
        run = self.suite.run
        made = await self.ask("POST", "/merchants", {"name": "Life", **fields}, admin=run["admin_key"], good=(201,))
        return made["id"], made["api_key"]

    async def sell(self, merchant: str, key: str, amount_minor: int, *, own_address: bool) -> Sold:
        """An acknowledged order."""
        born = await self.chain.head()
        order = "s_" + secrets.token_hex(8)
        body = {
            "id": order,
            "merchant_id": merchant,
            "asset": "USDT",
            "amount_minor": amount_minor,
            "expires_in_seconds": LONG,
        }
        made = await self.ask("POST", "/orders", body, key=key, good=(200, 201))
        return Sold(order, merchant, own_address, made["deposit_address"], amount_minor, born)

    async def claim(self, order: Sold, tx_hash: str) -> bool:
        """A claim, as anybody may make it; False where there are too many on this order."""
        body = {"order_id": order.id, "merchant_id": order.merchant, "tx_hash": tx_hash}
        answer = await self.ask("POST", "/events/payment-detected", body, good=(200, 202, 429))
        return "status" in answer and "code" not in answer

    async def pay(self, sender: str, to: str, amount_minor: int) -> str:
        """A transfer that waits to be mined."""
        return await self.chain.send_token(sender, to, amount_minor * BASE_PER_MINOR)

    async def final(self, since: int, addresses: Sequence[str]) -> dict[Key, Moved]:
        """What is final on the real chain, from the node itself."""
        query = {
            "fromBlock": hex(since),
            "toBlock": hex(max(since, await self.chain.finalized())),
            "address": self.chain.token,
            "topics": [TRANSFER, None, ["0x" + "0" * 24 + address[2:].lower() for address in addresses]],
        }
        moved = [_moved(log) for log in await self.chain.rpc("eth_getLogs", query)] if addresses else []
        return {each.key: each for each in moved if each.amount_minor}

    async def said(self, merchants: Sequence[str]) -> Said:
        """What OSPay's own tables say, in one snapshot."""
        connection = await asyncpg.connect(self.suite.run["databases"]["orders"])
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                orders = await connection.fetch(
                    "SELECT id, state, created_block FROM orders WHERE merchant_id = ANY($1)", merchants
                )
                credits_ = await connection.fetch(
                    "SELECT order_id, tx_hash, log_index, coalesce(credited_minor, amount_minor) AS amount_minor"
                    " FROM payments WHERE merchant_id = ANY($1) AND state = 'CREDITED'",
                    merchants,
                )
                held = await connection.fetch(
                    "SELECT merchant_id, tx_hash, log_index, amount_minor FROM suspense"
                    " WHERE merchant_id = ANY($1) AND state = 'OPEN'",
                    merchants,
                )
        finally:
            await connection.close()
        return Said(
            {row["id"]: row["state"] for row in orders},
            {row["id"]: row["created_block"] for row in orders},
            [Credit(row["order_id"], (row["tx_hash"], row["log_index"]), row["amount_minor"]) for row in credits_],
            [Held(row["merchant_id"], (row["tx_hash"], row["log_index"]), row["amount_minor"]) for row in held],
        )

    async def books(self, merchant: str, key: str) -> Mapping[str, int]:
        """Reconciliation as the merchant sees it."""
        found = await self.ask("GET", f"/reconciliation?merchant_id={merchant}&asset=USDT", None, key=key)
        return dict(found)

    def lie(self, operator: str, lie: Lie | None) -> None:
        """Makes an endpoint fail or lie in one way, or in none."""
        self.nodes[operator].lie = lie


def _moved(log: Mapping[str, Any]) -> Moved:
    return Moved(
        key=(log["transactionHash"], int(log["logIndex"], 16)),
        sender=checksum_address("0x" + log["topics"][1][26:]),
        recipient=checksum_address("0x" + log["topics"][2][26:]),
        amount_minor=int(log["data"], 16) // BASE_PER_MINOR,
        block=int(log["blockNumber"], 16),
    )


@contextmanager
def open_world(folder: Path) -> Iterator[World]:
    """A chain, two endpoints before it and the suite behind them."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def do(work: Awaitable[T]) -> T:
        return asyncio.run_coroutine_threadsafe(_bounded(work), loop).result()

    stack = AsyncExitStack()
    try:
        nodes = do(_open_nodes(stack, folder))
        urls = ",".join(f"{operator}={node.url}" for operator, node in nodes.items())
        with run_suite(folder / "suite", {**ENVIRONMENT, "BSC_RPC_URL": urls}) as suite:
            world = World(suite, do)
            world.nodes = nodes
            do(_connect(stack, world))
            yield world
    finally:
        do(stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _bounded(work: Awaitable[T]) -> T:
    return await asyncio.wait_for(work, 120)


async def _open_nodes(stack: AsyncExitStack, folder: Path) -> dict[str, MaliciousRpc]:
    anvil = Anvil(folder, free_port(), folder / "anvil.log")
    await stack.enter_async_context(running(anvil))
    async with DevChain.connect(anvil.url) as chain:
        await chain.finalize()
    return {operator: await stack.enter_async_context(malicious(anvil.url)) for operator in OPERATORS}


async def _connect(stack: AsyncExitStack, world: World) -> None:
    world.http = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)))
    world.chain = await stack.enter_async_context(DevChain.connect(next(iter(world.nodes.values())).target))
