"""The pure rules: what comes to an address of an order's own."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orders.domain import Arrival, Order, State, SuspenseState, Terms, confirms, decide
from services.orders.tests.attribution.scene import (  # type: ignore[import-not-found]
    CREATED,
    ORDER,
    OTHER,
    PLACE,
    arrival,
    credited,
    held,
    tally,
)


def test_an_exact_transfer_pays() -> None:
    """The whole amount in one transfer pays, and nothing is in suspense."""
    money = tally()
    assert decide(money, arrival(), PLACE) == ORDER.key
    order = money.orders[ORDER.key]
    assert (order.state, order.received_minor, order.tx_hash) == (State.PAID, 5, arrival().transfer.tx_hash)
    assert (credited(money), held(money)) == (5, [])


def test_partial_transfers_add_up() -> None:
    """What is too little is held; the rest releases and credits all of it at once."""
    money = tally()
    decide(money, arrival(1, 2), PLACE)
    assert (money.orders[ORDER.key].state, money.orders[ORDER.key].received_minor) == (State.PENDING, 2)
    assert held(money) == [("underpaid", 2)]
    decide(money, arrival(2, 1), PLACE)
    decide(money, arrival(3, 2), PLACE)
    order = money.orders[ORDER.key]
    assert (order.state, order.received_minor, order.tx_hash) == (State.PAID, 5, arrival(3).transfer.tx_hash)
    assert (credited(money), held(money)) == (5, [])
    assert [release.state for release in money.releases] == [SuspenseState.ALLOCATED] * 2


@pytest.mark.parametrize(("credits_surplus", "received", "in_suspense"), [(False, 5, [("surplus", 3)]), (True, 8, [])])
def test_the_surplus_goes_where_the_merchant_says(
    credits_surplus: bool, received: int, in_suspense: list[tuple[str, int]]
) -> None:
    """More than was asked for is PAID; the rest is in suspense, or credited by the merchant's policy."""
    money = tally(terms=Terms(credits_surplus=credits_surplus))
    decide(money, arrival(1, 8), PLACE)
    order = money.orders[ORDER.key]
    assert (order.state, order.received_minor, order.surplus_minor) == (State.PAID, received, 3)
    assert held(money) == in_suspense


def test_what_comes_for_a_paid_order_in_time_is_surplus() -> None:
    """A second payment in time is no second sale."""
    money = tally()
    decide(money, arrival(1, 5), PLACE)
    decide(money, arrival(2, 5), PLACE)
    assert (money.orders[ORDER.key].received_minor, held(money)) == (5, [("surplus", 5)])


@pytest.mark.parametrize(("amount", "state"), [(3, State.PENDING), (4, State.PAID), (5, State.PAID)])
def test_the_tolerance_is_what_may_be_missing(amount: int, state: State) -> None:
    """With a tolerance of 1 an order of 5 is paid by 4, and not by 3."""
    money = tally(terms=Terms(tolerance_minor=1))
    decide(money, arrival(1, amount), PLACE)
    assert (money.orders[ORDER.key].state, money.orders[ORDER.key].received_minor) == (state, amount)


def test_the_tolerance_forgives_nothing_that_comes() -> None:
    """What comes after an order was paid within the tolerance is credited up to the amount."""
    money = tally(terms=Terms(tolerance_minor=1))
    decide(money, arrival(1, 4), PLACE)
    decide(money, arrival(2, 3), PLACE)
    assert (money.orders[ORDER.key].received_minor, held(money)) == (5, [("surplus", 2)])


@pytest.mark.parametrize(
    ("order", "moved", "reason"),
    [
        (ORDER, replace(arrival(), asset="USDC"), "wrong_asset"),
        (ORDER, replace(arrival(), chain="ETH"), "wrong_asset"),
        (ORDER, arrival(block_number=100), "unattributed"),
        (ORDER, arrival(block_time=CREATED - timedelta(minutes=1)), "unattributed"),
        (replace(ORDER, customer_wallet=OTHER), arrival(), "payer_mismatch"),
        (ORDER, arrival(block_time=CREATED + timedelta(minutes=31)), "late"),
        (replace(ORDER, state=State.EXPIRED), arrival(), "late"),
        (replace(ORDER, state=State.SETTLED, received_minor=5), arrival(), "order_closed"),
        (replace(ORDER, state=State.REFUNDED, received_minor=5, refunded_minor=5), arrival(), "order_closed"),
        (replace(ORDER, state=State.SETTLED, received_minor=5), arrival(block_time=CREATED + timedelta(1)), "late"),
    ],
)
def test_what_does_not_count_is_in_suspense_with_a_reason(order: Order, moved: Arrival, reason: str) -> None:
    """Money on an order's own address that does not count for it changes nothing and is held by name."""
    money = tally(order)
    decide(money, moved, PLACE)
    after = money.orders[ORDER.key]
    assert (after.state, after.received_minor, held(money)) == (order.state, order.received_minor, [(reason, 5)])
    assert after.late_minor == (5 if reason == "late" else 0)


@pytest.mark.parametrize("amount", [0, -1])
def test_what_cannot_be_booked_is_not(amount: int) -> None:
    """Dust below a minor unit and a number past 63 bits neither pay nor are in suspense."""
    money = tally()
    assert decide(money, arrival(1, amount, amount_base=2**256 - 1), PLACE) == ORDER.key
    assert (money.orders[ORDER.key], held(money), money.credits) == (ORDER, [], [])
    assert confirms(money, arrival(1, amount), PLACE) is None


def test_only_what_would_count_confirms() -> None:
    """A transfer that is not final shows on its order when it would count, however little it is."""
    assert confirms(tally(), arrival(1, 1), PLACE) == ORDER.key
    assert confirms(tally(), replace(arrival(), asset="USDC"), PLACE) is None
    assert confirms(tally(replace(ORDER, state=State.PAID, received_minor=5)), arrival(), PLACE) is None
    assert confirms(tally(replace(ORDER, state=State.EXPIRED)), arrival(), PLACE) is None
