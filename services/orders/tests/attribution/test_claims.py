"""The pure rules: what a claim adds to what the watcher has found."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from orders.domain import (
    Arrival,
    ClaimState,
    Order,
    Outcome,
    State,
    SuspenseState,
    Tally,
    Verdict,
    decide,
    settle_claim,
)
from services.orders.tests.attribution.scene import (  # type: ignore[import-not-found]
    CREATED,
    ORDER,
    OTHER,
    PLACE,
    SHARED,
    arrival,
    claim,
    credited,
    final,
    held,
    place,
    shared,
    tally,
)


def test_a_claim_on_an_own_address_counts_all_its_transfers() -> None:
    """Every transfer of the transaction to the order's address counts, as if the watcher had found it."""
    money = tally()
    both = (arrival(1, 3), arrival(1, 4, log_index=1))
    assert claim(money, final(*both)) == (ClaimState.ACCEPTED, "")
    assert (money.orders[ORDER.key].state, credited(money), held(money)) == (State.PAID, 5, [("surplus", 2)])


def test_a_claim_that_the_watcher_was_before_is_accepted() -> None:
    """What was credited or is held already is counted once, and the claim on it is right."""
    for amount in (2, 5):
        money = tally()
        decide(money, arrival(1, amount), PLACE)
        done = (len(money.credits), len(money.holds))
        assert claim(money, final(arrival(1, amount))) == (ClaimState.ACCEPTED, "")
        assert (len(money.credits), len(money.holds)) == done


@pytest.mark.parametrize(
    ("order", "moved", "reason", "in_suspense"),
    [
        (ORDER, arrival(block_number=100), "mined_before_order", []),
        (replace(ORDER, customer_wallet=OTHER), arrival(), "payer_mismatch", [("payer_mismatch", 5)]),
        (replace(ORDER, state=State.EXPIRED), arrival(), "late", [("late", 5)]),
        (replace(ORDER, state=State.PAID, received_minor=5), arrival(), "order_closed", [("surplus", 5)]),
        (replace(ORDER, state=State.SETTLED, received_minor=5), arrival(), "order_closed", [("order_closed", 5)]),
        (ORDER, arrival(1, 0), "underpaid", []),
        (ORDER, arrival(1, -1), "overpaid", []),
    ],
)
def test_a_claim_of_which_nothing_counts_is_refused(
    order: Order, moved: Arrival, reason: str, in_suspense: list[tuple[str, int]]
) -> None:
    """The claim is told why, and what reached the address since it was the order's is in suspense."""
    money = tally(order)
    assert claim(money, final(moved)) == (ClaimState.REJECTED, reason)
    assert held(money) == in_suspense


def test_a_claim_waits_for_what_would_count() -> None:
    """CONFIRMING by a claim needs a transfer that would count; the amount need not be exact."""
    waiting = Verdict(UUID(int=1), Outcome.WAITING, "not_final", (arrival(1, 1).transfer,), 101, 103)
    decision = settle_claim(tally(), ORDER.key, arrival().transfer.tx_hash, waiting)
    assert (decision.confirming, decision.seen_minor, decision.confirmations) == (True, 1, 3)
    late = replace(waiting, transfers=(arrival(block_time=CREATED + timedelta(hours=1)).transfer,))
    assert settle_claim(tally(), ORDER.key, arrival().transfer.tx_hash, late).confirming is False


def test_a_claim_takes_a_transfer_out_of_suspense_once() -> None:
    """A claim is the word that was missing: the first that fits is paid, the next finds it used."""
    orders = shared("a", "b")
    money = tally(*orders)
    decide(money, arrival(), place(orders))
    assert held(money) == [("ambiguous", 5)]
    assert claim(money, final(arrival()), orders[1]) == (ClaimState.ACCEPTED, "")
    assert claim(money, final(arrival()), orders[0]) == (ClaimState.REJECTED, "already_used")
    assert (credited(money), held(money)) == (5, [])
    assert [(release.state, release.order_id) for release in money.releases] == [(SuspenseState.ALLOCATED, "b")]


def test_a_late_claim_names_the_order_of_what_is_in_suspense() -> None:
    """An unattributed transfer becomes late money of the expired order that claims it, and is held once."""
    order = replace(SHARED, state=State.EXPIRED, expires_at=CREATED - timedelta(days=3))
    money = tally(order)
    decide(money, arrival(), replace(place([order]), merchant_id="m"))
    assert claim(money, final(arrival()), order) == (ClaimState.REJECTED, "late")
    assert (held(money), money.orders[order.key].late_minor, len(money.holds)) == ([("late", 5)], 5, 1)


def test_late_money_from_before_is_not_counted_again() -> None:
    """A transfer that stands in an order's late amount since before suspense was kept is held and adds nothing."""
    order = replace(SHARED, state=State.EXPIRED, late_minor=5)
    money = Tally([order], counted_late=[arrival().key])
    decide(money, arrival(), place([order]))
    assert (held(money), money.orders[order.key].late_minor) == ([("late", 5)], 5)
