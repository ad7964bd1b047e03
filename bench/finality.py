"""How long a payment waits from the block that makes it final until it is PAID, at a steady 100 a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

from bench.figures import Figures
from bench.load import Client
from bench.orders import FEW
from bench.payments import LOOK_SECONDS, TAKEN, Till
from bench.stage import until
from local.devchain import FINALITY_DEPTH

RATE = 100.0
BLOCK_SECONDS = 0.45  # as on BNB Smart Chain
IN_BLOCK = int(RATE * BLOCK_SECONDS)
# A claim comes so long after its block: time to mine it on a busy machine, and well before the block is final.
LAG_SECONDS = 0.9
JUST_PAID = "SELECT id FROM orders WHERE state = 'PAID' AND paid_at > now() - interval '3 seconds' AND merchant_id = $1"


async def measure(till: Till, figures: Figures) -> None:
    """The 99th percentile in seconds, as a reader of the database sees it who looks every 20 ms.

    The clock starts when the block is asked for, so the time to mine it is in.
    """
    orders = await till.create(till.stage.sizes.steady_payments)
    hashes: list[str] = []
    mining = asyncio.create_task(_mine(till, orders, hashes))
    watching = asyncio.create_task(_watch(till, len(orders)))
    await asyncio.sleep(LAG_SECONDS)
    async with Client.open(till.stage.gateway, FEW) as client:
        done = await client.paced(_claims(till, orders, hashes), RATE, len(orders) / RATE)
    assert set(done.statuses) <= TAKEN, done.statuses
    mined, seen = await mining, await watching
    waited = sorted(seen[order] - mined[place // IN_BLOCK + FINALITY_DEPTH] for place, (order, _) in enumerate(orders))
    assert waited[0] > 0, "PAID before it was final"
    await till.check()
    figures.note("finality", waited[int(len(waited) * 0.99)])
    figures.note("finalized block → PAID, p50 s", waited[len(waited) // 2])


async def _mine(till: Till, orders: Sequence[tuple[str, int]], hashes: list[str]) -> list[float]:
    """A block with its share of the transfers every 0.45 s, until the last is final; when each was asked for."""
    started, mined = time.perf_counter(), []
    for number in range(-(-len(orders) // IN_BLOCK) + FINALITY_DEPTH):
        await asyncio.sleep(max(0.0, started + number * BLOCK_SECONDS - time.perf_counter()))
        sent = await till.send(orders[number * IN_BLOCK : (number + 1) * IN_BLOCK])
        mined.append(time.perf_counter())
        await till.payer.chain.mine(1)
        hashes += sent
    return mined


def _claims(till: Till, orders: Sequence[tuple[str, int]], hashes: Sequence[str]) -> Iterator[bytes]:
    for place, (order, _) in enumerate(orders):
        assert place < len(hashes), f"the machine is too slow to mine {RATE:g} transfers a second"
        yield till.claim(order, hashes[place])


async def _watch(till: Till, count: int) -> dict[str, float]:
    """When each order was first seen to be PAID."""
    seen: dict[str, float] = {}

    async def all_paid() -> bool:
        for order in await till.stage.column("orders", JUST_PAID, till.merchant.id):
            seen.setdefault(order, time.perf_counter())
        return len(seen) >= count

    await until(all_paid, f"{count} orders to be PAID", every=LOOK_SECONDS)
    return seen
