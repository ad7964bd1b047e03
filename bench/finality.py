"""How long a payment waits from the block that makes it final until it is PAID, at a steady 100 a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from bench.figures import Figures
from bench.load import Client
from bench.orders import FEW
from bench.payments import LOOK_SECONDS, TAKEN, Till
from bench.stage import until
from local.devchain import FINALITY_DEPTH

RATE = 100.0
BLOCK_SECONDS = 0.45  # as on BNB Smart Chain
IN_BLOCK = int(RATE * BLOCK_SECONDS)
JUST_PAID = "SELECT id FROM orders WHERE state = 'PAID' AND paid_at > now() - interval '3 seconds' AND merchant_id = $1"


async def measure(till: Till, figures: Figures) -> None:
    """The 99th percentile in seconds, as a reader of the database sees it who looks every 20 ms.

    The clock starts when the block is asked for, so the time to mine it is in.
    """
    orders = await till.create(till.stage.sizes.steady_payments)
    watching = asyncio.create_task(_watch(till, len(orders)))
    async with Client.open(till.stage.gateway, FEW) as client:
        mined = await _pay(till, client, orders)
    seen = await watching
    waited = sorted(seen[order] - mined[place // IN_BLOCK + FINALITY_DEPTH] for place, (order, _) in enumerate(orders))
    assert waited[0] > 0, "PAID before it was final"
    await till.check()
    figures.note("finality", waited[int(len(waited) * 0.99)])
    figures.note("finalized block → PAID, p50 s", waited[len(waited) // 2])
    figures.note("steady payments/s", IN_BLOCK * (len(mined) - 1) / (mined[-1] - mined[0]))


async def _pay(till: Till, client: Client, orders: Sequence[tuple[str, int]]) -> list[float]:
    """A block with its share of the transfers every 0.45 s, claimed at once; goes on until the last is final.

    Returns when each block was asked for.
    """
    started, mined = time.perf_counter(), []
    for number in range(-(-len(orders) // IN_BLOCK) + FINALITY_DEPTH):
        some = orders[number * IN_BLOCK : (number + 1) * IN_BLOCK]
        hashes = await till.send(some)
        await asyncio.sleep(max(0.0, started + number * BLOCK_SECONDS - time.perf_counter()))
        mined.append(time.perf_counter())
        await till.payer.chain.mine(1)
        claims = (till.claim(order, tx) for (order, _), tx in zip(some, hashes, strict=True))
        done = await client.answered(claims, 60)
        assert set(done.statuses) <= TAKEN, done.statuses
    return mined


async def _watch(till: Till, count: int) -> dict[str, float]:
    """When each order was first seen to be PAID."""
    seen: dict[str, float] = {}

    async def all_paid() -> bool:
        for order in await till.stage.column("orders", JUST_PAID, till.merchant.id):
            seen.setdefault(order, time.perf_counter())
        return len(seen) >= count

    await until(all_paid, f"{count} orders to be PAID", every=LOOK_SECONDS)
    return seen
