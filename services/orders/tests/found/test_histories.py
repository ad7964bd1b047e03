"""Random reports and claims keep the books."""

from __future__ import annotations

import asyncio
import random

from orders.domain import Outcome, Verdict
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.desk import (  # type: ignore[import-not-found]
    FINAL,
    FIVE,
    GONE,
    PAYER,
    REVERSED,
    SEEN,
    Desk,
    report,
    transfer,
)
from services.orders.tests.found.scene import order  # type: ignore[import-not-found]


async def test_random_histories_keep_the_books(desk: Desk) -> None:
    """Parts, claims, reversals, moves, repetitions in any order and at once: what is booked is what the rows say."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)  # not for secrets
    print(f"seed {seed}")  # noqa: T201  # shown when this fails
    addresses = {name: await order(desk, name) for name in ("ord_1", "ord_2", "ord_3")}
    told: list[verifier_pb2.Report] = []
    claims = []
    for number in range(1, 13):
        name = chance.choice(list(addresses))
        amount = chance.choice([1_000_000, 2_500_000, FIVE, 7_000_000])
        fields: dict[str, object] = {"block_number": 100 + number, "sender": PAYER}
        told.append(report(addresses[name], number, amount, chance.choice([SEEN, FINAL]), **fields))
        later = [FINAL, GONE] if told[-1].state == SEEN else [REVERSED, GONE]
        told.append(report(addresses[name], number, amount, chance.choice(later), version=2, **fields))
        if chance.random() < 0.4:
            verdict = Verdict(
                await desk.claim(name, number), Outcome.FINAL, transfers=(transfer(number, amount, **fields),)
            )
            claims.append(verdict)
    chance.shuffle(told)
    work = [desk.find(*told[start : start + 5]) for start in range(0, len(told), 5)]
    await asyncio.gather(*work, *(desk.apply(verdict) for verdict in claims), desk.find(*told[::3]))
    await desk.check()
