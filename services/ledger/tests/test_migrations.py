"""Migrations go up and down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ledger import workflow
from ledger.domain import Posting

if TYPE_CHECKING:
    from .conftest import Books

MIGRATIONS = sorted((Path(__file__).parents[1] / "migrations").glob("*.sql"))


async def test_down_leaves_nothing_and_up_works_again(books: Books, posting: Callable[..., Posting]) -> None:
    """Every step can be taken back, with rows in the tables, and taken again."""
    await workflow.post(books.service, [posting()])
    steps = [path.read_text().partition("-- migrate:down") for path in MIGRATIONS]
    for _, _, down in reversed(steps):
        await books.owner.execute(down)
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
