"""The pure rules: which of the orders at a shared wallet a transfer pays."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orders.domain import ClaimState, Order, State, Tally, confirms, decide, settle_claim
from services.orders.tests.attribution.scene import (  # type: ignore[import-not-found]
    CREATED,
    OTHER,
    PAYER,
    arrival,
    credited,
    final,
    held,
    place,
    shared,
    tally,
)


def test_the_one_order_that_fits_is_paid() -> None:
    """The exact amount for exactly one order pays it with no claim at all."""
    orders = [*shared("a"), *shared("b", amount_minor=6)]
    money = tally(*orders)
    assert confirms(money, arrival(), place(orders)) == ("a", "m")
    assert decide(money, arrival(), place(orders)) == ("a", "m")
    assert [order.state for order in money.orders.values()] == [State.PAID, State.PENDING]


def test_what_a_merchant_collects_pays_no_order() -> None:
    """A transfer from the own address of some order: not even the one order that it fits, seen, final or claimed."""
    orders = shared("a")
    money = Tally(orders, internal={PAYER})
    assert confirms(money, arrival(), place(orders)) is None
    decision = settle_claim(money, ("a", "m"), arrival().transfer.tx_hash, final(arrival()))
    assert (decision.claim_state, decision.reason) == (ClaimState.REJECTED, "internal")
    decide(money, arrival(), place(orders))
    assert held(money) == [("internal", 5)]
    assert money.orders["a", "m"].state is State.PENDING


@pytest.mark.parametrize(
    ("orders", "reason", "owner"),
    [
        ([], "unattributed", "first"),
        (shared("a", amount_minor=6), "unattributed", "first"),
        (shared("a", customer_wallet=OTHER), "unattributed", "first"),
        (shared("a", created_block=101), "unattributed", "first"),
        (shared("a", state=State.PAID, received_minor=5), "unattributed", "first"),
        (shared("a", "b"), "ambiguous", "m"),
        ([*shared("a"), *shared("b", merchant_id="n")], "ambiguous", "first"),
        ([*shared("a"), *shared("b", state=State.EXPIRED)], "ambiguous", "m"),
        ([*shared("a"), *shared("b", expires_at=CREATED - timedelta(hours=23))], "ambiguous", "m"),
    ],
)
def test_what_is_not_plain_is_in_suspense(orders: list[Order], reason: str, owner: str) -> None:
    """None that fits, or several, recently expired ones among them: no guess, and a merchant who owns the question."""
    money = tally(*orders) if orders else Tally([])
    decide(money, arrival(), place(orders))
    assert [(item.reason, item.merchant_id, item.order_id) for item in money.items.values()] == [(reason, owner, None)]
    assert (money.credits, confirms(money, arrival(2), place(orders))) == ([], None)


def test_an_order_that_expired_long_ago_is_out_of_the_question() -> None:
    """A day after its time an order makes nothing ambiguous."""
    orders = [*shared("a"), *shared("b", state=State.EXPIRED, expires_at=CREATED - timedelta(hours=25))]
    money = tally(*orders)
    assert decide(money, arrival(), place(orders)) == ("a", "m")


def test_the_named_payer_decides() -> None:
    """Of two orders of one amount the one that names the sender is paid, if the other names somebody else."""
    orders = [*shared("a", customer_wallet=PAYER), *shared("b", customer_wallet=OTHER)]
    assert decide(tally(*orders), arrival(), place(orders)) == ("a", "m")


def test_money_for_the_only_order_that_expired_is_late() -> None:
    """When the only order that it fits has expired, the money is late for that order."""
    orders = shared("a", state=State.EXPIRED)
    money = tally(*orders)
    assert decide(money, arrival(), place(orders)) == ("a", "m")
    assert (held(money), money.orders[("a", "m")].late_minor) == ([("late", 5)], 5)


def test_too_many_candidates_are_ambiguous() -> None:
    """Where not all candidates were looked at, one that fits is not the only one."""
    money = tally(*shared("a"))
    decide(money, arrival(), place(shared("a"), too_many=True))
    assert held(money) == [("ambiguous", 5)]


def test_two_transfers_pay_two_orders_only_if_each_is_plain() -> None:
    """The second transfer meets what the first has left."""
    orders = [*shared("a", customer_wallet=PAYER), *shared("b", customer_wallet=OTHER)]
    money = tally(*orders)
    decide(money, arrival(1), place(orders))
    decide(money, arrival(2), place(orders))
    assert (credited(money), held(money)) == (5, [("unattributed", 5)])
