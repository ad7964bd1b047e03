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

DOWN = "-- migrate:down"
MIGRATIONS = sorted((Path(__file__).parents[1] / "migrations").glob("*.sql"))
STEPS = [path.read_text().split(DOWN) for path in MIGRATIONS]  # up and down


async def take_back(books: Books, steps: list[list[str]]) -> None:
    """Takes steps back, the newest first."""
    for _, down in reversed(steps):
        if any(line and not line.startswith("--") for line in down.splitlines()[1:]):  # the first has dbmate's options
            await books.owner.execute("--" + down)


async def test_down_leaves_nothing_and_up_works_again(books: Books, posting: Callable[..., Posting]) -> None:
    """Every step can be taken back, with rows in the tables, and taken again."""
    await workflow.post(books.service, [posting(), posting(event_type=EventType.SUSPENSE_RECEIVED, order="")])
    await take_back(books, STEPS)
    left = """
        SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE 'schema_migrations%'
        UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    """
    assert await books.owner.fetch(left) == []
    for up, _ in STEPS:
        await books.owner.execute(up)
    await books.owner.execute("DISCARD ALL")
    assert await books.owner.fetch("SELECT id FROM entries") == []


async def test_newest_step_can_be_taken_back_and_taken_again(books: Books, posting: Callable[..., Posting]) -> None:
    """With suspense in the books: nothing is lost, and what comes then is booked beside it."""
    await workflow.post(books.service, [posting(5, event_type=EventType.SUSPENSE_RECEIVED, order=""), posting(7)])
    before = await books.bytes()
    await take_back(books, STEPS[1:])
    for up, _ in STEPS[1:]:
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
