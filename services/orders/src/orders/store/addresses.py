"""Orders with addresses of their own, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from kit.database import Connection
from orders.domain import NewOrder, Order, OrderKey
from orders.store.orders import COLUMNS, read_order


@dataclass(frozen=True)
class Indexes:
    """A run of address indexes that was taken for good."""

    merchant_id: str
    xpub: str
    first: int
    count: int


@dataclass(frozen=True)
class Addressed:
    """An order to be made and the address of its own."""

    order: NewOrder
    request_hash: bytes
    time_to_live: timedelta
    block: int | None
    index: int
    address: str


async def take_indexes(connection: Connection, wanted: Mapping[str, int]) -> list[Indexes]:
    """Takes as many indexes as each merchant wants; those without an extended public key get none.

    The merchants stay locked until the commit, in the order of their ids: an index that is rolled back is taken again,
    and no index is taken twice.
    """
    rows = await connection.fetch(
        """
        UPDATE merchants m SET next_address_index = m.next_address_index + w.count
        FROM (
            SELECT l.id, w.count FROM unnest($1::text[], $2::bigint[]) AS w(id, count)
            JOIN merchants l ON l.id = w.id AND l.xpub IS NOT NULL
            ORDER BY l.id FOR NO KEY UPDATE OF l
        ) w
        WHERE m.id = w.id
        RETURNING m.id, m.xpub, m.next_address_index - w.count AS first, w.count
        """,
        list(wanted.keys()),
        list(wanted.values()),
    )
    return [Indexes(row["id"], row["xpub"], row["first"], row["count"]) for row in rows]


async def orders_after(connection: Connection, key: OrderKey, watch_period: timedelta, limit: int) -> list[Order]:
    """The next orders with addresses of their own that are still watched, in the order of their keys."""
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS} FROM orders o
        WHERE (o.id, o.merchant_id) > ($1, $2) AND o.deposit_index IS NOT NULL AND o.expires_at + $3::interval > now()
        ORDER BY o.id, o.merchant_id LIMIT $4
        """,  # noqa: S608  # the columns are constants
        *key,
        watch_period,
        limit,
    )
    return [read_order(row) for row in rows]


async def wallets_among(connection: Connection, addresses: Sequence[str]) -> set[str]:
    """Which of these addresses are some merchant's wallet."""
    rows = await connection.fetch("SELECT wallet FROM merchants WHERE wallet = ANY($1::text[])", addresses)
    return {row["wallet"] for row in rows}


async def is_own_address(connection: Connection, address: str) -> bool:
    """Whether an order has this address for its own."""
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM orders WHERE deposit_address = $1 AND deposit_index IS NOT NULL)", address
        )
    )


async def insert_many(connection: Connection, items: Sequence[Addressed]) -> list[Order]:
    """Inserts orders with distinct keys. Returns what is new: known keys are missing from the answer."""
    rows = await connection.fetch(
        f"""
        WITH fresh AS (
            INSERT INTO orders AS o (id, merchant_id, asset, chain, amount_minor, customer_wallet, metadata,
                                     request_hash, created_block, deposit_index, deposit_address, created_at,
                                     expires_at)
            SELECT i.id, i.merchant_id, i.asset, i.chain, i.amount_minor, i.customer_wallet, i.metadata, i.request_hash,
                   i.block, i.index, i.address, now(), now() + i.ttl
            FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[],
                        $8::bytea[], $9::bigint[], $10::bigint[], $11::text[], $12::interval[])
                AS i(id, merchant_id, asset, chain, amount_minor, customer_wallet, metadata, request_hash, block, index,
                     address, ttl)
            ORDER BY i.id, i.merchant_id  -- two batches with the same keys must meet them in one order
            ON CONFLICT (id, merchant_id) DO NOTHING
            RETURNING {COLUMNS}
        ), counted AS (
            UPDATE counters SET value = value + (SELECT count(*) FROM fresh)
            WHERE name = 'orders_created' AND slot = pg_backend_pid() % 16
        )
        SELECT o.* FROM fresh o
        """,  # noqa: S608  # the columns are constants
        [item.order.id for item in items],
        [item.order.merchant_id for item in items],
        [item.order.asset for item in items],
        [item.order.chain for item in items],
        [item.order.amount_minor for item in items],
        [item.order.customer_wallet for item in items],
        [item.order.metadata for item in items],
        [item.request_hash for item in items],
        [item.block for item in items],
        [item.index for item in items],
        [item.address for item in items],
        [item.time_to_live for item in items],
    )
    return [read_order(row) for row in rows]
