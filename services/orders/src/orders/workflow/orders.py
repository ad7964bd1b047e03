"""Creating and reading orders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from kit.database import Database
from kit.errors import Fault, Kind
from orders.domain import Debt, Due, NewOrder, Order, OrderKey, Page, State
from orders.heights import Heights
from orders.store import orders as store
from orders.workflow import addresses

# How long a read may take longer to tell the confirmations of now; those of the last look are told otherwise.
HEAD_SECONDS = 0.25


@dataclass(frozen=True)
class Created:
    """An order, new or known."""

    order: Order
    replayed: bool


async def create(
    database: Database,
    heights: Heights,
    ring: Callable[[Sequence[Debt]], None],
    asked: Sequence[NewOrder],
    *,
    default_ttl: timedelta,
    watch_period: timedelta,
    first_look: timedelta,
) -> list[Created | Fault]:
    """Creates orders, those at wallets in one commit; a result or a fault for each, in the order of `asked`.

    Those with addresses of their own are made in a commit of their own, after which it rings for them to be watched.
    """
    chains = sorted({order.chain for order in asked})
    height = dict(zip(chains, await asyncio.gather(*(heights.of(chain) for chain in chains)), strict=True))
    hashes = [order.request_hash() for order in asked]
    first: dict[tuple[str, str], int] = {}
    for index, order in enumerate(asked):
        first.setdefault(order.key, index)
    rows = [
        (asked[index], hashes[index], asked[index].expires_in or default_ttl, height[asked[index].chain])
        for index in first.values()
    ]
    async with database.connection() as connection:
        fresh = {order.key: order for order in await store.insert_many(connection, rows)}
        missing = [key for key in first if key not in fresh]
        known = {order.key: order for order in await store.find_many(connection, missing)} if missing else {}
    if unmade := [row for row in rows if row[0].key not in fresh and row[0].key not in known]:
        made, lost, debts = await addresses.create(database, unmade, watch_period=watch_period, first_look=first_look)
        fresh |= {order.key: order for order in made}
        known |= {order.key: order for order in lost}
        ring(debts)
    results: list[Created | Fault] = []
    for index, order in enumerate(asked):
        is_new = order.key in fresh and first[order.key] == index
        results.append(_result(order, hashes[index], fresh.get(order.key) or known.get(order.key), is_new))
    return results


def replay(asked: NewOrder, known: Order) -> Created | Fault:
    """What is answered for an order that is there."""
    return _result(asked, asked.request_hash(), known, is_new=False)


def _result(asked: NewOrder, request_hash: bytes, order: Order | None, is_new: bool) -> Created | Fault:
    if order is None:
        return Fault(Kind.NOT_FOUND, "merchant_not_found", f"there is no merchant {asked.merchant_id}")
    if order.request_hash != request_hash:
        detail = f"order {asked.id} was created with another body"
        return Fault(Kind.CONFLICT, "idempotency_mismatch", detail)
    return Created(order, replayed=not is_new)


async def with_confirming(database: Database, heights: Heights, orders: Sequence[Order]) -> list[Order]:
    """The same, with what the CONFIRMING ones among them wait for."""
    waiting = {order.key: order.chain for order in orders if order.state is State.CONFIRMING}
    if not waiting:
        return list(orders)
    async with database.connection() as connection:
        found = await store.confirming(connection, list(waiting))
    heads = await _heads(heights, {waiting[key] for key in found})
    for key, confirming in found.items():
        head = heads.get(waiting[key])
        if head is not None and head >= confirming.block_number > 0:
            found[key] = replace(confirming, confirmations=head - confirming.block_number + 1)
    return [replace(order, confirming=found.get(order.key)) for order in orders]


async def _heads(heights: Heights, chains: set[str]) -> dict[str, int | None]:
    async def head(chain: str) -> int | None:
        try:
            return await asyncio.wait_for(heights.of(chain), HEAD_SECONDS)
        except TimeoutError:
            return None

    names = sorted(chains)
    return dict(zip(names, await asyncio.gather(*(head(chain) for chain in names)), strict=True))


async def get(database: Database, merchant_id: str, order_id: str) -> Order:
    """One order of a merchant. Errors: Fault `order_not_found`."""
    async with database.connection() as connection:
        order = await store.find(connection, merchant_id, order_id)
    if order is None:
        raise not_found(order_id)
    return order


async def find_many(database: Database, keys: Sequence[OrderKey]) -> dict[OrderKey, Order]:
    """The orders with these (id, merchant id) keys, as far as they exist, in one query."""
    async with database.connection() as connection:
        found = await store.find_many(connection, list(dict.fromkeys(keys)))
    return {order.key: order for order in found}


async def list_page(
    database: Database, merchant_id: str, state: State | None, after: Page | None, limit: int
) -> tuple[list[Order], bool]:
    """A page of orders, newest first, and whether there are more."""
    async with database.connection() as connection:
        found = await store.list_page(connection, merchant_id, state, after, limit + 1)
    return found[:limit], len(found) > limit


async def counts(database: Database, merchant_id: str, asset: str) -> tuple[int, int]:
    """(unsettled PAID orders, postings in flight)"""
    async with database.connection() as connection:
        return await store.counts(connection, merchant_id, asset)


async def totals(database: Database) -> dict[str, int]:
    """The system's counters by name."""
    async with database.connection() as connection:
        return await store.totals(connection)


async def due(database: Database, margin: timedelta, but_on: Sequence[str], after: Due | None, limit: int) -> list[Due]:
    """Orders that are past their time by `margin` and free to expire, the longest due first, not on these chains."""
    async with database.connection() as connection:
        return await store.due(connection, margin, but_on, after, limit)


async def expire(database: Database, keys: Sequence[OrderKey]) -> None:
    """Expires orders that are due, if they are still open and free to."""
    async with database.transaction() as connection:
        locked = await store.lock_open(connection, keys)
        # A statement of its own sees what was committed on an order between the first one's snapshot and the lock.
        if locked:
            await store.expire(connection, locked)


def not_found(order_id: str) -> Fault:
    """The same for an order that is not there and for another merchant's."""
    return Fault(Kind.NOT_FOUND, "order_not_found", f"there is no order {order_id}")
