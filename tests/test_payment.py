"""End to end on a real chain: what pays an order, and what does not."""

from __future__ import annotations

import asyncio

import pytest

from tests.shop import BASE_PER_MINOR, FIVE, Shop, eventually, new_id

TRANSFER_TOPIC = bytes.fromhex("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef")


def word(address: str) -> bytes:
    """An address as an event topic."""
    return bytes(12) + bytes.fromhex(address[2:])


async def test_an_exact_payment_is_confirmed_paid_and_booked(shop: Shop) -> None:
    """PENDING → CONFIRMING → PAID; two balanced entries; reconciliation agrees."""
    order = await shop.create()
    tx = await shop.transfer()
    assert await shop.claim(order, tx) == (202, {"order_id": order, "status": "PENDING"})
    seen = await shop.reaches(order, "CONFIRMING")
    assert (seen["received_minor"], seen["last_claim"]["reason"]) == (0, "not_final")
    await shop.chain.finalize()
    paid = await shop.reaches(order, "PAID")
    assert (paid["received_minor"], paid["tx_hash"], paid["last_claim"]["state"]) == (FIVE, tx, "ACCEPTED")
    found = await shop.booked(FIVE)
    assert found["unsettled_paid_count"] == 1
    entries = await shop.entries(order)
    shape = sorted((item.bucket, item.direction, item.amount_minor, item.tx_hash) for item in entries)
    assert shape == [(1, 1, FIVE, tx), (2, 2, FIVE, tx)]


async def test_dust_below_a_minor_unit_is_ignored(shop: Shop) -> None:
    """A few base units more do not make a payment wrong."""
    order = await shop.create()
    tx = await shop.transfer(dust=BASE_PER_MINOR - 1)
    await shop.claim(order, tx)
    await shop.chain.finalize()
    assert (await shop.reaches(order, "PAID"))["received_minor"] == FIVE


@pytest.mark.parametrize(("amount", "reason"), [(FIVE - 1, "underpaid"), (FIVE + 1, "overpaid")])
async def test_another_amount_leaves_the_order_unpaid(shop: Shop, amount: int, reason: str) -> None:
    """Less or more is refused with the amount that was seen."""
    order = await shop.create()
    tx = await shop.transfer(amount)
    await shop.claim(order, tx)
    await shop.chain.finalize()
    refuted = await shop.refuted(order, reason)
    assert refuted["last_claim"]["seen_minor"] == amount
    assert await shop.entries() == []


async def test_a_payment_that_is_not_final_pays_nothing(shop: Shop) -> None:
    """Blocks on top that do not make it final leave the order CONFIRMING; final ones make it PAID."""
    order = await shop.create()
    tx = await shop.transfer()
    await shop.claim(order, tx)
    await shop.reaches(order, "CONFIRMING")
    mined = int((await shop.chain.receipt(tx))["blockNumber"], 16)
    while await shop.chain.finalized() < mined - 1:
        await shop.chain.mine(1)
    assert (await shop.order(order))["status"] == "CONFIRMING"
    await shop.chain.mine(1)
    assert (await shop.reaches(order, "PAID"))["received_minor"] == FIVE


async def test_two_transfers_of_one_transaction_pay_two_orders(shop: Shop) -> None:
    """Each order gets a log of its own."""
    first, second = await shop.create(), await shop.create()
    batch = await shop.chain.deploy("Batch")
    amount = FIVE * BASE_PER_MINOR
    await shop.chain.send_token(shop.chain.accounts[0], batch, 2 * amount, mine=True)
    tx = await shop.chain.call(
        "Batch", batch, "pay", shop.chain.token, [shop.wallet, shop.wallet], [amount, amount], mine=True
    )
    await shop.claim(first, tx)
    await shop.claim(second, tx)
    await shop.chain.finalize()
    await shop.reaches(first, "PAID")
    await shop.reaches(second, "PAID")
    await shop.booked(2 * FIVE)


async def test_a_transaction_pays_once(shop: Shop) -> None:
    """Claimed twice it pays once; claimed for another order it is refused as used."""
    order, other = await shop.create(), await shop.create()
    tx = await shop.pay(order)
    assert await shop.claim(order, tx) == (200, {"order_id": order, "status": "PAID"})
    assert (await shop.claim(other, tx))[0] == 202
    await shop.refuted(other, "already_used")
    await shop.booked(FIVE)


async def test_a_failed_transaction_pays_nothing(shop: Shop) -> None:
    """Status 0 is refused, whatever was meant."""
    order = await shop.create()
    batch = await shop.chain.deploy("Batch")
    await shop.chain.send_token(shop.chain.accounts[0], batch, FIVE * BASE_PER_MINOR, mine=True)
    tx = await shop.chain.call(
        "Batch", batch, "payAndRevert", shop.chain.token, [shop.wallet], [FIVE * BASE_PER_MINOR], mine=True
    )
    await shop.claim(order, tx)
    await shop.chain.finalize()
    await shop.refuted(order, "tx_failed")


async def test_a_fake_token_pays_nothing(shop: Shop) -> None:
    """The same event from another contract is not the token."""
    order = await shop.create()
    emitter = await shop.chain.deploy("Emitter")
    topics = [TRANSFER_TOPIC, word(shop.chain.accounts[0]), word(shop.wallet)]
    data = (FIVE * BASE_PER_MINOR).to_bytes(32, "big")
    tx = await shop.chain.call("Emitter", emitter, "emitLog", topics, data, mine=True)
    await shop.claim(order, tx)
    await shop.chain.finalize()
    await shop.refuted(order, "wrong_token")


async def test_a_payment_to_somebody_else_pays_nothing(shop: Shop) -> None:
    """The right token to another address is refused."""
    order = await shop.create()
    tx = await shop.transfer(to="0x000000000000000000000000000000000000dEaD")
    await shop.claim(order, tx)
    await shop.chain.finalize()
    await shop.refuted(order, "wrong_recipient")


async def test_money_from_before_the_order_pays_nothing(shop: Shop) -> None:
    """A transfer that was mined before the order was made is somebody else's."""
    tx = await shop.transfer()
    order = await shop.create()
    await shop.claim(order, tx)
    await shop.chain.finalize()
    await shop.refuted(order, "mined_before_order")


async def test_money_from_just_before_the_order_pays_nothing(shop: Shop) -> None:
    """Orders made one after the other within milliseconds, a transfer mined between them: it pays the first alone."""
    for _ in range(5):
        first, _ = await shop.create(), await shop.create()  # on both replicas
        tx = await shop.transfer()
        second = await shop.create()
        await shop.claim(second, tx)
        await shop.chain.finalize()
        await shop.refuted(second, "mined_before_order")
        await shop.claim(first, tx)
        await shop.reaches(first, "PAID")


async def test_the_named_customer_must_pay(shop: Shop) -> None:
    """With a customer wallet given, another sender's transfer is refused and the right one pays."""
    order = await shop.create(customer_wallet_address=shop.chain.accounts[1])
    wrong = await shop.transfer()
    await shop.claim(order, wrong)
    await shop.chain.finalize()
    await shop.refuted(order, "payer_mismatch")
    right = await shop.chain.send_token(shop.chain.accounts[1], shop.wallet, FIVE * BASE_PER_MINOR, mine=True)
    await shop.claim(order, right)
    await shop.chain.finalize()
    assert (await shop.reaches(order, "PAID"))["tx_hash"] == right


async def test_an_unknown_hash_is_unknown_until_it_appears(shop: Shop) -> None:
    """A hash that no node knows leaves the order PENDING and the claim open; once mined it pays."""
    order = await shop.create()
    snapshot = await shop.chain.head()
    tx = await shop.transfer(mine=False)
    assert await shop.chain.head() == snapshot
    await shop.claim(order, tx)

    async def looked() -> bool | None:
        claim = (await shop.order(order))["last_claim"]
        return True if claim and claim["reason"] == "not_found" else None

    await eventually(looked, 30, "the verifier to look")
    assert (await shop.order(order))["status"] == "PENDING"
    await shop.chain.mine(1)
    await shop.chain.finalize()
    await shop.reaches(order, "PAID")


@pytest.mark.parametrize("tx_hash", ["0x12", "", "0x" + "g" * 64, "a" * 64, "0x" + "a" * 65, 7, None])
async def test_a_malformed_hash_is_refused(shop: Shop, tx_hash: object) -> None:
    """What is no transaction hash is a 400 that names the field."""
    order = await shop.create()
    body = {"order_id": order, "merchant_id": shop.id, "tx_hash": tx_hash}
    status, problem = await shop.send("POST", "/events/payment-detected", body, key=None)
    assert status == 400
    assert [item["field"] for item in problem["errors"]] == ["tx_hash"]
    assert (await shop.order(order))["last_claim"] is None


async def test_a_reorganised_payment_is_taken_back(shop: Shop) -> None:
    """A reorg before finality that drops the transaction brings the order back to PENDING."""
    order = await shop.create()
    await shop.chain.mine(3)
    tx = await shop.transfer()
    await shop.claim(order, tx)
    await shop.reaches(order, "CONFIRMING")
    await shop.chain.reorganise(1)
    await shop.chain.rpc("anvil_dropTransaction", tx)
    await shop.chain.mine(1)
    await shop.reaches(order, "PENDING")
    await shop.chain.finalize()
    assert (await shop.order(order))["status"] == "PENDING"
    assert await shop.entries() == []


async def test_refunds_are_booked(shop: Shop) -> None:
    """Partial refunds and the rest: merchant DEBIT, clearing CREDIT; the balances return to zero."""
    order = await shop.create()
    await shop.pay(order)
    status, first = await shop.refund(order, amount_minor=2_000_000)
    assert (status, first["status"], first["refunded_minor"]) == (200, "PAID", 2_000_000)
    refund_id = new_id()
    status, rest = await shop.refund(order, refund_id)
    assert (status, rest["status"], rest["amount_minor"]) == (200, "REFUNDED", 3_000_000)
    assert await shop.refund(order, refund_id) == (200, rest)
    await shop.booked(0)
    refunds = [item for item in await shop.entries(order) if item.event_type == 2]
    assert sorted((item.bucket, item.direction, item.amount_minor) for item in refunds) == [
        (1, 2, 2_000_000),
        (1, 2, 3_000_000),
        (2, 1, 2_000_000),
        (2, 1, 3_000_000),
    ]


async def test_many_payments_at_once(shop: Shop) -> None:
    """Thirty orders paid in a few blocks are all PAID, and the books hold exactly their sum."""
    orders = await asyncio.gather(*(shop.create() for _ in range(30)))
    hashes = [await shop.transfer(mine=False) for _ in orders]
    await shop.chain.mine(1)
    await asyncio.gather(*(shop.claim(order, tx) for order, tx in zip(orders, hashes, strict=True)))
    await shop.chain.finalize()
    await asyncio.gather(*(shop.reaches(order, "PAID") for order in orders))
    await shop.booked(30 * FIVE)
