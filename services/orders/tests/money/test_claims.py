"""Claims on a real database: bounded, and each with one job."""

from __future__ import annotations

import asyncio

import pytest

from kit.errors import Fault
from local.process import until
from orders.domain import Outcome, Verdict
from ospay.orders.v1 import orders_pb2
from services.orders.tests.desk import Desk, transfer, tx  # type: ignore[import-not-found]
from services.orders.tests.money.scene import OWED  # type: ignore[import-not-found]


async def test_the_same_claim_makes_no_second_job(desk: Desk) -> None:
    """A claim repeated while open, or after the chain refuted it, adds no debt; one given up may be tried again."""
    claim = await desk.claim()
    assert await desk.claim() == claim
    assert await desk.value(OWED) == 1
    await desk.apply(Verdict(claim, Outcome.REJECTED, "wrong_token"))
    await desk.claim()
    assert await desk.value(OWED) == 0
    other = await desk.claim(number=2)
    await desk.apply(Verdict(other, Outcome.REJECTED, "given_up"))
    await desk.claim(number=2)
    assert await desk.value(OWED) == 1


async def test_claims_on_one_order_are_bounded(desk: Desk) -> None:
    """Nobody can make one order ask for more than 32 transactions at a time, with the merchant's key 64."""
    for numbers, by_merchant in ((range(1, 33), False), (range(33, 65), True)):
        for number in numbers:
            await desk.claim(number=number, by_merchant=by_merchant)
        with pytest.raises(Fault) as caught:
            await desk.claim(number=65, by_merchant=by_merchant)
        assert caught.value.reason == "too_many_claims"
    await desk.claim(number=32)  # a known one is still answered


async def test_decided_claims_on_one_order_are_bounded(desk: Desk) -> None:
    """An order takes 500 claims in all, 1000 with the key; past that known ones are answered, and looked for again."""
    given_up = await desk.claim()
    await desk.apply(Verdict(given_up, Outcome.REJECTED, "given_up"))
    await desk.owner(
        """
        INSERT INTO claims (order_id, merchant_id, tx_hash, state, reason)
        SELECT 'ord_1', 'mrc_1', '0x' || lpad(to_hex(n), 64, '0'), 'REJECTED', 'no_transfer'
        FROM generate_series(2, 500) AS n
        """
    )
    with pytest.raises(Fault, match="too_many_claims"):
        await desk.claim(number=501)
    await desk.owner(
        """
        INSERT INTO claims (order_id, merchant_id, tx_hash, state, reason)
        SELECT 'ord_1', 'mrc_1', '0x' || lpad(to_hex(n), 64, '0'), 'REJECTED', 'no_transfer'
        FROM generate_series(501, 999) AS n
        """
    )
    await desk.claim(number=1000, by_merchant=True)
    with pytest.raises(Fault, match="too_many_claims"):
        await desk.claim(number=1001, by_merchant=True)
    await desk.claim(number=999)
    assert await desk.value(OWED) == 1
    await desk.claim()
    assert await desk.value(OWED) == 2


async def test_an_id_of_two_merchants_needs_the_merchant(desk: Desk) -> None:
    """Without a merchant an ambiguous order id is refused; with one it is not."""
    await desk.suite.merchant("mrc_2")
    await desk.suite.create("ord_1", merchant_id="mrc_2")
    request = orders_pb2.DetectPaymentRequest(order_id="ord_1", tx_hash=tx(1))
    with pytest.raises(Fault) as caught:
        await desk.suite.peer.call(desk.suite.orders.DetectPayment, request, timeout=5)
    assert caught.value.reason == "ambiguous_order_id"
    request.merchant_id = "mrc_2"
    response = await desk.suite.peer.call(desk.suite.orders.DetectPayment, request, timeout=5)
    assert (response.state, response.queued) == (orders_pb2.ORDER_STATE_PENDING, True)


async def test_a_batch_of_claims_has_a_result_for_each(desk: Desk) -> None:
    """A bad item, an unknown order, a duplicate and a paid order concern themselves alone."""
    await desk.suite.create("ord_2")
    await desk.pay("ord_2", 9)
    items = [
        orders_pb2.DetectPaymentRequest(merchant_id="mrc_1", order_id=order_id, tx_hash=tx_hash)
        for order_id, tx_hash in (
            ("ord_1", tx(1)),
            ("ord_1", "0x12"),
            ("nope", tx(1)),
            ("ord_1", tx(1)),
            ("ord_2", tx(2)),
            ("ord_1", tx(3)),
        )
    ]
    request = orders_pb2.BatchDetectPaymentsRequest(requests=items)
    response = await desk.suite.peer.call(desk.suite.orders.BatchDetectPayments, request, timeout=5)
    shape = [
        (item.detected.state, item.detected.queued) if item.HasField("detected") else item.error.message[:20]
        for item in response.results
    ]
    pending, paid = orders_pb2.ORDER_STATE_PENDING, orders_pb2.ORDER_STATE_PAID
    assert shape == [
        (pending, True),
        "tx_hash: does not ma",
        "there is no order no",
        (pending, True),
        (paid, False),
        (pending, True),
    ]
    assert await desk.value("SELECT count(*) FROM claims WHERE order_id = 'ord_1'") == 2
    claims_owed = "SELECT count(*) FROM outbox WHERE subject = 'ospay.orders.v1.payment_claimed'"
    assert await desk.value(claims_owed) == 2


async def test_the_bound_of_claims_holds_inside_a_batch(desk: Desk) -> None:
    """Forty claims on one order in one batch: 32 are taken."""
    items = [
        orders_pb2.DetectPaymentRequest(merchant_id="mrc_1", order_id="ord_1", tx_hash=tx(number))
        for number in range(1, 41)
    ]
    request = orders_pb2.BatchDetectPaymentsRequest(requests=items)
    response = await desk.suite.peer.call(desk.suite.orders.BatchDetectPayments, request, timeout=5)
    assert [item.HasField("detected") for item in response.results] == [True] * 32 + [False] * 8


async def test_the_same_claims_at_once_make_one_job_each(desk: Desk) -> None:
    """Batches with the same claims in different orders, at once: one job for each claim, and nobody deadlocks."""
    await desk.suite.create("ord_2")
    items = [
        orders_pb2.DetectPaymentRequest(merchant_id="mrc_1", order_id=order_id, tx_hash=tx(number))
        for number in range(1, 9)
        for order_id in ("ord_1", "ord_2")
    ]
    requests = [orders_pb2.BatchDetectPaymentsRequest(requests=items[::step]) for step in (1, -1, 1, -1)]
    await asyncio.gather(
        *(desk.suite.peer.call(desk.suite.orders.BatchDetectPayments, request, timeout=5) for request in requests)
    )
    assert await desk.value(OWED) == 16


async def test_a_claim_that_is_made_anew_keeps_its_new_debt(desk: Desk) -> None:
    """A given-up claim comes again while a repeated verdict on it waits for another order: it is looked for again."""
    await desk.suite.create("ord_2")
    claim, other = await desk.claim(), await desk.claim("ord_2", 2)
    given_up = Verdict(claim, Outcome.REJECTED, "given_up")
    await desk.apply(given_up)
    async with desk.suite.database.transaction() as gate:
        await gate.execute("SELECT FROM orders WHERE id = 'ord_2' FOR UPDATE")
        repeated = asyncio.create_task(desk.apply(given_up, Verdict(other, Outcome.WAITING, "not_found")))
        await until(lambda: desk.are_waiting(1), "the verdicts to come to the other order")
        anew = await desk.claim()
    await repeated
    assert await desk.value("SELECT count(*) FROM outbox WHERE event_id = $1", anew) == 1


async def test_a_claim_that_is_made_anew_is_not_given_up_by_an_old_word(desk: Desk) -> None:
    """What is told of it as it was before, when its time had passed, changes nothing; the next word on it pays."""
    before = await desk.claim()
    given_up = Verdict(before, Outcome.REJECTED, "given_up")
    await desk.apply(given_up)
    anew = await desk.claim()
    await desk.apply(given_up)
    assert await desk.value("SELECT state FROM claims") == "OPEN"
    assert await desk.value("SELECT event_id FROM outbox WHERE subject = 'ospay.orders.v1.payment_claimed'") == anew
    await desk.apply(Verdict(anew, Outcome.FINAL, transfers=(transfer(),)))
    assert await desk.state() == "PAID"


async def test_of_words_that_come_together_the_final_one_counts(desk: Desk) -> None:
    """Another verifier that has not seen the transfer yet, and gives it up, does not undo the proof beside it."""
    for number, word in enumerate((("WAITING", "not_found"), ("REJECTED", "given_up")), 1):
        await desk.suite.create(f"ord_{word[0]}")
        claim = await desk.claim(f"ord_{word[0]}", number)
        proof = Verdict(claim, Outcome.FINAL, transfers=(transfer(number),))
        await desk.apply(proof, Verdict(claim, Outcome(word[0]), word[1]))
        assert await desk.state(f"ord_{word[0]}") == "PAID"
