"""The pure rules: what the chain takes back and what the operator decides."""

from __future__ import annotations

from dataclasses import replace

from orders.domain import ClaimState, State, SuspenseState, allocate, decide, give_back, take_back
from services.orders.tests.attribution.scene import (  # type: ignore[import-not-found]
    ORDER,
    PLACE,
    SHARED,
    arrival,
    claim,
    credited,
    final,
    held,
    place,
    tally,
)


def test_a_reversed_payment_is_a_fact_beside_the_state() -> None:
    """The order stays PAID, what was taken back is known, and nothing of it is credited."""
    money = tally()
    decide(money, arrival(1, 8), PLACE)
    take_back(money, arrival(1).key, "")
    order = money.orders[ORDER.key]
    assert (order.state, order.received_minor, order.reversed_minor) == (State.PAID, 5, 5)
    assert [(reversal.amount_minor, reversal.item_id) for reversal in money.reversals] == [(5, None)]
    assert (held(money), [release.state for release in money.releases]) == ([], [SuspenseState.REVERSED])


def test_a_reversed_part_is_held_no_more() -> None:
    """What was held for an open order and is taken back counts no more for it."""
    money = tally()
    decide(money, arrival(1, 3), PLACE)
    take_back(money, arrival(1).key, "")
    assert (money.orders[ORDER.key].received_minor, held(money), money.reversals) == (0, [], [])
    decide(money, arrival(2, 2), PLACE)
    assert money.orders[ORDER.key].state is State.PENDING


def test_what_was_reversed_and_comes_back_is_for_the_operator() -> None:
    """It credits nothing by itself, and no claim takes it."""
    for order, where in ((ORDER, PLACE), (SHARED, place([SHARED]))):
        money = tally(order)
        decide(money, arrival(), where)
        take_back(money, arrival().key, "")
        decide(money, arrival(block_hash="0x" + "c" * 64, block_number=102, log_index=4), where)
        assert (credited(money), held(money)) == (0, [("reappeared", 5)])
        assert claim(money, final(arrival(log_index=4)), order)[0] is ClaimState.REJECTED


def test_a_payment_that_only_moved_is_no_new_money() -> None:
    """After a reorganisation past finality the same transfer in another block, under another log, pays nothing more."""
    moved = arrival(block_hash="0x" + "c" * 64, block_number=102, log_index=4)
    for order, where in ((ORDER, PLACE), (SHARED, place([SHARED]))):
        other = replace(order, id="other", deposit_index=None)
        money = tally(order, other)
        decide(money, arrival(), where)
        decide(money, moved, where)
        assert claim(money, final(moved), other) == (ClaimState.REJECTED, "already_used")
        assert (credited(money), held(money)) == (5, [])


def test_an_item_pays_towards_an_order() -> None:
    """What is too little is held for the order, and credited with the rest; what was allocated is credited whole."""
    other = replace(ORDER, id="p", deposit_index=8)
    money = tally(replace(ORDER, state=State.EXPIRED), other)
    for number, amount in ((1, 2), (2, 9)):
        decide(money, arrival(number, amount), PLACE)
    allocate(money, money.items[arrival(1).key], other.key)
    assert (money.orders[other.key].state, money.orders[other.key].received_minor) == (State.PENDING, 2)
    allocate(money, money.items[arrival(2).key], other.key)
    order = money.orders[other.key]
    assert (order.state, order.received_minor, order.surplus_minor, held(money)) == (State.PAID, 11, 6, [])


def test_a_surplus_pays_another_order_and_is_reversed_with_its_transfer() -> None:
    """One transfer, two orders, each with its part: what the chain takes back is taken back from both."""
    other = replace(ORDER, id="p", amount_minor=3, deposit_index=8)
    money = tally(ORDER, other)
    decide(money, arrival(1, 8), PLACE)
    allocate(money, money.items[arrival(1).key], other.key)
    assert [order.received_minor for order in money.orders.values()] == [5, 3]
    take_back(money, arrival(1).key, "")
    assert [order.reversed_minor for order in money.orders.values()] == [5, 3]
    assert sorted(reversal.amount_minor for reversal in money.reversals) == [3, 5]


def test_a_part_that_is_sent_back_counts_no_more() -> None:
    """What was held for an order and returned is not received."""
    money = tally()
    decide(money, arrival(1, 3), PLACE)
    give_back(money, money.items[arrival(1).key])
    assert (money.orders[ORDER.key].received_minor, held(money)) == (0, [])
