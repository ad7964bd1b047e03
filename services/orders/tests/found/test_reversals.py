"""What the chain takes back of what it has paid."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from kit.errors import Fault
from orders.workflow import settlement
from ospay.orders.v1 import orders_pb2
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.desk import (  # type: ignore[import-not-found]
    FIVE,
    GONE,
    REVERSED,
    Desk,
    postings_of,
    report,
    tx,
)
from services.orders.tests.found.scene import order, refund  # type: ignore[import-not-found]


async def test_a_reversed_payment_is_an_incident(desk: Desk) -> None:
    """Taken back past finality: PAID with the fact beside it, booked back, neither refundable nor settled."""
    address = await order(desk)
    await desk.find(report(address, 1, 8_000_000))
    await desk.find(report(address, 1, 8_000_000, REVERSED, version=2))
    taken = await desk.suite.get()
    assert (await desk.state(), taken.received_minor, taken.reversed_minor) == ("PAID", FIVE, FIVE)
    assert await desk.payments() == [("REVERSED", FIVE, "")]
    assert await desk.suspense() == [("surplus", "REVERSED", 3_000_000)]
    booked = await desk.booked()
    assert (booked["PAYMENT_REVERSED"], booked["SUSPENSE_RELEASED"]) == (FIVE, 3_000_000)
    with pytest.raises(Fault) as caught:
        await refund(desk)
    assert caught.value.reason == "refund_exceeds_received"
    assert await settlement.settle(desk.suite.database, timedelta(0), 100) == 0
    await desk.check()


async def test_what_is_left_after_a_reversal_is_refundable(desk: Desk) -> None:
    """Of an order paid in two parts, one of them taken back, the other can be refunded: then nothing is left."""
    address = await order(desk)
    await desk.find(report(address, 1, 2_000_000), report(address, 2, 3_000_000, block_number=102))
    await desk.find(report(address, 1, 2_000_000, REVERSED, version=2))
    done = await refund(desk)
    assert (done.amount_minor, done.state) == (3_000_000, orders_pb2.ORDER_STATE_REFUNDED)
    await desk.find(report(address, 2, 3_000_000, REVERSED, version=2, block_number=102))
    assert (await desk.suite.get()).reversed_minor == FIVE
    await desk.check()


async def test_a_reversal_at_once_is_booked_once(desk: Desk) -> None:
    """The same incident told by several replicas takes back one payment once."""
    address = await order(desk)
    await desk.find(report(address))
    await asyncio.gather(*(desk.find(report(address, state=REVERSED, version=2)) for _ in range(6)))
    assert postings_of(await desk.postings(), "PAYMENT_REVERSED") == [("ord_1", FIVE)]
    await desk.check()


async def test_a_reversed_part_is_no_part(desk: Desk) -> None:
    """What was held for an open order and is taken back is not received any more, and the order takes the next."""
    address = await order(desk)
    await desk.find(report(address, 1, 2_000_000))
    await desk.find(report(address, 1, 2_000_000, REVERSED, version=2))
    assert ((await desk.suite.get()).received_minor, await desk.state()) == (0, "PENDING")
    await desk.find(report(address, 2))
    assert await desk.state() == "PAID"
    await desk.check()


async def test_what_was_reversed_and_comes_back_is_for_the_operator(desk: Desk) -> None:
    """Back in another block under another log, or in the same: in suspense, once for each time it was taken back."""
    address = await order(desk)
    back = {"block_hash": tx(97), "block_number": 105, "log_index": 3}
    await desk.find(report(address))
    await desk.find(report(address, state=REVERSED, version=2))
    await desk.find(report(address, **back))
    assert await desk.suspense() == [("reappeared", "OPEN", FIVE)]
    await desk.find(report(address, state=REVERSED, version=2, **back))
    await desk.find(report(address, version=3))
    assert await desk.suspense() == [("reappeared", "REVERSED", FIVE), ("reappeared", "OPEN", FIVE)]
    assert (await desk.suite.get()).reversed_minor == FIVE
    await desk.check()


async def test_a_part_that_is_reversed_and_comes_back_is_not_lost(desk: Desk) -> None:
    """A part that was held first, paid then, was taken back and came back: in suspense, in one more row."""
    address = await order(desk)
    await desk.find(report(address, 1, 2_000_000), report(address, 2, 3_000_000, block_number=102))
    await desk.find(report(address, 1, 2_000_000, REVERSED, version=2))
    await desk.find(report(address, 1, 2_000_000, version=3))
    assert await desk.suspense() == [("underpaid", "REVERSED", 2_000_000), ("reappeared", "OPEN", 2_000_000)]
    assert ((await desk.suite.get()).received_minor, (await desk.suite.get()).reversed_minor) == (FIVE, 2_000_000)
    await desk.check()


@pytest.mark.parametrize("log_index", [0, 4])
@pytest.mark.parametrize("word", [GONE, REVERSED])
async def test_a_payment_that_only_moved_stays(desk: Desk, word: verifier_pb2.SightingState, log_index: int) -> None:
    """A reorganisation past finality that only moves the transfer changes nothing, told in whatever order."""
    for name, in_order in (("ord_1", True), ("ord_2", False)):
        address = await order(desk, name)
        number = 1 if in_order else 2
        moved = {"block_hash": tx(97), "block_number": 105, "log_index": log_index}
        await desk.find(report(address, number))
        words = [report(address, number, **moved), report(address, number, state=word, version=2)]
        for each in words if in_order or word == REVERSED else words[::-1]:
            await desk.find(each)
        told = await desk.suite.get(name)
        assert (await desk.state(name), told.received_minor, told.reversed_minor) == ("PAID", FIVE, 0)
        assert await desk.payments(name) == [("CREDITED", FIVE, "")]
        assert await desk.suspense() == []
    await desk.check()


async def test_one_of_two_like_transfers_can_be_taken_back(desk: Desk) -> None:
    """Two equal transfers of one transaction, one of which is on the chain no more: one is taken back, one stays."""
    address = await order(desk)
    both = [report(address, 1, 2_500_000, log_index=index) for index in range(2)]
    await desk.find(*both)
    await desk.find(report(address, 1, 2_500_000, REVERSED, version=2, log_index=1))
    assert sorted(await desk.payments()) == [("CREDITED", 2_500_000, ""), ("REVERSED", 2_500_000, "")]
    await desk.check()
