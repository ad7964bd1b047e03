"""What proves a refund and what does not, on a real database: one transfer proves one refund."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest

from orders.rpc.refunds import transfer_data
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.conftest import WALLET  # type: ignore[import-not-found]
from services.orders.tests.desk import tx  # type: ignore[import-not-found]
from services.orders.tests.refund_proofs.shop import (  # type: ignore[import-not-found]
    CONFIRMED,
    OTHER,
    OTHER_WALLET,
    PAID_BLOCK,
    PAYER,
    RECORDED,
    REFUTED,
    Shop,
    final,
    moved,
    rejected,
    waiting,
)


async def test_waiting_then_final_confirms(shop: Shop) -> None:
    """Each waiting verdict tells why; the final one confirms, closes the debt and leaves the books as they were."""
    claim = await shop.named(7)
    before = (await shop.suite.get()).SerializeToString(deterministic=True)
    for reason in ("not_found", "chain_unavailable", "not_final"):
        await shop.say(waiting(claim, reason))
        assert await shop.stands() == (RECORDED, reason)
        assert len(await shop.claims()) == 1
    await shop.say(final(claim, moved(7)))
    found = await shop.shown()
    assert (found.state, found.state_reason, found.tx_hash) == (CONFIRMED, "", tx(7))
    assert found.confirmed_at.ToDatetime() >= found.created_at.ToDatetime()
    assert await shop.claims() == []
    assert (await shop.suite.get()).SerializeToString(deterministic=True) == before
    assert await shop.value("SELECT count(*) FROM outbox WHERE subject = 'ospay.orders.v1.order_refunded'") == 1
    assert await shop.value("SELECT refund_id || log_index || sender FROM refund_transfers") == f"r10{WALLET}"


@pytest.mark.parametrize(
    ("transfers", "reason"),
    [
        ([moved(7, sender=OTHER)], "wrong_sender"),
        ([moved(7, 999_999)], "wrong_amount"),
        ([moved(7, 1_000_001)], "wrong_amount"),
        ([moved(7, -1)], "wrong_amount"),
        ([moved(7, block_number=PAID_BLOCK - 1)], "mined_before_order"),
        ([moved(7, sender=OTHER), moved(7, 2_000_000, log_index=1)], "wrong_amount"),
    ],
)
async def test_a_transfer_that_does_not_fit_refutes(
    shop: Shop, transfers: Sequence[verifier_pb2.Transfer], reason: str
) -> None:
    """Another sender, more or less, or mined before the order was paid: REFUTED, with the reason that came nearest."""
    await shop.say(final(await shop.named(7), *transfers))
    assert await shop.stands() == (REFUTED, reason)
    assert await shop.claims() == []
    assert await shop.value("SELECT count(*) FROM refund_transfers") == 0


@pytest.mark.parametrize("reason", ["tx_failed", "wrong_token", "wrong_recipient", "no_transfer", "given_up"])
async def test_what_the_verifier_refutes_is_refuted(shop: Shop, reason: str) -> None:
    """The verifier's own reason is told."""
    await shop.say(rejected(await shop.named(7), reason))
    assert await shop.stands() == (REFUTED, reason)
    assert await shop.claims() == []


async def test_the_block_of_the_payment_is_early_enough(shop: Shop) -> None:
    """A refund may be mined in the block that paid, and dust below a minor unit is ignored."""
    dusty = moved(7, block_number=PAID_BLOCK)
    dusty.amount_base = str(10**18 + 10**12 - 1)
    await shop.say(final(await shop.named(7), dusty))
    assert await shop.stands() == (CONFIRMED, "")


async def test_one_fitting_transfer_among_others_confirms(shop: Shop) -> None:
    """A batch transaction proves a refund by the one transfer that fits."""
    transfers = [moved(7, sender=OTHER), moved(7, 3, log_index=1), moved(7, log_index=2), moved(7, log_index=3)]
    await shop.say(final(await shop.named(7), *transfers))
    assert await shop.stands() == (CONFIRMED, "")
    assert await shop.value("SELECT array_agg(log_index) FROM refund_transfers") == [2]


async def test_declared_addresses_are_what_counts(shop: Shop) -> None:
    """The claim goes to the declared recipient, and the declared sender counts instead of the wallet."""
    answer = await shop.refund(to_address=OTHER.lower(), from_address=PAYER.lower(), tx_hash=tx(7))
    found = answer.refund  # type: ignore[attr-defined]
    assert (found.to_address, found.from_address) == (OTHER, PAYER)
    assert found.unsigned_transaction.data == transfer_data(OTHER, 10**18)
    (claim,) = await shop.claims()
    assert claim.recipient == OTHER
    await shop.say(final(claim.claim_id, moved(7)))
    assert await shop.stands() == (REFUTED, "wrong_sender")
    await shop.attach(8)
    (claim,) = await shop.claims()
    assert claim.recipient == OTHER
    await shop.say(final(claim.claim_id, moved(8, sender=PAYER)))
    assert await shop.stands() == (CONFIRMED, "")


async def test_an_order_that_the_wallet_paid_itself_is_never_confirmed(shop: Shop) -> None:
    """There the payer is the wallet: the refund is booked, but what goes to oneself could pay an order too."""
    await shop.sell("self", 3, sender=WALLET)
    claim = await shop.named(7, "r2", order_id="self")
    await shop.say(final(claim, moved(7)))
    assert await shop.stands("r2", "self") == (REFUTED, "wrong_recipient")
    declared = await shop.named(8, "r3", order_id="self", to_address=PAYER)
    await shop.say(final(declared, moved(8)))
    assert await shop.stands("r3", "self") == (CONFIRMED, "")


async def test_a_transfer_that_paid_an_order_proves_no_refund(shop: Shop) -> None:
    """What is a payment of the merchant's is not its refund as well."""
    await shop.say(final(await shop.named(1), moved(1)))
    assert await shop.stands() == (REFUTED, "already_used")


async def test_another_merchants_wallet_sends_its_own_refunds(shop: Shop) -> None:
    """Who copies another merchant's transaction and declares its wallet cannot use up that merchant's refund."""
    claim = await shop.named(7, from_address=OTHER_WALLET)
    await shop.say(final(claim, moved(7, sender=OTHER_WALLET)))
    assert await shop.stands() == (REFUTED, "wrong_sender")
    assert await shop.value("SELECT count(*) FROM refund_transfers") == 0


async def test_merchants_of_one_wallet_share_its_transfers(shop: Shop) -> None:
    """A transfer proves one refund, whichever of the wallet's merchants names it first."""
    await shop.suite.merchant("mrc_3")
    await shop.suite.create("ord_3", merchant_id="mrc_3")
    await shop.value(
        """WITH paid AS (
               INSERT INTO payments (chain_id, tx_hash, log_index, order_id, merchant_id, event_id, amount_base,
                                     amount_minor, sender, block_number, block_hash, block_time)
               SELECT 56, $1, 0, 'ord_3', 'mrc_3', uuidv7(), 1, 5000000, $2, 100, $1, now())
           UPDATE orders SET state = 'PAID', received_minor = 5000000, paid_at = now()
           WHERE id = 'ord_3' RETURNING 1""",
        tx(33),
        PAYER,
    )
    first = await shop.named(7)
    await shop.say(final(first, moved(7)))
    second = await shop.named(7, "r3", order_id="ord_3", merchant_id="mrc_3")
    await shop.say(final(second, moved(7)))
    assert [(item.state, item.state_reason) for item in await shop.refunds("ord_3", "mrc_3")] == [
        (REFUTED, "already_used")
    ]


async def test_refunds_that_race_for_one_transfer(shop: Shop) -> None:
    """Eight refunds of one amount name one transaction at once: exactly one is CONFIRMED, the others were too late."""
    await shop.sell("ord_2", 2)
    owners = {f"r{number}": "ord_1" if number < 4 else "ord_2" for number in range(8)}
    claims = [await shop.named(7, name, order_id=order_id) for name, order_id in owners.items()]
    await asyncio.gather(*(shop.say(final(claim, moved(7))) for claim in claims))
    found = [await shop.stands(name, order_id) for name, order_id in owners.items()]
    assert sorted(found) == [(CONFIRMED, "")] + [(REFUTED, "already_used")] * 7
    assert await shop.value("SELECT count(*) FROM refund_transfers") == 1
    assert await shop.claims() == []


async def test_one_batch_gives_a_transfer_to_one_refund(shop: Shop) -> None:
    """Two refunds of one amount, one transfer, one message of verdicts: the first has it."""
    claims = [await shop.named(7, name) for name in ("r1", "r2")]
    await shop.say(*(final(claim, moved(7)) for claim in claims))
    assert sorted([await shop.stands("r1"), await shop.stands("r2")]) == [(CONFIRMED, ""), (REFUTED, "already_used")]


async def test_two_logs_of_one_transaction_prove_two_refunds(shop: Shop) -> None:
    """Identity includes the log: at once or one after the other, each refund has a transfer of its own."""
    claims = [await shop.named(7, name) for name in ("r1", "r2", "r3", "r4")]
    logs = [moved(7, log_index=index) for index in range(3)]
    await asyncio.gather(*(shop.say(final(claim, *logs)) for claim in claims[:2]))
    await shop.say(*(final(claim, *logs) for claim in claims[2:]))
    found = sorted([await shop.stands(name) for name in ("r1", "r2", "r3", "r4")])
    assert found == [(CONFIRMED, "")] * 3 + [(REFUTED, "already_used")]
    assert await shop.value("SELECT array_agg(log_index ORDER BY log_index) FROM refund_transfers") == [0, 1, 2]


async def test_a_verdict_that_comes_again_changes_nothing(shop: Shop) -> None:
    """Twice in a message, twice at once, later, and contradicted afterwards: what is confirmed stays confirmed."""
    claim = await shop.named(7)
    verdict = final(claim, moved(7))
    await shop.say(verdict, verdict)
    before = (await shop.shown()).SerializeToString(deterministic=True)
    await asyncio.gather(*(shop.say(verdict) for _ in range(4)))
    await shop.say(waiting(claim, "not_found"))
    await shop.say(rejected(claim, "tx_failed"))
    assert (await shop.shown()).SerializeToString(deterministic=True) == before
    assert await shop.value("SELECT count(*) FROM refund_transfers") == 1


async def test_claims_and_proofs_share_a_message(shop: Shop) -> None:
    """Verdicts on an order's claim, on a refund's and on an unknown one, in one message: each does its own."""
    await shop.suite.create("ord_2")
    payment = await shop.claim("ord_2", 2)
    proof = await shop.named(7)
    unknown = str(UUID(int=5))
    paying = moved(2, 5_000_000, sender=PAYER)
    await shop.say(final(str(payment), paying), final(unknown, moved(8)), final(proof, moved(7)))
    assert (await shop.state("ord_2"), await shop.stands()) == ("PAID", (CONFIRMED, ""))
    assert await shop.claims() == []
