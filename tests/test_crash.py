"""Parts are killed while payments flow: nothing acknowledged is lost, and all heals by itself."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import nats
import pytest
from nats.aio.msg import Msg

from local.background import RunningSuite, run_suite
from tests.flow import Flow, first_claims
from tests.shop import FIVE, Shop, eventually, open_shop, returned

PAYERS = 4
DUPLICATE = "Test-Duplicate"


@pytest.fixture(scope="module")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite to be broken, with a chain that mines by itself."""
    environment = {"OSPAY_BLOCK_TIME": "1", "ORDERS_SETTLEMENT_DELAY": "3600"}
    with run_suite(tmp_path_factory.mktemp("breakable"), environment) as running:
        yield running


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("OSPAY_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"OSPAY_TEST_SEED={seed}")  # noqa: T201  # shown when the test fails
    return random.Random(seed)


@asynccontextmanager
async def healthy_shop(suite: RunningSuite) -> AsyncIterator[Shop]:
    """A merchant, once everything is up: what the test before has killed may still be on its way."""

    async def healthy() -> bool | None:
        async with aiohttp.ClientSession() as http, http.get(suite.run["gateway_url"] + "/dbhealth") as answer:
            return True if answer.status == 200 else None

    await eventually(healthy, 30, "everything to be up")
    async with open_shop(suite) as shop:
        yield shop


async def flowing(shop: Shop, chance: random.Random) -> tuple[Flow, asyncio.Task[None]]:
    flow = Flow(shop, chance)
    task = asyncio.create_task(flow.run(PAYERS))
    await first_claims(flow, chance.randrange(4, 12))
    return flow, task


@pytest.mark.parametrize("part", ["orders", "verifier", "ledger", "gateway", "postgres"])
async def test_kill_9_loses_nothing(breakable: RunningSuite, chance: random.Random, part: str) -> None:
    """A part killed under load comes back, and every acknowledged order and claim ends right."""
    async with healthy_shop(breakable) as shop:
        flow, task = await flowing(shop, chance)
        killed = breakable.kill(part)
        await first_claims(flow, len(flow.claimed) + 1)
        await returned(breakable, part, killed)
        flow.stop()
        await task
        await flow.converge()


async def test_nats_wiped_loses_nothing(breakable: RunningSuite, chance: random.Random) -> None:
    """NATS killed and its folder deleted under load: the outbox brings everything home."""
    async with healthy_shop(breakable) as shop:
        flow, task = await flowing(shop, chance)
        killed = breakable.kill("nats")
        shutil.rmtree(breakable.run["nats_dir"], ignore_errors=True)
        await first_claims(flow, len(flow.claimed) + 5)
        await returned(breakable, "nats", killed)
        flow.stop()
        await task
        await flow.converge()


async def test_a_silent_node_loses_nothing(breakable: RunningSuite, chance: random.Random) -> None:
    """The node stops answering while claims wait: nothing is paid on a guess, all is paid once it is back."""
    async with healthy_shop(breakable) as shop:
        flow, task = await flowing(shop, chance)
        flow.stop()
        await task
        pid = breakable.pids("anvil")[0]
        os.kill(pid, signal.SIGSTOP)
        try:
            order = await shop.create()
            status, _ = await shop.claim(order, "0x" + "5" * 64)
            assert status == 202
        finally:
            os.kill(pid, signal.SIGCONT)
        await flow.converge()
        assert (await shop.order(order))["status"] == "PENDING"


async def test_every_message_twice_and_out_of_order(breakable: RunningSuite, chance: random.Random) -> None:
    """Each message is published again after others, live and then all at once, shuffled: nothing changes."""
    seen: list[tuple[str, bytes]] = []
    delayed: set[asyncio.Task[None]] = set()
    client = await nats.connect(breakable.run["nats_url"])

    async def again(subject: str, data: bytes) -> None:
        await asyncio.sleep(chance.random() * 2)
        await client.publish(subject, data, headers={DUPLICATE: "1"})

    async def on_message(message: Msg) -> None:
        if not (message.headers or {}).get(DUPLICATE):
            seen.append((message.subject, message.data))
            delayed.add(asyncio.create_task(again(message.subject, message.data)))

    await client.subscribe("ospay.>", cb=on_message)
    try:
        async with healthy_shop(breakable) as shop:
            flow, task = await flowing(shop, chance)
            flow.stop()
            await task
            await flow.converge()
            await asyncio.gather(*delayed)
            before = await snapshot(shop, flow)
            chance.shuffle(seen)
            for subject, data in seen:
                await client.publish(subject, data, headers={DUPLICATE: "1"})
            await client.flush()
            await one_more(shop, flow)
            assert await snapshot(shop, flow) == before
    finally:
        await client.close()


async def one_more(shop: Shop, flow: Flow) -> None:
    """One more payment, from claim to booked: what was published before it has been consumed by then."""
    order = await shop.create()
    await shop.claim(order, await shop.transfer(mine=False))
    await shop.reaches(order, "PAID")
    await shop.booked(sum(flow.orders[each] for each in flow.claimed) + FIVE)


async def snapshot(shop: Shop, flow: Flow) -> object:
    """What must not change: the orders of the flow and their entries."""
    orders = [await shop.order(order) for order in sorted(flow.orders)]
    entries = [await shop.entries(order) for order in sorted(flow.orders)]
    return orders, [[item.SerializeToString(deterministic=True) for item in each] for each in entries]
