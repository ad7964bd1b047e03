"""Whatever comes in whatever order, nothing is lost and nothing is made."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from orders.domain import (
    Arrival,
    State,
    SuspenseState,
    Tally,
    Terms,
    allocate,
    decide,
    give_back,
    settle_claim,
    take_back,
)
from services.orders.tests.attribution.scene import (  # type: ignore[import-not-found]
    CREATED,
    ORDER,
    OTHER,
    PAYER,
    PLACE,
    SHARED,
    arrival,
    credited,
    final,
    held,
    place,
    tally,
)

TRANSFERS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(["fits", "asset", "payer", "late", "early"])), min_size=1, max_size=6
)


def moved_like(number: int, amount: int, kind: str) -> Arrival:
    found = arrival(number, amount)
    if kind == "asset":
        return replace(found, asset="USDC")
    change = {
        "payer": {"sender": OTHER},
        "late": {"block_time": CREATED + timedelta(hours=1)},
        "early": {"block_number": 99},
    }.get(kind, {})
    return replace(found, transfer=replace(found.transfer, **change))  # type: ignore[arg-type]


STEPS = st.sampled_from(["final", "final", "reversed", "claim", "allocate", "return"])


def has_got(money: Tally, key: tuple[str, str]) -> int:
    """What stands of an order's credits."""
    pays = [item for item in money.items.values() if item.pays and item.order_key == key]
    paid = [payment for payment in money.payments.values() if payment.order_key == key and not payment.reversed]
    return sum(item.amount_minor for item in pays) + sum(payment.credited_minor for payment in paid)


@settings(max_examples=400, deadline=None)
@given(
    made=TRANSFERS,
    steps=st.lists(st.tuples(st.integers(0, 5), STEPS), max_size=25),
    terms=st.builds(Terms, st.integers(0, 3), st.booleans()),
    is_own=st.booleans(),
)
def test_nothing_is_lost_and_nothing_is_made(
    made: list[tuple[int, str]], steps: list[tuple[int, str]], terms: Terms, is_own: bool
) -> None:
    """Whatever arrives, is repeated, claimed, decided or reversed: what stands on the chain is credited or held."""
    order = replace(ORDER if is_own else SHARED, customer_wallet=PAYER)
    other = replace(ORDER, id="other", amount_minor=4, deposit_index=8)
    where = PLACE if is_own else replace(place([order]), merchant_id="m")
    money = tally(order, other, terms=terms if is_own else Terms())
    arrivals = [moved_like(number, amount, kind) for number, (amount, kind) in enumerate(made, 1)]
    standing: set[int] = set()
    for index, step in steps:
        if index >= len(arrivals):
            continue
        moved = arrivals[index]
        item = money.items.get(moved.key)
        if step == "reversed":
            take_back(money, moved.key, "")
            standing.discard(index)
        elif step == "claim" and moved.asset == "USDT":
            settle_claim(money, order.key, moved.transfer.tx_hash, final(moved))
            standing |= {index} if money.is_decided(moved) else set()
        elif step == "final":
            decide(money, moved, where)
            standing.add(index)
        elif step == "allocate" and item and item.is_open and money.orders[other.key].state is State.PENDING:
            allocate(money, item, other.key)
        elif step == "return" and item and item.is_open:
            give_back(money, item)
        check_sums(money, sum(arrivals[number].transfer.amount_minor for number in standing))


def check_sums(money: Tally, on_chain: int) -> None:
    """Everything that is on the chain stands in one place, and the facts of each order say what the rows say."""
    states = dict.fromkeys(SuspenseState, 0)
    for item in money.items.values():
        states[item.state] += item.amount_minor
    open_minor = states[SuspenseState.OPEN]
    credited_minor = sum(has_got(money, key) for key in money.orders)
    assert credited_minor + open_minor + states[SuspenseState.RETURNED] == on_chain
    received = sum(hold.item.amount_minor for hold in money.holds)
    assert received - sum(release.item.amount_minor for release in money.releases) == open_minor
    for key, order in money.orders.items():
        ever = sum(credit.credited_minor for credit in money.credits if credit.order.key == key)
        gone = sum(reversal.amount_minor for reversal in money.reversals if reversal.order.key == key)
        assert (order.reversed_minor, ever - gone) == (gone, has_got(money, key))
        assert (order.state is State.PAID) == (ever > 0)
        waiting = sum(item.amount_minor for item in money.held(key))
        assert order.received_minor == (ever if order.state is State.PAID else waiting)
        if order.state is State.PAID:
            assert (waiting, ever >= order.amount_minor - money.terms(order).tolerance_minor) == (0, True)


@given(made=TRANSFERS, terms=st.builds(Terms, st.integers(0, 3), st.booleans()), seed=st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(made: list[tuple[int, str]], terms: Terms, seed: object) -> None:
    """An order's state, what is credited, what is in suspense by reason: the same in any order of arrival."""
    arrivals = [moved_like(number, amount, kind) for number, (amount, kind) in enumerate(made, 1)]
    shuffled = list(arrivals)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    ends = []
    for sequence in (arrivals, shuffled):
        money = tally(replace(ORDER, customer_wallet=PAYER), terms=terms)
        for item in sequence:
            decide(money, item, PLACE)
        order = money.orders[ORDER.key]
        by_reason: dict[str, int] = {}
        for reason, amount in held(money):
            by_reason[reason] = by_reason.get(reason, 0) + amount
        ends.append((order.state, credited(money), order.received_minor, order.surplus_minor, by_reason))
    assert ends[0] == ends[1]
