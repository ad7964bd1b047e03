"""Migrations go up and down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from ledger import workflow
from ledger.domain import EventType, Outcome, Posting

if TYPE_CHECKING:
    from .conftest import Books

# asyncpg takes no script that has nothing but comments.
NOT_EMPTY = "SELECT 1"
MIGRATIONS = sorted((Path(__file__).parents[1] / "migrations").glob("*.sql"))


async def test_down_leaves_nothing_and_up_works_again(books: Books, posting: Callable[..., Posting]) -> None:
    """Every step can be taken back, with rows in the tables, and taken again."""
    await workflow.post(books.service, [posting(), posting(event_type=EventType.SUSPENSE_RECEIVED, order="")])
    steps = [path.read_text().partition("-- migrate:down") for path in MIGRATIONS]
    for _, _, down in reversed(steps):
        await books.owner.execute(down + NOT_EMPTY)
    left = """
        SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE 'schema_migrations%'
        UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    """
    assert await books.owner.fetch(left) == []
    for up, _, _ in steps:
        await books.owner.execute(up)
    await books.owner.execute("DISCARD ALL")
    assert await books.owner.fetch("SELECT id FROM entries") == []


async def test_newest_step_can_be_taken_back_and_taken_again(books: Books, posting: Callable[..., Posting]) -> None:
    """With suspense in the books: nothing is lost, and what comes then is booked beside it."""
    await workflow.post(books.service, [posting(5, event_type=EventType.SUSPENSE_RECEIVED, order=""), posting(7)])
    before = await books.bytes()
    steps = [path.read_text().partition("-- migrate:down") for path in MIGRATIONS]
    for _, _, down in reversed(steps[1:]):
        await books.owner.execute(down + NOT_EMPTY)
    for up, _, _ in steps[1:]:
        await books.owner.execute(up)
    assert before == await books.bytes()
    [result] = await workflow.post(books.service, [posting(1, event_type=EventType.SUSPENSE_RELEASED, order="")])
    assert Outcome.POSTED is result.outcome
    assert await books.broken() == []


async def test_call_of_the_function_from_before(books: Books, posting: Callable[..., Posting]) -> None:
    """Under way while the buckets are added it would book each event in all of them: it fails, and nothing changes."""
    await workflow.post(books.service, [posting()])
    before = await books.bytes()
    first = MIGRATIONS[0].read_text()
    function = first[first.index("CREATE FUNCTION post_events") : first.index("REVOKE ALL")]
    await books.owner.execute(function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    with pytest.raises(asyncpg.CheckViolationError, match="entry_in_its_pair"):
        await workflow.post(books.service, [posting()])
    assert before == await books.bytes()
