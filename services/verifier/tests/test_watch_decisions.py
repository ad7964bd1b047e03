"""What becomes of sightings, which blocks come next, when an address is watched: the pure rules."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier import refusals
from verifier.domain import (
    CHAIN_UNAVAILABLE,
    TRANSFER_TOPIC,
    Final,
    FoundLog,
    Header,
    Log,
    Rejected,
    RejectReason,
    Transfer,
    Untrusted,
    Waiting,
    WaitReason,
)
from verifier.refusals import Refusal
from verifier.watch import decisions, ranges
from verifier.watch.decisions import DOUBT_SECONDS, Seen, Settlement, Sighting, State, settle
from verifier.watch.ranges import Bisection, Pin, Position, RangeSize, Sweep, heights_back
from verifier.watch.watching import Watch, WatchState, joined, merged, reopens, restarts

TX, TOKEN, PAYER, SHOP = "0x" + "11" * 32, "0x" + "55" * 20, "0x" + "66" * 20, "0x" + "77" * 20
OLD, NEW = "0x" + "22" * 32, "0x" + "33" * 32
TRANSFER = Transfer(56, TX, 0, 100, OLD, 1_700_000_000, TOKEN, PAYER, SHOP, 5)
MOVED = replace(TRANSFER, block_number=104, block_hash=NEW, log_index=3)
STILL, REPLACED = {100: Header(100, OLD, 0)}, {100: Header(100, NEW, 0)}
NOT_FOUND, NOT_FINAL = Waiting(WaitReason.NOT_FOUND), Waiting(WaitReason.NOT_FINAL)
REFUTED = Rejected(RejectReason.NO_TRANSFER)
REACH = 110


def sighting(state=State.SEEN, transfer=TRANSFER, doubted=None, known=None):
    """A stored sighting."""
    return Sighting(uuid4(), state, transfer, transfer.log_index if known is None else known, doubted)


def became(settlement, each):
    """What is to be written of a sighting."""
    if any(decisions.place_of(transfer) == each.place for transfer, _ in settlement.final):
        return "final"
    names = ("gone", "moved", "reversed", "stands", "open")
    return next((name for name in names if each.id in getattr(settlement, name)), "nothing")


CASES = [
    ("proved where it was seen", sighting(), Final((TRANSFER,)), STILL, "final"),
    ("proved in another block", sighting(), Final((MOVED,)), REPLACED, "gone"),
    ("proved above the cursor", sighting(), Final((replace(MOVED, block_number=111),)), STILL, "open"),
    ("refuted", sighting(), REFUTED, STILL, "gone"),
    ("unknown, its block stands", sighting(), NOT_FOUND, STILL, "open"),
    ("unknown, its block was replaced", sighting(), NOT_FOUND, REPLACED, "gone"),
    ("unknown, its block is not known", sighting(), NOT_FOUND, {}, "open"),
    ("not final elsewhere", sighting(), NOT_FINAL, REPLACED, "gone"),
    ("no word, its block stands", sighting(), CHAIN_UNAVAILABLE, STILL, "open"),
    ("above the cursor", sighting(transfer=replace(TRANSFER, block_number=111)), REFUTED, {}, "open"),
    ("in doubt, proved again", sighting(State.FINAL, doubted=0.0), Final((TRANSFER,)), STILL, "stands"),
    ("in doubt, its block stands", sighting(State.FINAL, doubted=0.0), NOT_FOUND, STILL, "stands"),
    ("in doubt, no word", sighting(State.FINAL, doubted=99.0), CHAIN_UNAVAILABLE, REPLACED, "open"),
    ("in doubt, not final elsewhere", sighting(State.FINAL, doubted=99.0), NOT_FINAL, REPLACED, "open"),
    ("in doubt, just unknown", sighting(State.FINAL, doubted=DOUBT_SECONDS - 1), NOT_FOUND, REPLACED, "open"),
    ("in doubt, long unknown", sighting(State.FINAL, doubted=DOUBT_SECONDS), NOT_FOUND, REPLACED, "reversed"),
    ("in doubt, refuted", sighting(State.FINAL, doubted=0.0), REFUTED, REPLACED, "reversed"),
    ("in doubt, proved elsewhere", sighting(State.FINAL, doubted=0.0), Final((MOVED,)), REPLACED, "moved"),
    ("in doubt, block not known", sighting(State.FINAL, doubted=99.0), NOT_FOUND, {}, "open"),
    ("final and not in doubt", sighting(State.FINAL), NOT_FOUND, REPLACED, "nothing"),
]


@pytest.mark.parametrize(("case", "each", "outcome", "headers", "expected"), CASES, ids=[case[0] for case in CASES])
def test_settling_one_sighting(case, each, outcome, headers, expected):
    """What is said of a sighting needs proof: of its transaction's receipt, or of the block at its height."""
    assert expected == became(settle([each], outcome, [TRANSFER], headers, {}, REACH), each), case


@pytest.mark.parametrize("outcome", [NOT_FOUND, NOT_FINAL, CHAIN_UNAVAILABLE])
def test_only_what_its_final_block_does_not_hold_was_made_up(outcome):
    """A final block that is known without the transaction takes a sighting back; one that is not known does not."""
    each, other = sighting(), "0x" + "44" * 32
    above = sighting(transfer=replace(TRANSFER, block_number=REACH + 1))
    assert ({OLD}, set()) == tuple(decisions.in_question([one], outcome, REACH) for one in (each, above))
    for contents, expected in (
        ({}, "open"),
        ({OLD: {TX, other}}, "open"),
        ({OLD: {other}}, "gone"),
        ({OLD: {}}, "gone"),
    ):
        settlement = settle([each], outcome, [TRANSFER], STILL, contents, REACH)
        assert expected == became(settlement, each)
        assert ([each.place] if expected == "gone" else []) == settlement.made_up
    assert "open" == became(settle([above], outcome, [TRANSFER], {}, {OLD: {other}}, REACH), above)


def test_a_moved_payment_is_known_by_its_first_index():
    """In another block, under another index, the same money is the same payment."""
    old = sighting(State.FINAL, doubted=0.0)
    settlement = settle([old], Final((MOVED,)), [TRANSFER], REPLACED, {}, REACH)
    assert ([(MOVED, 0)], [old.id], []) == (settlement.final, settlement.moved, settlement.reversed)


def test_other_money_of_the_same_transaction_is_another_payment():
    """A transaction that moves another amount in its new block: the old payment is reversed, the new one is told."""
    old, other = sighting(State.FINAL, doubted=0.0), replace(MOVED, amount_base=7)
    settlement = settle([old], Final((other,)), [TRANSFER], REPLACED, {}, REACH)
    assert ([(other, 3)], [], [old.id]) == (settlement.final, settlement.moved, settlement.reversed)


def test_what_contradicts_a_firm_payment_is_not_told():
    """While a payment is FINAL and not in doubt the same money elsewhere stays open, and is an alert."""
    firm, again = sighting(State.FINAL), sighting(transfer=MOVED)
    settlement = settle([firm, again], Final((MOVED,)), [TRANSFER], STILL, {}, REACH)
    assert (Settlement(open=[again.id], conflicts=[again.place])) == settlement


def test_a_name_is_given_once():
    """Two transfers of which one matches what was proved: a stranger may not take the other's index."""
    stranger = replace(TRANSFER, log_index=0, amount_base=9)
    same = replace(TRANSFER, log_index=1)
    assert {1: 0} == decisions.known_indexes([stranger, same], [TRANSFER])
    twice = [replace(TRANSFER, log_index=index) for index in (4, 6)]
    assert {5: 4, 8: 6} == decisions.known_indexes([replace(TRANSFER, log_index=index) for index in (5, 8)], twice)


def test_only_a_replaced_block_takes_back():
    """What logs leave out is GONE only when another block is at its height."""
    each = Seen(uuid4(), (TX, 0, OLD), 100)
    assert [[], [], [each.id]] == [decisions.gone([each], headers) for headers in ({}, STILL, REPLACED)]


def test_transfers_of_a_range():
    """Only configured tokens to watched addresses, in blocks above the one that each begins after."""

    def found(number, contract=TOKEN, to=SHOP):
        topics = (TRANSFER_TOPIC, "0x" + "0" * 24 + PAYER[2:], "0x" + "0" * 24 + to[2:])
        return FoundLog(Log(contract, topics, f"0x{5:064x}", 0), TX, number, OLD)

    logs = [found(99), found(100), found(101), found(101, contract=PAYER), found(101, to=PAYER)]
    transfers = decisions.transfers_in(56, logs, {TOKEN}, {SHOP: 99})
    assert [100, 101] == [transfer.block_number for transfer in transfers]
    (dated,) = decisions.dated([TRANSFER], {100: Header(100, OLD, 1_800_000_000)})
    assert replace(TRANSFER, block_time=1_800_000_000) == dated
    for headers in ({}, REPLACED):
        with pytest.raises(Untrusted):
            decisions.dated([TRANSFER], headers)


SAID = [
    (-32005, "query returned more than 10000 results", Refusal.TOO_MUCH),
    (-32005, "limit exceeded", Refusal.TOO_MUCH),
    (-32000, "exceed maximum block range: 5000", Refusal.TOO_MUCH),
    (-32602, "Log response size exceeded. this block range should work: [0x1, 0x2]", Refusal.TOO_MUCH),
    (-32600, "requests with up to a 10 block range. Upgrade to PAYG for expanded block range.", Refusal.TOO_MUCH),
    (-32614, "eth_getLogs is limited to a 10,000 range", Refusal.TOO_MUCH),
    (-32000, "requested too many blocks from 1 to 9, maximum is set to 2048", Refusal.TOO_MUCH),
    (-32603, "backend response too large", Refusal.TOO_MUCH),
    (-32000, "query timeout exceeded", Refusal.TOO_MUCH),
    (-32002, "Block range limit exceeded. See more details", Refusal.TOO_MUCH),
    (-32005, "project ID request rate exceeded", Refusal.TOO_OFTEN),
    (-32005, "daily request count exceeded, request rate limited", Refusal.TOO_OFTEN),
    (429, "Your app has exceeded its compute units per second capacity", Refusal.TOO_OFTEN),
    (-32601, "the method eth_getLogs does not exist/is not available", Refusal.NOT_SERVED),
    (-32000, "method eth_getLogs is not whitelisted", Refusal.NOT_SERVED),
    (-32000, "invalid block range params", None),
    (-32602, "block range extends beyond current head block", None),
    (-32000, "unknown block", None),
    (-32603, "internal error", None),
    (-32000, "x" * 10_000 + "range", None),
]


@pytest.mark.parametrize(("code", "message", "expected"), SAID)
def test_what_refusals_mean(code, message, expected):
    """Range, rate, method or nothing that a smaller range would help with: told apart by the words of providers."""
    assert expected == refusals.of_logs(code, message)


@given(st.lists(st.tuples(st.sampled_from(["refused", "failed", "taken"]), st.integers(1, 6000)), max_size=60))
def test_range_sizes_stay_in_bounds(steps):
    """Sizes go down to one block, up to the largest, and a failure alone never brings them below a hundred."""
    size = RangeSize()
    for name, blocks in steps:
        before = size.blocks
        size = getattr(size, name)(min(blocks, before))
        assert 1 <= size.blocks <= ranges.LARGEST_SIZE
        assert name != "failed" or size.blocks >= min(before, ranges.SMALLEST_GUESS)
        assert name != "refused" or size.blocks <= max(1, blocks // 2)
        assert name != "taken" or size.blocks >= before


@given(st.lists(st.integers(1, 400), min_size=1, max_size=300), st.integers(0, 10**6))
def test_pins_thin_out_with_age(gaps, swept):
    """However often the cursor moves the newest pin stays, there are few, and some at every depth."""
    kept, number = [Pin(1, OLD, "a")], 1
    everything = [1]
    for gap in gaps:
        number += gap
        everything.append(number)
        position = Position(1, number, OLD, number, min(swept, number), 0)
        kept = [*kept, Pin(number, OLD, "a")]
        surplus = ranges.surplus_pins(kept, position)
        kept = [pin for pin in kept if pin not in surplus]
    numbers = [pin.number for pin in kept]
    assert number == numbers[-1]
    assert len(numbers) < 90
    for wanted in everything:
        if wanted >= numbers[0]:
            below = max(pin for pin in numbers if pin <= wanted)
            assert wanted - below <= (number - below) // 2 + 400


def test_where_an_operator_took_over_stays_until_it_is_swept():
    """The pins before a change of operator are kept: the sweep has to know whom not to ask."""
    pins = [Pin(number, OLD, "a" if number < 500 else "b") for number in range(1, 1000)]
    unswept = Position(1, 999, OLD, 999, 0, 0)
    kept = [pin for pin in pins if pin not in ranges.surplus_pins(pins, unswept)]
    assert Pin(499, OLD, "a") in kept


def test_sweeps_ask_another_operator_for_each_stretch():
    """A sweep ends where another operator took over, at its distance from the cursor, or at its size."""
    pins = [Pin(0, OLD, ""), Pin(10, OLD, "a"), Pin(20, OLD, "a"), Pin(30, OLD, "b"), Pin(60, OLD, "b")]
    position = Position(1, 60, OLD, 64, 0, 0)
    found = []
    while plan := ranges.next_sweep(position, pins, RangeSize(15), 12):
        found.append(plan)
        position = replace(position, swept=plan.last)
    assert found == [Sweep(1, 15, "a"), Sweep(16, 20, "a"), Sweep(21, 35, "b"), Sweep(36, 48, "b")]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=400), st.integers(-2, 900))
def test_a_time_is_found_among_blocks(steps, before):
    """The search ends with the last block before a time, however many blocks share one."""
    times = [0]
    for step in steps:
        times.append(times[-1] + step)
    search, rounds = Bisection(0, len(times) - 1), 0
    while not search.found:
        narrowed = search.narrowed({n: Header(n, OLD, times[n]) for n in search.probes()}, before)
        assert narrowed is not None
        search, rounds = narrowed, rounds + 1
    expected = max((number for number in range(1, len(times)) if times[number] < before), default=0)
    assert expected == search.low
    assert rounds <= 3


def test_a_search_without_a_block_finds_nothing():
    """A block that is not known ends the search, and nothing is guessed."""
    assert Bisection(0, 100).narrowed({}, 50) is None


@given(st.integers(1, 3000), st.integers(0, 3000), st.integers(0, 3000))
def test_a_search_begins_near_its_end(end, before, forgotten):
    """What is looked for is within, whatever a node has forgotten; where it is recent no old block is asked for."""
    known = [number for number in heights_back(end) if number >= forgotten]
    search = Bisection.between({number: Header(number, OLD, number) for number in known}, before, end)
    assert search.low <= min(max(before - 1, 0), end) <= search.high
    if forgotten <= end - 16 < before:
        assert search.low >= end - 16


EARLY = datetime(2026, 1, 1, tzinfo=UTC)
LATE = EARLY + timedelta(days=1)
WATCH = Watch(56, SHOP, 100, LATE, LATE)


@pytest.mark.parametrize(
    ("new", "expected", "again"),
    [
        (WATCH, WATCH, False),
        (replace(WATCH, from_block=99), replace(WATCH, from_block=99), True),
        (replace(WATCH, from_block=101), WATCH, False),
        (replace(WATCH, until=None), replace(WATCH, until=None), False),
        (replace(WATCH, until=EARLY), WATCH, False),
        (replace(WATCH, from_block=0, from_time=EARLY), replace(WATCH, from_block=0, from_time=EARLY), True),
        (replace(WATCH, from_block=0), WATCH, False),
    ],
)
def test_two_watches_of_an_address_are_one(new, expected, again):
    """The earliest start and the latest end count; only an earlier start is looked back to."""
    assert (expected, again) == (joined(WATCH, new), restarts(WATCH, new))
    assert [expected] == merged([WATCH, new])


def test_only_what_was_over_reopens():
    """A later end reopens an address that was let go; one that is watched is simply watched longer."""
    longer = replace(WATCH, until=None)
    assert [reopens(WATCH, longer, state) for state in WatchState] == [False, False, True]
    assert not reopens(WATCH, WATCH, WatchState.ENDED)
    unresolved = replace(WATCH, from_block=0)
    assert joined(unresolved, replace(WATCH, from_time=EARLY)) == replace(unresolved, from_time=EARLY)
