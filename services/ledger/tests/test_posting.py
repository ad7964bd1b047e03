"""Posting on a real database: what is booked, what is not, and that the books hold."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from ledger import workflow
from ledger.domain import WITHOUT_ORDER, EventType, Outcome, Posting, Reason, Refusal

if TYPE_CHECKING:
    from .conftest import Books

REFUND = EventType.ORDER_REFUNDED
Make = Callable[..., Posting]
Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


async def outcomes(books: Books, *items: Posting | Refusal) -> list[Outcome]:
    """Posts one batch."""
    return [result.outcome for result in await workflow.post(books.service, items)]


async def test_payment_is_two_balanced_entries(books: Books, posting: Make) -> None:
    """A payment credits the merchant bucket and debits the clearing bucket."""
    paid = posting(500)
    assert await outcomes(books, paid) == [Outcome.POSTED]
    same = {
        "merchant_id": "m1",
        "asset": "USDT",
        "seq": 1,
        "amount_minor": 500,
        "event_type": "ORDER_PAID",
        "event_id": paid.event_id,
        "order_id": "o1",
        "tx_hash": paid.tx_hash,
        "effective_at": paid.effective_at,
    }
    assert [
        {**same, "bucket": "merchant", "direction": "CREDIT", "balance_after": "500"},
        {**same, "bucket": "clearing", "direction": "DEBIT", "balance_after": "-500"},
    ] == await books.lines()


async def test_refund_is_the_other_way_round(books: Books, posting: Make) -> None:
    """A refund debits the merchant bucket and credits the clearing bucket; a missing transaction is null."""
    await outcomes(books, posting(500), posting(200, event_type=REFUND, tx_hash=""))
    found = [
        (line["bucket"], line["direction"], line["balance_after"], line["tx_hash"]) for line in await books.lines()
    ]
    tx_hash = "0x" + "ab" * 32
    assert [
        ("merchant", "CREDIT", "500", tx_hash),
        ("merchant", "DEBIT", "300", None),
        ("clearing", "DEBIT", "-500", tx_hash),
        ("clearing", "CREDIT", "-300", None),
    ] == found


async def test_refund_before_its_payment_is_booked(books: Books, posting: Make) -> None:
    """Messages may come in the wrong order: the balance is negative for a while."""
    await outcomes(books, posting(5, event_type=REFUND))
    early = await workflow.read_balances(books.service, "m1", "USDT", None)
    assert (early.merchant, early.clearing) == (-5, 5)
    await outcomes(books, posting(5))
    late = await workflow.read_balances(books.service, "m1", "USDT", None)
    assert (late.merchant, late.clearing) == (0, 0)
    assert await books.broken() == []


async def test_event_books_once(books: Books, posting: Make) -> None:
    """The same event again, in whatever trace, changes not a byte."""
    first = posting()
    await outcomes(books, first)
    before = await books.bytes()
    again = posting(event_id=first.event_id, traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    assert await outcomes(books, again, first) == [Outcome.ALREADY_POSTED, Outcome.ALREADY_POSTED]
    assert before == await books.bytes()
    assert await books.rejected() == []


@pytest.mark.parametrize(
    "other",
    [
        {"amount": 6},
        {"event_type": REFUND},
        {"merchant": "m2"},
        {"order": "o2"},
        {"asset": "USDC"},
        {"tx_hash": "0x" + "cd" * 32},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_other_content_is_a_conflict(books: Books, posting: Make, other: dict) -> None:
    """A known id with any other content is reported, recorded and changes not a byte of the books."""
    first = posting()
    await outcomes(books, first)
    before = await books.bytes()
    changed = posting(**{"event_id": first.event_id, **other})
    assert await outcomes(books, changed) == [Outcome.CONFLICT]
    assert await outcomes(books, changed) == [Outcome.CONFLICT]
    assert before == await books.bytes()
    [record] = await books.rejected()
    assert ("CONFLICT", str(first.event_id), 2) == (record["reason"], record["event_id"], record["seen_count"])
    assert changed.described() == record["payload"]


async def test_same_id_twice_in_a_batch(books: Books, posting: Make) -> None:
    """The first one books; an equal one is known already, another content conflicts."""
    first = posting(5)
    equal, other = posting(5, event_id=first.event_id), posting(7, event_id=first.event_id)
    neighbour = posting(11)
    assert await outcomes(books, first, equal, other, neighbour) == [
        Outcome.POSTED,
        Outcome.ALREADY_POSTED,
        Outcome.CONFLICT,
        Outcome.POSTED,
    ]
    balances = await workflow.read_balances(books.service, "m1", "USDT", None)
    assert (balances.merchant, balances.clearing) == (16, -16)
    assert await books.broken() == []


async def test_known_and_new_in_one_batch(books: Books, posting: Make) -> None:
    """Known events in between leave no gap in the numbers of the new ones."""
    known = [posting(1) for _ in range(3)]
    await outcomes(books, *known)
    new = [posting(10) for _ in range(3)]
    mixed = [known[0], new[0], known[1], new[1], new[2], known[2]]
    expected = [Outcome.POSTED if each in new else Outcome.ALREADY_POSTED for each in mixed]
    assert expected == await outcomes(books, *mixed)
    booked = [line["event_id"] for line in await books.lines() if line["bucket"] == "merchant"]
    assert [each.event_id for each in [*known, *new]] == booked
    assert await books.broken() == []


async def test_refusals_concern_themselves_alone(books: Books, posting: Make) -> None:
    """Invalid items and conflicts between good ones: each has its own outcome, in order."""
    known = posting(1)
    await outcomes(books, known)
    invalid = Refusal(Reason.INVALID, "not a uuid", "event_id: must be a UUID", "{}")
    items = [invalid, posting(2), posting(3, event_id=known.event_id), invalid, posting(4)]
    assert await outcomes(books, *items) == [
        Outcome.INVALID,
        Outcome.POSTED,
        Outcome.CONFLICT,
        Outcome.INVALID,
        Outcome.POSTED,
    ]
    assert {("INVALID", 2), ("CONFLICT", 1)} == {(row["reason"], row["seen_count"]) for row in await books.rejected()}
    assert await books.broken() == []


async def test_only_refusals_touch_no_book(books: Books) -> None:
    """A batch of nothing but refusals books nothing."""
    before = await books.bytes()
    await outcomes(books, Refusal(Reason.INVALID, "a\0b" * 100, "\0" * 300, "\0payload" * 20_000))
    assert before == await books.bytes()
    [record] = await books.rejected()
    assert tuple(len(record[name]) for name in ("event_id", "detail", "payload")) == (64, 200, 65_536)


async def test_sums_pass_64_bits(books: Books, posting: Make) -> None:
    """An amount fits in 64 bits, a sum need not: balances and running balances stay exact."""
    most = 2**63 - 1
    assert await outcomes(books, *[posting(most) for _ in range(40)]) == [Outcome.POSTED] * 40
    balances = await workflow.read_balances(books.service, "m1", "USDT", None)
    assert (40 * most, -40 * most) == (balances.merchant, balances.clearing)
    entries, _ = await workflow.list_entries(books.service, "m1", "", None, 100)
    assert {n * most for n in range(1, 41)} == {entry.balance_after for entry in entries if entry.balance_after > 0}
    assert await books.broken() == []


def _some(make: Make, rng: random.Random, count: int) -> list[Posting]:
    """Random events of all types over few accounts, some of them twice, some with another content."""
    made: list[Posting] = []
    for _ in range(count):
        event_id = rng.choice(made).event_id if made and rng.random() < 0.1 else UUID(int=rng.getrandbits(128))
        known = [each for each in made if each.event_id == event_id]
        if known and rng.random() < 0.7:
            made.append(known[0])
            continue
        event_type = rng.choice(list(EventType))
        orders = [f"o{n}" for n in range(5)] + ([""] if event_type in WITHOUT_ORDER else [])
        made.append(
            make(
                rng.choice([1, rng.randint(1, 10**6), 2**63 - 1]),
                event_id=event_id,
                event_type=event_type,
                merchant=f"m{rng.randint(1, 3)}",
                order=rng.choice(orders),
                asset=rng.choice(["USDT", "USDC"]),
                tx_hash=rng.choice(["", "0x" + "cd" * 32]),
            )
        )
    return made


async def test_batch_of_n_is_n_single_postings(
    open_books: Callable[[], Awaitable[Books]], posting: Make, seed: int
) -> None:
    """One batch leaves the same rows as its postings one after the other."""
    together, alone = await open_books(), await open_books()
    for size in (1, 7, 100):
        batch = _some(posting, random.Random(seed + size), size)
        single = [outcome for each in batch for outcome in await outcomes(alone, each)]
        assert single == await outcomes(together, *batch)
    assert await alone.lines() == await together.lines()
    assert await alone.rejected() == await together.rejected() or {
        (row["payload"], row["seen_count"]) for row in await alone.rejected()
    } == {(row["payload"], row["seen_count"]) for row in await together.rejected()}


# By type: the bucket that is credited (+1) or debited (−1), and the one that takes the other side.
BOOKED = {
    EventType.ORDER_PAID: (("merchant", 1), "clearing"),
    EventType.ORDER_REFUNDED: (("merchant", -1), "clearing"),
    EventType.PAYMENT_REVERSED: (("merchant", -1), "clearing"),
    EventType.SUSPENSE_RECEIVED: (("suspense", 1), "suspense_clearing"),
    EventType.SUSPENSE_RELEASED: (("suspense", -1), "suspense_clearing"),
}


SHOWN = ("merchant", "clearing", "suspense")


class Model:
    """The books in thirty lines: what posting must come to."""

    def __init__(self) -> None:
        self.events: dict[UUID, Posting] = {}
        self.balances: dict[tuple[str, str, str], int] = defaultdict(int)
        self.lines: dict[tuple[str, str, str], list[tuple]] = defaultdict(list)

    def post(self, given: Posting) -> Outcome:
        known = self.events.get(given.event_id)
        if known is not None:
            same = (known.event_type, known.merchant_id, known.order_id, known.asset, known.amount_minor, known.tx_hash)
            now = (given.event_type, given.merchant_id, given.order_id, given.asset, given.amount_minor, given.tx_hash)
            return Outcome.ALREADY_POSTED if same == now else Outcome.CONFLICT
        self.events[given.event_id] = given
        (first, sign), second = BOOKED[given.event_type]
        for bucket, change in ((first, sign * given.amount_minor), (second, -sign * given.amount_minor)):
            account = (given.merchant_id, given.asset, bucket)
            self.balances[account] += change
            lines = self.lines[account]
            lines.append((len(lines) + 1, "CREDIT" if change > 0 else "DEBIT", abs(change), self.balances[account]))
        return Outcome.POSTED


async def test_model_agrees_after_every_reply(books: Books, posting: Make, seed: int) -> None:
    """A random run against the reference model, reconciled after every reply."""
    rng, model = random.Random(seed), Model()
    history = _some(posting, rng, 300)
    while history:
        size = rng.choice([1, 2, 5, 40])
        batch, history = history[:size], history[size:]
        batch += rng.sample(list(model.events.values()), min(len(model.events), rng.choice([0, 1, 3])))
        assert [model.post(each) for each in batch] == await outcomes(books, *batch), f"seed {seed}"
        for merchant, asset, _ in list(model.balances):
            found = await workflow.read_balances(books.service, merchant, asset, None)
            expected = tuple(model.balances.get((merchant, asset, name), 0) for name in SHOWN)
            assert expected == (found.merchant, found.clearing, found.suspense), f"seed {seed}"
    found_lines = defaultdict(list)
    for line in await books.lines():
        account = (line["merchant_id"], line["asset"], line["bucket"])
        found_lines[account].append((line["seq"], line["direction"], line["amount_minor"], int(line["balance_after"])))
    assert dict(model.lines) == dict(found_lines), f"seed {seed}"
    assert await books.broken() == []


async def test_writers_on_one_hot_merchant(books: Books, posting: Make, seed: int) -> None:
    """Several writers post overlapping batches on shared accounts: no deadlock, no gap, no drift, each event once."""
    rng = random.Random(seed)
    events = [posting(rng.randint(1, 100), merchant=rng.choice(["hot", "hot", "warm"])) for _ in range(400)]
    answers: dict[UUID, list[Outcome]] = defaultdict(list)

    async def writer(own: random.Random) -> None:
        for _ in range(12):
            batch = own.sample(events, 30)
            for each, outcome in zip(batch, await outcomes(books, *batch), strict=True):
                answers[each.event_id].append(outcome)

    totals: list[int] = []
    done = asyncio.Event()

    async def reader() -> None:
        while not done.is_set():
            balances = await workflow.read_balances(books.service, "hot", "USDT", None)
            totals.append(balances.merchant + balances.clearing)

    reading = asyncio.create_task(reader())
    async with asyncio.timeout(60):
        await asyncio.gather(*(writer(random.Random(rng.random())) for _ in range(5)))
    done.set()
    await reading
    assert {0} == set(totals), f"seed {seed}"
    assert {1} == {found.count(Outcome.POSTED) for found in answers.values()}, f"seed {seed}"
    assert {Outcome.POSTED, Outcome.ALREADY_POSTED} == {outcome for found in answers.values() for outcome in found}
    booked = await books.owner.fetchval(
        "SELECT sum(balance) FROM balances JOIN accounts USING (account_id) WHERE bucket = 'merchant'"
    )
    assert sum(each.amount_minor for each in events if each.event_id in answers) == int(booked)
    assert await books.broken() == [], f"seed {seed}"


async def test_writers_race_for_new_accounts(books: Books, posting: Make, seed: int) -> None:
    """Writers that meet in accounts which none of them has seen open each account once."""
    rng = random.Random(seed)
    for lap in range(5):
        merchants = [f"new{lap}-{n}" for n in range(40)]
        batches = [[posting(1, merchant=name) for name in rng.sample(merchants, 40)] for _ in range(6)]
        async with asyncio.timeout(30):
            answers = await asyncio.gather(*(outcomes(books, *batch) for batch in batches))
        assert answers == [[Outcome.POSTED] * 40] * 6, f"seed {seed}"
    rows = await books.owner.fetch("SELECT balance FROM balances ORDER BY balance DESC")
    assert [int(row["balance"]) for row in rows] == [6] * 200 + [-6] * 200
    assert await books.broken() == [], f"seed {seed}"


async def test_one_event_raced(books: Books, posting: Make) -> None:
    """One event posted by many at once is POSTED once; with other contents the losers conflict."""
    event_id = uuid4()
    versions = [posting(amount, event_id=event_id) for amount in (5, 5, 6, 6, 7, 5)]
    answers = await asyncio.gather(*(outcomes(books, each) for each in versions))
    flat = [outcome for [outcome] in answers]
    winner = versions[flat.index(Outcome.POSTED)]
    for version, outcome in zip(versions, flat, strict=True):
        if version is not winner:
            same = version.amount_minor == winner.amount_minor
            assert (Outcome.ALREADY_POSTED if same else Outcome.CONFLICT) == outcome
    assert flat.count(Outcome.POSTED) == 1
    assert await books.broken() == []


async def test_failed_statement_leaves_nothing(books: Books, posting: Make) -> None:
    """A posting that PostgreSQL itself refuses, in the middle of a batch, takes the whole batch back."""
    await outcomes(books, posting())
    before = await books.bytes()
    with pytest.raises(Exception, match="entries_amount_minor_check"):
        await outcomes(books, posting(), posting(0), posting())
    assert before == await books.bytes()


async def test_clock_that_steps_back(books: Books, posting: Make) -> None:
    """Times of booking rise with seq even when the newest entry is from the future."""
    await outcomes(books, posting(1))
    ahead = await books.owner.fetchval(
        "UPDATE balances SET last_at = last_at + interval '1 hour' WHERE account_id = 1 RETURNING last_at"
    )
    await outcomes(books, posting(2), posting(3))
    await outcomes(books, posting(4))
    rows = await books.owner.fetch("SELECT created_at FROM entries WHERE account_id = 1 ORDER BY seq OFFSET 1")
    second, third, fourth = (row["created_at"] for row in rows)
    assert ahead < second == third < fourth


async def test_ids_of_one_call_are_counted_on(books: Books, posting: Make) -> None:
    """All ids of a call share one random number, another call has another, and all are of version 7."""
    await outcomes(books, posting(1), posting(2, merchant="m2"), posting(3, event_type=REFUND))
    await outcomes(books, posting(4, event_type=EventType.SUSPENSE_RECEIVED))
    ids = [row["id"] for row in await books.owner.fetch("SELECT id FROM entries")]
    calls = Counter(entry_id.bytes[:12] for entry_id in ids)
    assert sorted(calls.values()) == [2, 6]
    assert len(set(ids)) == 8
    assert {7} == {entry_id.version for entry_id in ids}
    assert max(calls, key=calls.__getitem__) == min(calls), "they rise with time"


async def test_hot_balances_are_updated_in_place(books: Books, posting: Make, until: Until) -> None:
    """Balance updates stay on their page (HOT), so that a hot row stays cheap as history grows."""
    for _ in range(50):
        await outcomes(books, posting(1))
    await books.service.close()  # a session that ends hands in its statistics
    query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'balances'"

    async def handed_in() -> bool:
        return (await books.owner.fetchrow(query))["n_tup_upd"] == 100

    await until(handed_in)
    assert tuple(await books.owner.fetchrow(query)) == (100, 100)
