"""Settlement: PAID orders become final for the merchant after a delay."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from kit.database import Database
from orders.domain import SettlementBatch
from orders.store import money as store


async def settle(database: Database, delay: timedelta, limit: int) -> int:
    """Settles at most `limit` orders in one commit; returns how many."""
    async with database.transaction() as connection:
        return await store.settle(connection, delay, limit)


async def list_page(
    database: Database, merchant_id: str, after: UUID | None, limit: int
) -> tuple[list[SettlementBatch], bool]:
    """A page of batches, newest first, and whether there are more."""
    async with database.connection() as connection:
        found = await store.list_batches(connection, merchant_id, after, limit + 1)
    return found[:limit], len(found) > limit
