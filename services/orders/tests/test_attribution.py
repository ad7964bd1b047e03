"""The pure rules: which order a transfer pays, and where money goes that pays none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders.domain import (
    Arrival,
    ClaimState,
    Order,
    Outcome,
    Place,
    State,
    SuspenseState,
    Tally,
    Terms,
    Transfer,
    Verdict,
    allocate,
    confirms,
    decide,
    give_back,
    settle_claim,
    take_back,
)

CREATED = datetime(2026, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)
PAYER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
OTHER = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"
OWN = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
ORDER = Order(
    id="o",
    merchant_id="m",
    asset="USDT",
    chain="BSC",
    amount_minor=5,
    customer_wallet=None,
    deposit_address=OWN,
    metadata=None,
    request_hash=b"",
    created_block=100,
    state=State.PENDING,
    received_minor=0,
    refunded_minor=0,
    late_minor=0,
    tx_hash=None,
    paid_at=None,
    created_at=CREATED,
    expires_at=CREATED + timedelta(minutes=30),
    settled_at=None,
    settlement_batch_id=None,
    deposit_index=7,
)
SHARED = replace(ORDER, deposit_index=None)
PLACE = Place("m", own=ORDER.key)


def tally(*orders: Order, terms: Terms = Terms()) -> Tally:  # noqa: B008  # frozen
    return Tally(orders or [ORDER], terms={"m": terms})


def arrival(number: int = 1, amount: int = 5, **fields: object) -> Arrival:
    base = Transfer(
        chain_id=56,
        tx_hash=f"0x{number:064x}",
        log_index=0,
        block_number=101,
        block_hash="0x" + "b" * 64,
        block_time=CREATED.replace(microsecond=0) + timedelta(seconds=2),
        sender=PAYER,
        amount_base=amount * 10**12,
        amount_minor=amount,
    )
    return Arrival("BSC", "USDT", OWN, replace(base, **fields))  # type: ignore[arg-type]


def held(money: Tally) -> list[tuple[str, int]]:
    """(reason, amount) of what is open in suspense."""
    return sorted((item.reason, item.amount_minor) for item in money.items.values() if item.is_open)


def credited(money: Tally) -> int:
    return sum(payment.credited_minor for payment in money.payments.values() if not payment.reversed)


# An address of an order's own.


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


# A wallet that orders share.


def shared(*names: str, **fields: object) -> list[Order]:
    return [replace(SHARED, id=name, **fields) for name in names]  # type: ignore[arg-type]


def place(orders: Sequence[Order], **fields: object) -> Place:
    return Place("first", candidates=tuple(order.key for order in orders), **fields)  # type: ignore[arg-type]


def test_the_one_order_that_fits_is_paid() -> None:
    """The exact amount for exactly one order pays it with no claim at all."""
    orders = [*shared("a"), *shared("b", amount_minor=6)]
    money = tally(*orders)
    assert confirms(money, arrival(), place(orders)) == ("a", "m")
    assert decide(money, arrival(), place(orders)) == ("a", "m")
    assert [order.state for order in money.orders.values()] == [State.PAID, State.PENDING]


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


# Claims.


def final(*moved: Arrival) -> Verdict:
    return Verdict(UUID(int=1), Outcome.FINAL, transfers=tuple(item.transfer for item in moved))


def claim(money: Tally, verdict: Verdict, order: Order = ORDER, number: int = 1) -> tuple[ClaimState, str]:
    decision = settle_claim(money, order.key, arrival(number).transfer.tx_hash, verdict)
    return decision.claim_state, decision.reason


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


# What the chain takes back.


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


# What the operator decides.


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


# Whatever happens.

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
