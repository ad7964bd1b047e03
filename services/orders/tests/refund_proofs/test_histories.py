"""Random refunds, transactions and verdicts keep the promises."""

from __future__ import annotations

import asyncio
import random

from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.refund_proofs.shop import Shop, final, moved, waiting  # type: ignore[import-not-found]


async def test_random_histories_keep_the_promises(shop: Shop) -> None:
    """Whatever is named, said and repeated, at once: a transfer proves at most one refund, of exactly its amount."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)  # not for secrets
    print(f"seed {seed}")  # noqa: T201  # shown when this fails
    names = [f"r{number}" for number in range(8)]
    for name in names:
        await shop.refund(name, amount_minor=chance.choice([100_000, 200_000]))
    verdicts: list[verifier_pb2.Verdict] = []
    for _ in range(6):
        await asyncio.gather(*(shop.attach(chance.randrange(7, 10), name) for name in names), return_exceptions=True)
        for claim in await shop.claims():
            logs = [
                moved(int(claim.tx_hash, 16), chance.choice([100_000, 200_000, 300_000]), log_index=index)
                for index in range(chance.randrange(1, 4))
            ]
            word = chance.choice([final(claim.claim_id, *logs), waiting(claim.claim_id, "not_final")])
            verdicts.append(word)
        chance.shuffle(verdicts)
        await asyncio.gather(*(shop.say(*verdicts[start::3]) for start in range(3)))
    wrong = """SELECT count(*) FROM refund_proofs t JOIN refunds r ON r.id = t.refund_id
               LEFT JOIN refund_transfers x ON x.claim_id = t.claim_id
               WHERE (t.state = 'CONFIRMED') <> (x.amount_minor IS NOT DISTINCT FROM r.amount_minor)"""
    assert await shop.value(wrong) == 0
    assert await shop.value("SELECT count(*) FROM refund_transfers") == await shop.value(
        "SELECT count(DISTINCT refund_id) FROM refund_proofs WHERE state = 'CONFIRMED'"
    )
    owed = "SELECT count(*) FROM outbox o FULL JOIN refund_proofs t ON t.debt_id = o.event_id"
    lost = f"{owed} WHERE (t.state = 'OPEN') <> (o.event_id IS NOT NULL) AND t.claim_id IS NOT NULL"
    assert await shop.value(lost) == 0
