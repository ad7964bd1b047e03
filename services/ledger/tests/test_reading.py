"""Balances now and as of a time; entries page by page."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from ledger import workflow
from ledger.domain import Entry, EventType, Position, Posting
from ledger.store import ENTRIES_OF_ORDER, NEWEST

if TYPE_CHECKING:
    from .conftest import Books

Make = Callable[..., Posting]
MICROSECOND = timedelta(microseconds=1)


async def all_pages(books: Books, merchant: str, order: str, size: int) -> list[list[Entry]]:
    """Every page of a listing."""
    pages: list[list[Entry]] = []
    before: Position | None = None
    while True:
        page, before = await workflow.list_entries(books.service, merchant, order, before, size)
        pages.append(page)
        if before is None:
            return pages


async def test_unknown_merchant_has_nothing(books: Books) -> None:
    """Where nothing was booked, balances are 0, now and at any time, and there are no entries."""
    for as_of in (None, datetime(2, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)):
        found = await workflow.read_balances(books.service, "nobody", "USDT", as_of)
        assert (found.merchant, found.clearing) == (0, 0)
        assert as_of is None or as_of == found.as_of
    assert await all_pages(books, "nobody", "", 10) == [[]]
    assert await all_pages(books, "nobody", "o1", 10) == [[]]


async def test_merchants_and_assets_are_apart(books: Books, posting: Make) -> None:
    """Nobody sees another's money, nor one asset another's."""
    await workflow.post(
        books.service, [posting(1), posting(2, merchant="m2"), posting(4, asset="USDC"), posting(8, order="o2")]
    )
    for merchant, asset, expected in (("m1", "USDT", 9), ("m2", "USDT", 2), ("m1", "USDC", 4), ("m2", "USDC", 0)):
        found = await workflow.read_balances(books.service, merchant, asset, None)
        assert (expected, -expected) == (found.merchant, found.clearing)
    [page] = await all_pages(books, "m2", "", 10)
    assert {"m2"} == {entry.merchant_id for entry in page}
    assert await all_pages(books, "m2", "o2", 10) == [[]]


async def test_names_that_join_to_one_are_apart(books: Books, posting: Make) -> None:
    """Orders are found by a hash of both names together; what another order with that hash has is not in the way."""
    await workflow.post(books.service, [posting(merchant="m1", order="23")])
    await workflow.post(books.service, [posting(merchant="m12", order="3") for _ in range(20)])
    for merchant, order, count in (("m1", "23", 2), ("m12", "3", 40)):
        found = [entry for page in await all_pages(books, merchant, order, 1) for entry in page]
        assert [(merchant, order)] * count == [(entry.merchant_id, entry.order_id) for entry in found]


async def test_as_of_is_the_newest_entry_before(books: Books, posting: Make) -> None:
    """At every time of booking the balances are those after it; a microsecond earlier, those before it."""
    history = [(datetime(2, 1, 1, tzinfo=UTC), 0)]
    for amounts in ([5], [7, 11], [13], [17, 19, 23]):
        await workflow.post(books.service, [posting(amount) for amount in amounts])
        [newest], _ = await workflow.list_entries(books.service, "m1", "", None, 1)
        history.append((newest.created_at, history[-1][1] + sum(amounts)))
    for (_, before), (time, after) in pairwise(history):
        for as_of, expected in ((time - MICROSECOND, before), (time, after)):
            found = await workflow.read_balances(books.service, "m1", "USDT", as_of)
            assert (expected, -expected, as_of) == (found.merchant, found.clearing, found.as_of)


async def test_as_of_a_time_to_come_is_now(books: Books, posting: Make) -> None:
    """Nothing can be said of tomorrow: the answer holds for now, and says so."""
    await workflow.post(books.service, [posting(5)])
    now = await workflow.read_balances(books.service, "m1", "USDT", None)
    found = await workflow.read_balances(books.service, "m1", "USDT", datetime(9998, 12, 31, tzinfo=UTC))
    assert (found.merchant, found.clearing) == (5, -5)
    assert now.as_of <= found.as_of <= now.as_of + timedelta(seconds=30)


async def test_pages_are_the_whole_listing(books: Books, posting: Make) -> None:
    """Pages of any size hold every entry once, newest first, the two of an event side by side."""
    for size in (1, 5, 9):
        batch = [
            posting(n + 1, asset=("USDT", "USDC")[n % 2], order=f"o{n % 3}", event_type=list(EventType)[n % 2])
            for n in range(size)
        ]
        await workflow.post(books.service, [*batch, posting(merchant="m2")])
    [whole] = await all_pages(books, "m1", "", 1000)
    assert 30 == len({entry.entry_id for entry in whole}) == len(whole)
    order = [(entry.created_at, entry.seq, entry.account_id) for entry in whole]
    assert sorted(order, reverse=True) == order
    for size in (1, 2, 7, 29, 30, 31):
        pages = await all_pages(books, "m1", "", size)
        assert whole == [entry for page in pages for entry in page]
        assert {size} >= {len(page) for page in pages[:-1]}
        assert pages[-1]
    for name in ("o0", "o1", "o2"):
        expected = [entry for entry in whole if entry.order_id == name]
        for size in (1, 3, 100):
            assert expected == [entry for page in await all_pages(books, "m1", name, size) for entry in page]


async def test_pages_of_an_order_end_between_equals(books: Books, posting: Make) -> None:
    """Entries of one order, time and number, in many accounts, are each on one page, however small pages are."""
    assets = [f"A{n}" for n in range(6)]
    types = (EventType.ORDER_PAID, EventType.SUSPENSE_RECEIVED)
    for _ in range(2):
        await workflow.post(
            books.service, [posting(asset=asset, event_type=each) for asset in assets for each in types]
        )
    [whole] = await all_pages(books, "m1", "", 1000)
    assert {1, 2} == {entry.seq for entry in whole}
    for size in (1, 2, 3, 10, 1000):
        assert whole == [entry for page in await all_pages(books, "m1", "o1", size) for entry in page]


async def test_new_entries_do_not_move_the_next_page(books: Books, posting: Make) -> None:
    """What is booked while somebody turns pages is on none of the older ones."""
    await workflow.post(books.service, [posting(n + 1) for n in range(6)])
    first, before = await workflow.list_entries(books.service, "m1", "", None, 5)
    await workflow.post(books.service, [posting(99) for _ in range(3)])
    second, end = await workflow.list_entries(books.service, "m1", "", before, 50)
    assert end is None
    assert len({entry.entry_id for entry in [*first, *second]}) == 12


def _nodes(plan: dict) -> list[dict]:
    return [plan, *(node for child in plan.get("Plans", []) for node in _nodes(child))]


async def test_as_of_reads_an_index_only(books: Books, posting: Make) -> None:
    """In a long history the balance as of a time is one probe of one index: a handful of pages."""
    for _ in range(10):
        await workflow.post(books.service, [posting(1) for _ in range(1000)])
    await books.owner.execute("VACUUM ANALYZE entries")
    plan = await books.owner.fetchval(
        """
        EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
        SELECT balance_after FROM entries WHERE account_id = 1 AND created_at <= $1
        ORDER BY created_at DESC, seq DESC LIMIT 1
        """,
        datetime.now(UTC),
    )
    nodes = _nodes(json.loads(plan)[0]["Plan"])
    assert [(node["Node Type"], node.get("Index Name")) for node in nodes] == [
        ("Limit", None),
        ("Index Only Scan", "entries_by_time"),
    ]
    assert nodes[0]["Shared Hit Blocks"] + nodes[0]["Shared Read Blocks"] <= 8


async def test_order_is_found_by_key(books: Books, posting: Make) -> None:
    """Before PostgreSQL has counted the books and after, an order's entries are looked up, never searched for."""
    await books.owner.execute("ALTER TABLE entries SET (autovacuum_enabled = off)")
    for lap in range(5):
        await workflow.post(books.service, [posting(order=f"o{lap} {n}") for n in range(1000)])
    given = ("m1", "o3 500", NEWEST.created_at, NEWEST.seq, NEWEST.account_id, 101)
    for prepare in ("SELECT 1", "VACUUM ANALYZE"):
        await books.owner.execute(prepare)
        plan = await books.owner.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {ENTRIES_OF_ORDER}", *given)
        nodes = _nodes(json.loads(plan)[0]["Plan"])
        assert {"entries_by_order_hash", "entries_account_id_seq_key"} <= {node.get("Index Name") for node in nodes}
        assert nodes[0]["Actual Rows"] == 2
        assert nodes[0]["Shared Hit Blocks"] + nodes[0]["Shared Read Blocks"] <= 40
