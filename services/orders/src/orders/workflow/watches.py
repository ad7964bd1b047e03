"""The merchants' wallets are watched on every configured chain, for ever."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from kit.database import Connection, Database
from orders.domain import Debt
from orders.messages import watch_debt
from orders.store import addresses as addresses_store
from orders.store import outbox
from orders.store import watches as store
from orders.workflow.addresses import watch_order

LIMIT = 500


async def watch_wallet(
    connection: Connection, chains: Sequence[str], merchant_id: str | None, first_look: timedelta
) -> list[Debt]:
    """The debts to watch one merchant's wallet, or some that are not watched yet, in the caller's transaction."""
    missing = await store.insert_missing(connection, chains, merchant_id, LIMIT)
    debts = [_watch(item.merchant_id, item.chain, item.wallet, item.since) for item in missing]
    if debts:
        await outbox.insert(connection, debts, first_look)
    return debts


async def watch_missing(database: Database, chains: Sequence[str], first_look: timedelta) -> list[Debt]:
    """The debts to watch at most 500 wallets that are not watched yet: of merchants from before, or on a new chain."""
    async with database.transaction() as connection:
        return await watch_wallet(connection, chains, None, first_look)


async def watch_all_anew(database: Database, chains: Sequence[str], watch_period: timedelta) -> int:
    """Owes the verifier all watches once more, the sweeper delivers them; how many. For a verifier that lost some.

    Commits by pages: what is owed when it is broken off is owed twice after the next run, which does no harm.
    """
    owed, merchant_id, key = 0, "", ("", "")
    while True:
        async with database.transaction() as connection:
            wallets = await store.wallets_after(connection, merchant_id, LIMIT)
            orders = await addresses_store.orders_after(connection, key, watch_period, LIMIT)
            debts = [_watch(id, chain, wallet, since) for id, wallet, since in wallets for chain in chains]
            debts += [watch_order(order, watch_period) for order in orders]
            if not debts:
                return owed
            await outbox.insert(connection, debts, timedelta(0))
        owed += len(debts)
        merchant_id = wallets[-1][0] if wallets else merchant_id
        key = orders[-1].key if orders else key


def _watch(merchant_id: str, chain: str, wallet: str, since: datetime) -> Debt:
    return watch_debt(uuid4(), merchant_id, chain, wallet, from_block=None, from_time=since, until=None)
