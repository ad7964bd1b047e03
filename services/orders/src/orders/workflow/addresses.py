"""Orders that are paid at addresses of their own, below their merchant's extended public key."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from uuid import uuid4

from kit.database import Connection, Database
from orders.addresses import derive
from orders.domain import Debt, NewOrder, Order
from orders.messages import watch_debt
from orders.store import addresses as store
from orders.store import orders as orders_store
from orders.store import outbox
from orders.store.addresses import Addressed, Indexes

Row = tuple[NewOrder, bytes, timedelta, int | None]


async def create(
    database: Database, rows: Sequence[Row], *, watch_period: timedelta, first_look: timedelta
) -> tuple[list[Order], list[Order], list[Debt]]:
    """Creates those of the orders whose merchants have an extended public key, with the debts to watch their addresses.

    `rows` are (order, request hash, time to live, height) with distinct keys. Returns what is new, what somebody else
    has created at the same moment, and the debts. An index that such a race costs is left out; none is taken twice.
    """
    async with database.transaction() as connection:
        placed = await _place(connection, rows)
        if not placed:
            return [], [], []
        fresh = await store.insert_many(connection, placed)
        debts = [watch_order(order, watch_period) for order in fresh]
        if debts:
            await outbox.insert(connection, debts, first_look)
        made = {order.key for order in fresh}
        lost = [item.order.key for item in placed if item.order.key not in made]
        return fresh, await orders_store.find_many(connection, lost) if lost else [], debts


async def _place(connection: Connection, rows: Sequence[Row]) -> list[Addressed]:
    """The orders of merchants with an extended public key, each with an address that nobody else has."""
    wanted = Counter(order.merchant_id for order, _, _, _ in rows)
    free: dict[str, Iterator[tuple[int, str]]] = {}
    found: dict[str, list[tuple[int, str]]] = {}
    while wanted:
        taken = await store.take_indexes(connection, wanted)
        derived = await asyncio.to_thread(_derive, taken)
        # A merchant may have had the first address of its account for a wallet before: money there is not one order's.
        occupied = await store.wallets_among(connection, [address for _, _, address in derived])
        for merchant_id, index, address in derived:
            if address not in occupied:
                found.setdefault(merchant_id, []).append((index, address))
        wanted = Counter(
            {run.merchant_id: wanted[run.merchant_id] - len(found.get(run.merchant_id, [])) for run in taken}
        )
        wanted = +wanted
    free = {merchant_id: iter(addresses) for merchant_id, addresses in found.items()}
    return [
        Addressed(order, request_hash, ttl, block, *next(free[order.merchant_id]))
        for order, request_hash, ttl, block in rows
        if order.merchant_id in free
    ]


def _derive(taken: Sequence[Indexes]) -> list[tuple[str, int, str]]:
    return [
        (run.merchant_id, index, derive(run.xpub, index))
        for run in taken
        for index in range(run.first, run.first + run.count)
    ]


def watch_order(order: Order, watch_period: timedelta) -> Debt:
    """The debt to watch an order's own address."""
    return watch_debt(
        uuid4(),
        order.merchant_id,
        order.chain,
        order.deposit_address,
        from_block=order.created_block,
        from_time=order.created_at,
        until=order.expires_at + watch_period,
    )
