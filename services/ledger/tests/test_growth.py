"""A look at the books has a bound on what it reads, counted by PostgreSQL or not (ADR 11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from ledger import store, workflow
from ledger.audit import ACCOUNTS, TAIL
from ledger.domain import Posting
from local.explained import Explained

if TYPE_CHECKING:
    from .conftest import Books

Make = Callable[..., Posting]


@pytest.mark.parametrize("prepare", ["SELECT 1", "VACUUM ANALYZE"], ids=["not counted", "counted"])
async def test_a_look_is_bounded(books: Books, posting: Make, prepare: str) -> None:
    """At most accounts × tail × 4 entries, as the audit says, some pages of indexes for each."""
    for table in ("accounts", "balances", "entries"):
        await books.owner.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    for _ in range(TAIL):
        await workflow.post(books.service, [posting(merchant=f"m{n}") for n in range(ACCOUNTS)])
    await books.owner.execute(prepare)
    accounts = await store.next_accounts(books.owner, 0, ACCOUNTS)
    assert len(accounts) == ACCOUNTS
    explained = Explained(books.owner)
    await store.broken_accounts(explained, accounts, TAIL)
    assert explained.pages <= ACCOUNTS * TAIL * 4 * 4
