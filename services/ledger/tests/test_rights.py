"""Who may do what to the books, by the database's own rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import asyncpg
import pytest

from ledger import workflow
from ledger.domain import Posting

if TYPE_CHECKING:
    from .conftest import Books

WRITES = [
    "UPDATE {table} SET {column} = {column}",
    "DELETE FROM {table}",
    "TRUNCATE {table}",
    "DROP TABLE {table}",
    "ALTER TABLE {table} DISABLE TRIGGER ALL",
]
COLUMNS = {"entries": "amount_minor", "events": "payload_hash", "accounts": "asset", "balances": "balance"}


@pytest.mark.parametrize("table", COLUMNS)
async def test_service_may_not_change_the_books(books: Books, posting: Callable[..., Posting], table: str) -> None:
    """The service's role can neither update, delete, truncate nor drop; nothing changes by trying."""
    await workflow.post(books.service, [posting()])
    before = await books.bytes()
    async with books.service.connection() as connection:
        for write in WRITES:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(write.format(table=table, column=COLUMNS[table]))
        # The one way into the books is `post_events`, which writes balanced entries only.
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"INSERT INTO {table} DEFAULT VALUES")
    assert before == await books.bytes()


@pytest.mark.parametrize("table", ["entries", "events"])
async def test_owner_is_stopped_by_a_trigger(books: Books, posting: Callable[..., Posting], table: str) -> None:
    """Even the owner of the tables cannot change them by accident, not even no row of them."""
    await workflow.post(books.service, [posting()])
    before = await books.bytes()
    for write in (*WRITES[:3], f"{WRITES[0]} WHERE false", f"{WRITES[1]} WHERE false"):
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await books.owner.execute(write.format(table=table, column=COLUMNS[table]))
    assert before == await books.bytes()


async def test_rights_are_exactly_these(books: Books) -> None:
    """What the service's role may do, listed, so that a migration which grants more is seen."""
    found = await books.owner.fetch(
        """
        SELECT table_name || ' ' || string_agg(privilege_type, ',' ORDER BY privilege_type) AS grant
        FROM information_schema.role_table_grants WHERE grantee = 'ledger' GROUP BY table_name ORDER BY table_name
        """
    )
    assert [row["grant"] for row in found] == [
        "accounts SELECT",
        "balances SELECT",
        "entries SELECT",
        "events SELECT",
        "rejected_events INSERT,SELECT,UPDATE",
    ]


async def test_nobody_else_may_post(books: Books) -> None:
    """The function that writes with its owner's rights is not open to the public."""
    grants = await books.owner.fetchval("SELECT proacl::text FROM pg_proc WHERE proname = 'post_events'")
    assert grants == "{ledger_owner=X/ledger_owner,ledger=X/ledger_owner}"
