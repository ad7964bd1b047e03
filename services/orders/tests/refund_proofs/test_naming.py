"""How a refund is sent, and the transaction that is named for it: once, later, again, at once."""

from __future__ import annotations

import asyncio

import nats
import pytest

from chains import Registry
from kit.errors import Fault
from local.process import until
from orders.rpc.convert import order_message
from orders.rpc.refunds import refund_message, transfer_data
from orders.store import outbox
from orders.workflow import orders, refund_proofs
from ospay.orders.v1 import orders_pb2
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.conftest import WALLET  # type: ignore[import-not-found]
from services.orders.tests.desk import tx  # type: ignore[import-not-found]
from services.orders.tests.refund_proofs.shop import (  # type: ignore[import-not-found]
    CLAIMED,
    CONFIRMED,
    OTHER,
    PAYER,
    RECORDED,
    TOKEN_CONTRACT,
    Shop,
    final,
    moved,
    rejected,
)


async def test_where_nothing_can_be_sent_no_link_is_shown(shop: Shop) -> None:
    """Not to a payer that is no account, and not of an asset that is not configured any more."""
    for number, sender in ((2, "0x" + "0" * 40), (3, TOKEN_CONTRACT)):
        await shop.sell(f"ord_{number}", number, sender)
        answer = await shop.refund(f"r{number}", f"ord_{number}")
        found = answer.refund  # type: ignore[attr-defined]
        assert (found.to_address, found.payment_uri, found.HasField("unsigned_transaction")) == (sender, "", False)
    await shop.refund()
    without = Registry({})
    order = await orders.get(shop.suite.database, "mrc_1", "ord_1")
    assert order_message(without, order).payment_uri == ""
    found = refund_message(without, await refund_proofs.get(shop.suite.database, "mrc_1", "r1"))
    assert (found.payment_uri, found.HasField("unsigned_transaction")) == ("", False)


async def test_a_refund_is_booked_at_once_and_shows_how_to_send_it(shop: Shop) -> None:
    """Without a transaction it is RECORDED, owed to the ledger alone, and says what the merchant has to sign."""
    answer = await shop.refund()
    found = answer.refund  # type: ignore[attr-defined]
    assert (found.state, found.state_reason, found.HasField("tx_hash")) == (RECORDED, "", False)
    assert (found.to_address, found.from_address, found.HasField("confirmed_at")) == (PAYER, WALLET, False)
    assert found.payment_uri == f"ethereum:{TOKEN_CONTRACT}@56/transfer?address={PAYER}&uint256={10**18}"
    signed = found.unsigned_transaction
    assert (signed.chain_id, signed.to, signed.value) == (56, TOKEN_CONTRACT, "0")
    assert signed.data == transfer_data(PAYER, 10**18)
    assert await shop.refunds() == [found]
    owed = "SELECT array_agg(subject ORDER BY subject) FROM outbox WHERE subject <> 'ospay.orders.v1.address_watched'"
    assert await shop.value(owed) == [
        "ospay.orders.v1.order_paid",
        "ospay.orders.v1.order_refunded",
    ]


async def test_a_named_transaction_is_a_debt_to_the_verifier(shop: Shop) -> None:
    """The claim has an id of its own, names the payer as recipient, and counts for the bound of the queue."""
    await shop.refund(tx_hash=f"0x{0xABC:064X}")
    (claim,) = await shop.claims()
    assert (claim.chain, claim.asset, claim.tx_hash, claim.recipient) == ("BSC", "USDT", tx(0xABC), PAYER)
    assert str(await shop.value("SELECT claim_id FROM refund_proofs")) == claim.claim_id
    assert (await shop.shown()).tx_hash == tx(0xABC)
    assert await shop.stands() == (RECORDED, "queued")
    async with shop.suite.database.connection() as connection:
        assert await outbox.count_claims(connection, 10) == 1


async def test_a_transaction_can_be_named_later(shop: Shop) -> None:
    """AttachRefundTransaction makes the debt that RefundOrder makes with a transaction; settled orders take it too."""
    await shop.refund()
    await shop.value("UPDATE orders SET state = 'SETTLED', settled_at = now() RETURNING 1")
    found = await shop.attach(7)
    assert (found.state, found.state_reason, found.tx_hash) == (RECORDED, "queued", tx(7))
    (claim,) = await shop.claims()
    await shop.say(final(claim.claim_id, moved(7)))
    assert await shop.stands() == (CONFIRMED, "")


@pytest.mark.parametrize("field", ["to_address", "from_address"])
@pytest.mark.parametrize(
    "address", ["0x3c44CdDdB6a900fa2b585dd299e03d12FA4293BC", "0x" + "0" * 40, TOKEN_CONTRACT.lower(), "0x12"]
)
async def test_a_bad_address_is_refused_and_nothing_is_booked(shop: Shop, field: str, address: str) -> None:
    """A wrong checksum, the zero address, a token contract and what is no address name the field."""
    with pytest.raises(Fault) as caught:
        await shop.refund(**{field: address})
    assert (caught.value.reason, [item.field for item in caught.value.violations]) == ("invalid_request", [field])
    assert await shop.refunds() == []
    assert (await shop.suite.get()).refunded_minor == 0


async def test_a_refund_to_where_the_order_was_paid_is_refused(shop: Shop) -> None:
    """Money that the merchant sends to itself is no refund."""
    with pytest.raises(Fault) as caught:
        await shop.refund(to_address=WALLET)
    assert (caught.value.reason, [item.field for item in caught.value.violations]) == (
        "invalid_request",
        ["to_address"],
    )


async def test_the_same_transaction_again_changes_nothing(shop: Shop) -> None:
    """Named again while open, when confirmed, or when refuted: no second job, the refund as it stands."""
    claim = await shop.named(7)
    assert (await shop.attach(7)).state_reason == "queued"
    assert len(await shop.claims()) == 1
    await shop.say(final(claim, moved(7)))
    assert (await shop.attach(7)).state == CONFIRMED
    other = await shop.named(8, "r2")
    await shop.say(rejected(other, "tx_failed"))
    assert (await shop.attach(8, "r2")).state_reason == "tx_failed"
    assert await shop.claims() == []
    assert await shop.value("SELECT count(*) FROM refund_proofs") == 2


async def test_another_transaction_only_after_the_first_is_refuted(shop: Shop) -> None:
    """While one is open, or confirmed, another is refused; once refuted it is taken, and the trail stays."""
    claim = await shop.named(7)
    with pytest.raises(Fault) as caught:
        await shop.attach(8)
    assert caught.value.reason == "refund_transaction_exists"
    await shop.say(final(claim, moved(7, 1)))
    assert (await shop.attach(8)).state == RECORDED
    # Late words on the first are not words on the second.
    await shop.say(final(claim, moved(7)), rejected(claim, "tx_failed"))
    assert await shop.stands() == (RECORDED, "queued")
    (second,) = await shop.claims()
    await shop.say(final(second.claim_id, moved(8)))
    with pytest.raises(Fault) as caught:
        await shop.attach(9)
    assert caught.value.reason == "refund_transaction_exists"
    assert (await shop.shown()).tx_hash == tx(8)
    trail = await shop.value(
        "SELECT array_agg(attempt || ' ' || state || ' ' || reason ORDER BY attempt) FROM refund_proofs"
    )
    assert trail == ["1 REFUTED wrong_amount", "2 CONFIRMED "]


async def test_a_transaction_that_was_given_up_can_be_named_again(shop: Shop) -> None:
    """Unknown is not invalid: the same one is a new job, with a new claim."""
    first = await shop.named(7)
    await shop.say(rejected(first, "given_up"))
    assert (await shop.attach(7)).state == RECORDED
    (second,) = await shop.claims()
    assert second.claim_id != first
    await shop.say(final(second.claim_id, moved(7)))
    assert await shop.stands() == (CONFIRMED, "")


async def test_transactions_named_at_once_are_one(shop: Shop) -> None:
    """Ten callers name two transactions for one refund: one of the two is taken, and it is one job."""
    await shop.refund()
    results = await asyncio.gather(*(shop.attach(7 + number % 2) for number in range(10)), return_exceptions=True)
    assert [item.reason for item in results if isinstance(item, Fault)] == ["refund_transaction_exists"] * 5
    assert len(await shop.claims()) == 1


async def test_a_replay_shows_the_refund_as_it_stands_now(shop: Shop) -> None:
    """The first answer again, beside what the chain has said since; no second claim, no second booking."""
    claim = await shop.named(7)
    await shop.say(final(claim, moved(7)))
    answers = await asyncio.gather(*(shop.refund(tx_hash=tx(7)) for _ in range(4)))
    for answer in answers:
        assert (answer.replayed, answer.state, answer.refunded_minor) == (  # type: ignore[attr-defined]
            True,
            orders_pb2.ORDER_STATE_PAID,
            1_000_000,
        )
        assert answer.refund == await shop.shown()  # type: ignore[attr-defined]
    assert await shop.value("SELECT count(*) FROM refund_proofs") == 1
    assert await shop.claims() == []


async def test_equal_refunds_at_once_owe_one_proof(shop: Shop) -> None:
    """The same body ten times at once: one refund, one booking, one claim."""
    answers = await asyncio.gather(*(shop.refund(tx_hash=tx(7), to_address=OTHER) for _ in range(10)))
    assert sorted(item.replayed for item in answers) == [False] + [True] * 9  # type: ignore[attr-defined]
    assert len(await shop.claims()) == 1


async def test_declared_addresses_belong_to_the_body(shop: Shop) -> None:
    """The same addresses in another spelling replay; others, or none, are another body."""
    await shop.refund(to_address=OTHER)
    assert (await shop.refund(to_address=OTHER.lower())).replayed  # type: ignore[attr-defined]
    for fields in ({}, {"to_address": PAYER}, {"from_address": OTHER}, {"to_address": OTHER, "from_address": OTHER}):
        with pytest.raises(Fault) as caught:
            await shop.refund(**fields)
        assert caught.value.reason == "idempotency_mismatch"


async def test_merchants_are_walled_off(shop: Shop) -> None:
    """Another merchant's refund or order is not there: nothing is named, nothing is shown."""
    await shop.refund()
    for refund_id, merchant_id in (("r1", "mrc_2"), ("nope", "mrc_1"), ("r1", "nobody")):
        with pytest.raises(Fault) as caught:
            await shop.attach(7, refund_id, merchant_id)
        assert (caught.value.kind.value, caught.value.reason) == ("NOT_FOUND", "refund_not_found")
    for order_id, merchant_id in (("ord_1", "mrc_2"), ("nope", "mrc_1")):
        with pytest.raises(Fault) as caught:
            await shop.refunds(order_id, merchant_id)
        assert (caught.value.kind.value, caught.value.reason) == ("NOT_FOUND", "order_not_found")
    assert await shop.claims() == []


async def test_refunds_are_listed_oldest_first(shop: Shop) -> None:
    """All of the order's and none of another's; an order without any has an empty list."""
    await shop.sell("ord_2", 2)
    for name in ("r3", "r1", "r2"):
        await shop.refund(name)
    assert [item.refund_id for item in await shop.refunds()] == ["r3", "r1", "r2"]
    assert await shop.refunds("ord_2") == []


async def test_the_doorbell_and_the_bus_carry_it(shop: Shop, nats_url: str) -> None:
    """The running service publishes the claim after its commit, and a verdict on the bus confirms the refund."""
    client = await nats.connect(nats_url)
    try:
        asked = await client.subscribe(CLAIMED)
        await client.flush()
        await shop.refund(tx_hash=tx(7))
        message = await asked.next_msg(timeout=10)
        (claim,) = verifier_pb2.BatchVerifyRequest.FromString(message.data).claims
        assert (claim.tx_hash, claim.recipient) == (tx(7), PAYER)
        answer = verifier_pb2.BatchVerifyResponse(verdicts=[final(claim.claim_id, moved(7))])
        await client.publish("ospay.verifier.v1.verdict", answer.SerializeToString())

        async def confirmed() -> bool:
            return (await shop.shown()).state == CONFIRMED

        await until(confirmed, "the refund to be confirmed")
    finally:
        await client.close()
