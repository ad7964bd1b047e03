"""The merchants' wallets are watched on every configured chain, for ever."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

from kit.database import Connection, Database
from orders.domain import Debt
from orders.messages import watch_debt
from orders.store import outbox
from orders.store import watches as store

LIMIT = 500


async def watch_wallet(
    connection: Connection, chains: Sequence[str], merchant_id: str | None, first_look: timedelta
) -> list[Debt]:
    """The debts to watch one merchant's wallet, or some that are not watched yet, in the caller's transaction."""
    missing = await store.insert_missing(connection, chains, merchant_id, LIMIT)
    debts = [
        watch_debt(
            uuid4(), item.merchant_id, item.chain, item.wallet, from_block=None, from_time=item.since, until=None
        )
        for item in missing
    ]
    if debts:
        await outbox.insert(connection, debts, first_look)
    return debts


async def watch_missing(database: Database, chains: Sequence[str], first_look: timedelta) -> list[Debt]:
    """The debts to watch at most 500 wallets that are not watched yet: of merchants from before, or on a new chain."""
    async with database.transaction() as connection:
        return await watch_wallet(connection, chains, None, first_look)
