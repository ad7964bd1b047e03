"""Money that pays no order: a pair of buckets of its own, beside the one of payments."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import workflow
from ledger.domain import WITHOUT_ORDER, EventType, Outcome, Posting
from ospay.ledger.v1 import ledger_pb2 as pb

if TYPE_CHECKING:
    from .conftest import Books, Running

PAID, REFUNDED, REVERSED = EventType.ORDER_PAID, EventType.ORDER_REFUNDED, EventType.PAYMENT_REVERSED
RECEIVED, RELEASED = EventType.SUSPENSE_RECEIVED, EventType.SUSPENSE_RELEASED
Make = Callable[..., Posting]


async def balances(books: Books, merchant: str = "m1", as_of: datetime | None = None) -> tuple[int, int, int]:
    """What payments and suspense come to."""
    found = await workflow.read_balances(books.service, merchant, "USDT", as_of)
    return found.merchant, found.clearing, found.suspense


@pytest.mark.parametrize(
    ("event_type", "expected"),
    [
        (RECEIVED, [("suspense", "CREDIT", "5"), ("suspense_clearing", "DEBIT", "-5")]),
        (RELEASED, [("suspense", "DEBIT", "-5"), ("suspense_clearing", "CREDIT", "5")]),
        (REVERSED, [("merchant", "DEBIT", "-5"), ("clearing", "CREDIT", "5")]),
    ],
)
async def test_type_gives_the_pair_and_the_sides(
    books: Books, posting: Make, event_type: EventType, expected: list[tuple[str, str, str]]
) -> None:
    """Two entries, in the pair of the type and in no other account."""
    await workflow.post(books.service, [posting(5, event_type=event_type)])
    assert expected == [(line["bucket"], line["direction"], line["balance_after"]) for line in await books.lines()]
    assert {bucket for bucket, _, _ in expected} == {
        row["bucket"] for row in await books.owner.fetch("SELECT bucket::text FROM accounts")
    }
    assert await books.broken() == []


async def test_accounts_are_opened_by_the_first_event_that_needs_them(books: Books, posting: Make) -> None:
    """Who never had money in suspense has two accounts, who had has four."""
    query = "SELECT merchant_id, bucket::text FROM accounts ORDER BY account_id"

    async def opened() -> list[tuple[str, str]]:
        return [(row["merchant_id"], row["bucket"]) for row in await books.owner.fetch(query)]

    await workflow.post(books.service, [posting(), posting(merchant="m2")])
    first = [("m1", "merchant"), ("m1", "clearing"), ("m2", "merchant"), ("m2", "clearing")]
    assert first == await opened()
    await workflow.post(books.service, [posting(event_type=RECEIVED, merchant="m2"), posting()])
    assert [*first, ("m2", "suspense"), ("m2", "suspense_clearing")] == await opened()


async def test_way_of_an_underpaid_order(books: Books, posting: Make) -> None:
    """Held, then released and credited together with the rest, in one batch: the pairs do not mix."""
    await workflow.post(books.service, [posting(3, event_type=RECEIVED)])
    assert (0, 0, 3) == await balances(books)
    batch = [posting(3, event_type=RELEASED), posting(3), posting(2)]
    assert [Outcome.POSTED] * 3 == [result.outcome for result in await workflow.post(books.service, batch)]
    assert (5, -5, 0) == await balances(books)
    await workflow.post(books.service, [posting(2, event_type=REVERSED)])
    assert (3, -3, 0) == await balances(books)
    assert await books.broken() == []


async def test_released_before_it_was_received(books: Books, posting: Make) -> None:
    """Messages may come in the wrong order: suspense is negative for a while."""
    await workflow.post(books.service, [posting(5, event_type=RELEASED)])
    assert (0, 0, -5) == await balances(books)
    await workflow.post(books.service, [posting(5, event_type=RECEIVED)])
    assert (0, 0, 0) == await balances(books)


async def test_same_id_as_another_type_is_a_conflict(books: Books, posting: Make) -> None:
    """Of the same pair or the other one: reported, and not a byte changes."""
    for first in EventType:
        known = posting(event_type=first)
        await workflow.post(books.service, [known])
        before = await books.bytes()
        others = [posting(event_id=known.event_id, event_type=other) for other in EventType if other is not first]
        results = await workflow.post(books.service, others)
        assert [Outcome.CONFLICT] * len(others) == [result.outcome for result in results]
        assert before == await books.bytes()


async def test_suspense_as_of_a_time(books: Books, posting: Make) -> None:
    """At each time of booking, what was in suspense and what was paid then."""
    history: list[tuple[datetime, tuple[int, int, int]]] = [(datetime(2, 1, 1, tzinfo=UTC), (0, 0, 0))]
    for event in (posting(7, event_type=RECEIVED), posting(5), posting(4, event_type=RELEASED), posting(4)):
        await workflow.post(books.service, [event])
        [newest], _ = await workflow.list_entries(books.service, "m1", "", None, 1)
        history.append((newest.created_at, await balances(books)))
    assert [(0, 0, 0), (0, 0, 7), (5, -5, 7), (5, -5, 3), (9, -9, 3)] == [expected for _, expected in history]
    for time, expected in history:
        assert expected == await balances(books, as_of=time)


async def test_money_of_no_order_is_in_the_merchants_listing(books: Books, posting: Make) -> None:
    """Entries without an order are listed with the merchant's others, and with no order's."""
    await workflow.post(books.service, [posting(), posting(event_type=RECEIVED, order="")])
    whole, _ = await workflow.list_entries(books.service, "m1", "", None, 10)
    assert Counter({"": 2, "o1": 2}) == Counter(entry.order_id for entry in whole)
    one, _ = await workflow.list_entries(books.service, "m1", "o1", None, 10)
    assert {"merchant", "clearing"} == {entry.bucket for entry in one}


async def test_writers_race_for_suspense_accounts(books: Books, posting: Make) -> None:
    """Writers that meet in pairs which none of them has seen open each account once, and lock in one order."""
    merchants = [f"m{n}" for n in range(20)]
    batches = [
        [posting(1, merchant=name, event_type=kind) for name in merchants[::step] for kind in (RECEIVED, PAID)]
        for step in (1, -1, 1, -1, 1, -1)
    ]
    async with asyncio.timeout(30):
        await asyncio.gather(*(workflow.post(books.service, batch) for batch in batches))
    assert {(6, -6, 6)} == {await balances(books, merchant) for merchant in merchants}
    assert await books.broken() == []


@pytest.mark.parametrize(
    ("bucket", "event_type"),
    [("suspense", "ORDER_PAID"), ("suspense_clearing", "PAYMENT_REVERSED"), ("clearing", "SUSPENSE_RECEIVED")],
)
async def test_entry_in_another_pair_is_refused_by_the_table(
    books: Books, posting: Make, bucket: str, event_type: str
) -> None:
    """Whatever writes to it."""
    await workflow.post(books.service, [posting()])
    with pytest.raises(asyncpg.CheckViolationError, match="entry_in_its_pair"):
        await books.owner.execute(
            f"""
            INSERT INTO entries (
                account_id, seq, amount_minor, created_at, effective_at, event_id, event_type, bucket, direction,
                balance_after, merchant_id, order_id, asset
            )
            SELECT account_id, 2, amount_minor, created_at, effective_at, event_id, '{event_type}', '{bucket}',
                direction, balance_after, merchant_id, order_id, asset
            FROM entries WHERE account_id = 1
            """
        )


class Model:
    """What suspense and payments of one merchant must come to."""

    def __init__(self) -> None:
        self.known: dict[UUID, Posting] = {}

    def post(self, event: Posting) -> Outcome:
        first = self.known.setdefault(event.event_id, event)
        if first is event:
            return Outcome.POSTED
        return Outcome.ALREADY_POSTED if first.payload_hash == event.payload_hash else Outcome.CONFLICT

    def balances(self) -> tuple[int, int, int]:
        sums: Counter[EventType] = Counter()
        for event in self.known.values():
            sums[event.event_type] += event.amount_minor
        merchant = sums[PAID] - sums[REFUNDED] - sums[REVERSED]
        return merchant, -merchant, sums[RECEIVED] - sums[RELEASED]


# Few ids and amounts, so that events come again, with the same content and with another.
events = st.tuples(st.integers(0, 5), st.sampled_from(EventType), st.integers(1, 2), st.booleans())
histories = st.lists(st.lists(events, min_size=1, max_size=6), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories)
async def test_model_agrees(books: Books, posting: Make, history: list[list[tuple]]) -> None:
    """Any history in any batches: each reply and, after each, the balances are those of the model."""
    model, merchant = Model(), f"m-{uuid4()}"
    ids = [uuid4() for _ in range(6)]
    for drawn in history:
        batch = [
            posting(
                amount,
                event_id=ids[number],
                event_type=kind,
                merchant=merchant,
                order="" if alone and kind in WITHOUT_ORDER else "o1",
            )
            for number, kind, amount, alone in drawn
        ]
        expected = [model.post(event) for event in batch]
        assert expected == [result.outcome for result in await workflow.post(books.service, batch)]
        assert model.balances() == await balances(books, merchant)
    assert await books.broken() == []


async def test_over_grpc(running: Running, posting: Make, message: Callable[[Posting], pb.Posting]) -> None:
    """Booked, read back with its buckets, refused without an order where there must be one."""
    held = posting(7, event_type=RECEIVED, order="")
    paid = message(posting(5))
    paid.order_id = ""
    answer = await running.call("BatchPost", pb.BatchPostRequest(postings=[message(held), paid]))
    assert [(pb.POST_OUTCOME_POSTED, ""), (pb.POST_OUTCOME_INVALID, "order_id: must not be empty for ORDER_PAID")] == [
        (result.outcome, result.detail) for result in answer.results
    ]
    found = await running.call("GetBalances", pb.GetBalancesRequest(merchant_id="m1", asset="USDT"))
    assert ("0", "0", "7") == (
        found.merchant_balance_minor,
        found.clearing_balance_minor,
        found.suspense_balance_minor,
    )
    listed = await running.call("ListEntries", pb.ListEntriesRequest(merchant_id="m1"))
    assert {
        (pb.BUCKET_SUSPENSE, pb.DIRECTION_CREDIT, pb.EVENT_TYPE_SUSPENSE_RECEIVED, "7"),
        (pb.BUCKET_SUSPENSE_CLEARING, pb.DIRECTION_DEBIT, pb.EVENT_TYPE_SUSPENSE_RECEIVED, "-7"),
    } == {(line.bucket, line.direction, line.event_type, line.balance_after_minor) for line in listed.entries}
    assert [("INVALID", paid.event_id)] == [(row["reason"], row["event_id"]) for row in await running.books.rejected()]
