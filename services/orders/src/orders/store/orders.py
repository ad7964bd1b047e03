"""Orders in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from asyncpg import Record

from kit.database import Connection
from orders.domain import (
    Claim,
    ClaimState,
    Confirming,
    Due,
    NewOrder,
    Order,
    OrderKey,
    Page,
    State,
)

COLUMNS = """o.id, o.merchant_id, o.asset, o.chain, o.amount_minor, o.customer_wallet, o.deposit_address, o.metadata,
    o.request_hash, o.created_block, o.state, o.received_minor, o.refunded_minor, o.late_minor, o.tx_hash, o.paid_at,
    o.created_at, o.expires_at, o.settled_at, o.settlement_batch_id, o.deposit_index, o.reversed_minor,
    o.surplus_minor"""
CLAIM_COLUMNS = """c.id AS claim_id, c.tx_hash AS claim_tx_hash, c.state AS claim_state, c.reason AS claim_reason,
    c.confirming AS claim_confirming, c.seen_minor AS claim_seen_minor, c.confirmations AS claim_confirmations,
    c.block_number AS claim_block_number, c.updated_at AS claim_updated_at"""
_LAST_CLAIM = """LEFT JOIN LATERAL (
        SELECT id, tx_hash, state, reason, confirming, seen_minor, confirmations, block_number, updated_at FROM claims
        WHERE order_id = o.id AND merchant_id = o.merchant_id ORDER BY updated_at DESC, id DESC LIMIT 1
    ) c ON true"""
# An order is held while a transfer or a claim on it is confirming, or a claim has not been looked at yet.
# With OFFSET a sub-select stays one, looked up for each order, and is not made a join with all claims.
_FREE = """NOT EXISTS (
        SELECT FROM claims c WHERE c.order_id = k.id AND c.merchant_id = k.merchant_id AND c.state = 'OPEN'
          AND (c.confirming OR c.reason IN ('queued', 'chain_unavailable')) OFFSET 0
    ) AND NOT EXISTS (
        SELECT FROM sightings s WHERE s.order_id = k.id AND s.merchant_id = k.merchant_id AND s.confirming OFFSET 0
    )"""


async def insert_many(
    connection: Connection, items: Sequence[tuple[NewOrder, bytes, timedelta, int | None]]
) -> list[Order]:
    """Inserts (order, request hash, time to live, height) rows with distinct keys, paid at the merchants' wallets.

    Returns what is new: known keys, unknown merchants and those without a wallet are missing from the answer.
    """
    rows = await connection.fetch(
        f"""
        WITH item AS (
            SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[],
                                 $8::bytea[], $9::interval[], $10::bigint[])
            AS t(id, merchant_id, asset, chain, amount_minor, customer_wallet, metadata, request_hash, ttl, block)
        ), fresh AS (
            INSERT INTO orders AS o (id, merchant_id, asset, chain, amount_minor, customer_wallet, deposit_address,
                                     metadata, request_hash, created_block, created_at, expires_at)
            SELECT i.id, i.merchant_id, i.asset, i.chain, i.amount_minor, i.customer_wallet, m.wallet,
                   i.metadata, i.request_hash, i.block, now(), now() + i.ttl
            FROM item i JOIN merchants m ON m.id = i.merchant_id AND m.wallet IS NOT NULL
            ORDER BY i.id, i.merchant_id  -- two batches with the same keys must meet them in one order
            ON CONFLICT (id, merchant_id) DO NOTHING
            RETURNING {COLUMNS}
        ), counted AS (
            UPDATE counters SET value = value + (SELECT count(*) FROM fresh)
            WHERE name = 'orders_created' AND slot = pg_backend_pid() % 16
        )
        SELECT o.* FROM fresh o
        """,  # noqa: S608  # the columns are constants of this module
        [order.id for order, _, _, _ in items],
        [order.merchant_id for order, _, _, _ in items],
        [order.asset for order, _, _, _ in items],
        [order.chain for order, _, _, _ in items],
        [order.amount_minor for order, _, _, _ in items],
        [order.customer_wallet for order, _, _, _ in items],
        [order.metadata for order, _, _, _ in items],
        [request_hash for _, request_hash, _, _ in items],
        [ttl for _, _, ttl, _ in items],
        [block for _, _, _, block in items],
    )
    return [read_order(row) for row in rows]


async def find_many(connection: Connection, keys: Sequence[OrderKey]) -> list[Order]:
    """The orders with these (id, merchant id) keys, with their last claim."""
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS}, {CLAIM_COLUMNS}
        FROM unnest($1::text[], $2::text[]) AS k(id, merchant_id)
        JOIN orders o USING (id, merchant_id) {_LAST_CLAIM}
        """,  # noqa: S608
        [order_id for order_id, _ in keys],
        [merchant_id for _, merchant_id in keys],
    )
    return [read_order(row) for row in rows]


async def find(connection: Connection, merchant_id: str, order_id: str) -> Order | None:
    """One order of a merchant, with its last claim."""
    found = await find_many(connection, [(order_id, merchant_id)])
    return found[0] if found else None


async def lock(connection: Connection, merchant_id: str, order_id: str) -> Order | None:
    """One order, locked for a change."""
    row = await connection.fetchrow(
        f"SELECT {COLUMNS} FROM orders o WHERE id = $1 AND merchant_id = $2 FOR NO KEY UPDATE",  # noqa: S608
        order_id,
        merchant_id,
    )
    return read_order(row) if row else None


async def list_page(
    connection: Connection, merchant_id: str, state: State | None, after: Page | None, limit: int
) -> list[Order]:
    """The newest orders of a merchant before a position. Each state is one index scan; the few rows are merged."""
    states = [state.value] if state else [item.value for item in State]
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS}, {CLAIM_COLUMNS}
        FROM (
            SELECT o.* FROM unnest($2::text[]) AS s(state) CROSS JOIN LATERAL (
                SELECT * FROM orders
                WHERE merchant_id = $1 AND orders.state = s.state
                  AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4))
                ORDER BY created_at DESC, id DESC LIMIT $5
            ) o ORDER BY o.created_at DESC, o.id DESC LIMIT $5
        ) o {_LAST_CLAIM}
        ORDER BY o.created_at DESC, o.id DESC
        """,  # noqa: S608
        merchant_id,
        states,
        after.created_at if after else None,
        after.id if after else None,
        limit,
    )
    return [read_order(row) for row in rows]


async def due(
    connection: Connection, margin: timedelta, but_on: Sequence[str], after: Due | None, limit: int
) -> list[Due]:
    """Open orders that are past their time and more, and free to expire, the longest due first, after `after`.

    Those on the chains `but_on` are left out.
    """
    rows = await connection.fetch(
        f"""
        SELECT k.id, k.merchant_id, k.chain, k.asset, k.deposit_address AS address,
               k.deposit_index IS NOT NULL AS is_own, k.created_block, k.created_at, k.expires_at
        FROM orders k
        WHERE k.state IN ('PENDING', 'CONFIRMING') AND k.expires_at <= now() - $1::interval AND k.chain <> ALL($2)
          AND ($3::timestamptz IS NULL OR (k.expires_at, k.id, k.merchant_id) > ($3, $4, $5)) AND {_FREE}
        ORDER BY k.expires_at, k.id, k.merchant_id LIMIT $6
        """,  # noqa: S608
        margin,
        but_on,
        after.expires_at if after else None,
        after.id if after else None,
        after.merchant_id if after else None,
        limit,
    )
    return [Due(**dict(row)) for row in rows]


async def lock_open(connection: Connection, keys: Sequence[OrderKey]) -> list[OrderKey]:
    """Those of these orders that are still open, locked; without those that others lock."""
    rows = await connection.fetch(
        """
        SELECT k.id, k.merchant_id FROM unnest($1::text[], $2::text[]) AS k(id, merchant_id)
        JOIN orders o USING (id, merchant_id)
        WHERE (o.state IN ('PENDING', 'CONFIRMING')) IS TRUE FOR NO KEY UPDATE OF o SKIP LOCKED
        """,
        [order_id for order_id, _ in keys],
        [merchant_id for _, merchant_id in keys],
    )
    return [(row["id"], row["merchant_id"]) for row in rows]


async def expire(connection: Connection, keys: Sequence[OrderKey]) -> None:
    """PENDING or CONFIRMING → EXPIRED, for orders from `lock_open` that are still free to expire."""
    await connection.execute(
        f"""
        WITH due AS MATERIALIZED (
            SELECT k.id, k.merchant_id FROM unnest($1::text[], $2::text[]) AS k(id, merchant_id) WHERE {_FREE}
        )
        UPDATE orders o SET state = 'EXPIRED' FROM due d
        WHERE o.id = d.id AND o.merchant_id = d.merchant_id AND (o.state IN ('PENDING', 'CONFIRMING')) IS TRUE
        """,  # noqa: S608
        [order_id for order_id, _ in keys],
        [merchant_id for _, merchant_id in keys],
    )


async def lock_many(connection: Connection, keys: Iterable[OrderKey]) -> list[Order]:
    """The orders with these keys, locked in the order of their keys."""
    wanted = sorted(set(keys))
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS}
        FROM unnest($1::text[], $2::text[]) AS k(id, merchant_id) JOIN orders o USING (id, merchant_id)
        ORDER BY o.id, o.merchant_id FOR NO KEY UPDATE OF o
        """,  # noqa: S608
        [order_id for order_id, _ in wanted],
        [merchant_id for _, merchant_id in wanted],
    )
    return [read_order(row) for row in rows]


async def follow(connection: Connection, orders: Mapping[OrderKey, bool]) -> None:
    """PENDING ↔ CONFIRMING: True where an order is known to wait for something, else as the open claims on it and the
    transfers that were found for it say."""
    await connection.execute(
        """
        -- Looked at once: a sub-select in a join is put into the filter and into what is written.
        WITH n AS MATERIALIZED (
            SELECT k.id, k.merchant_id, CASE WHEN k.waits OR EXISTS (
                SELECT FROM claims c WHERE c.order_id = k.id AND c.merchant_id = k.merchant_id AND c.confirming
            ) OR EXISTS (
                SELECT FROM sightings s WHERE s.order_id = k.id AND s.merchant_id = k.merchant_id AND s.confirming
            ) THEN 'CONFIRMING' ELSE 'PENDING' END AS state
            FROM unnest($1::text[], $2::text[], $3::boolean[]) AS k(id, merchant_id, waits)
        )
        UPDATE orders o SET state = n.state FROM n
        WHERE o.id = n.id AND o.merchant_id = n.merchant_id
          AND (o.state IN ('PENDING', 'CONFIRMING') AND o.state <> n.state) IS TRUE
        """,
        [order_id for order_id, _ in orders],
        [merchant_id for _, merchant_id in orders],
        list(orders.values()),
    )


async def confirming(connection: Connection, keys: Sequence[OrderKey]) -> dict[OrderKey, Confirming]:
    """The lowest transfer that each of these orders waits for, as it was last looked at."""
    rows = await connection.fetch(
        """
        SELECT k.id, k.merchant_id, w.tx_hash, w.amount_minor, w.block_number, w.confirmations
        FROM unnest($1::text[], $2::text[]) AS k(id, merchant_id) CROSS JOIN LATERAL (
            SELECT tx_hash, amount_minor, block_number, coalesce(confirmations, 0) AS confirmations FROM sightings s
            WHERE s.order_id = k.id AND s.merchant_id = k.merchant_id AND s.confirming
            UNION ALL
            SELECT tx_hash, coalesce(seen_minor, 0), coalesce(block_number, 0), coalesce(confirmations, 0) FROM claims c
            WHERE c.order_id = k.id AND c.merchant_id = k.merchant_id AND c.confirming
            ORDER BY block_number, tx_hash LIMIT 1
        ) w
        """,
        [order_id for order_id, _ in keys],
        [merchant_id for _, merchant_id in keys],
    )
    return {
        (row["id"], row["merchant_id"]): Confirming(
            row["tx_hash"], row["amount_minor"], row["block_number"], row["confirmations"]
        )
        for row in rows
    }


async def count_reversed(connection: Connection) -> int:
    """PAID orders of which the chain took back a payment: they wait for the operator."""
    return int(await connection.fetchval("SELECT count(*) FROM orders WHERE reversed_minor > 0 AND state = 'PAID'"))


async def mark_refunded(connection: Connection, order: Order, amount_minor: int, state: State) -> None:
    """PAID → PAID or REFUNDED; the row is locked by the caller."""
    status = await connection.execute(
        """
        UPDATE orders SET refunded_minor = refunded_minor + $3, state = $4
        WHERE id = $1 AND merchant_id = $2 AND state = 'PAID' AND refunded_minor = $5
        """,
        order.id,
        order.merchant_id,
        amount_minor,
        state.value,
        order.refunded_minor,
    )
    assert changed(status) == 1, "the row was locked as PAID"


async def counts(connection: Connection, merchant_id: str, asset: str) -> tuple[int, int]:
    """(unsettled PAID orders, postings in flight); both are short partial indexes."""
    row = await connection.fetchrow(
        """
        SELECT (SELECT count(*) FROM orders WHERE merchant_id = $1 AND asset = $2 AND state = 'PAID') AS unsettled,
               (SELECT count(*) FROM outbox WHERE merchant_id = $1 AND asset = $2
                  AND subject <> 'ospay.orders.v1.payment_claimed'
                  AND subject <> 'ospay.orders.v1.address_watched') AS in_flight
        """,
        merchant_id,
        asset,
    )
    assert row is not None, "a SELECT without FROM has one row"
    return row["unsettled"], row["in_flight"]


async def totals(connection: Connection) -> dict[str, int]:
    """The system's counters."""
    rows = await connection.fetch("SELECT name, sum(value)::bigint AS value FROM counters GROUP BY name")
    return {row["name"]: row["value"] for row in rows}


def changed(status: str) -> int:
    """The row count of a command tag."""
    return int(status.rpartition(" ")[2])


def read_order(row: Record) -> Order:
    """An order from `COLUMNS`, with its claim where `CLAIM_COLUMNS` are there as well."""
    has_claim = "claim_id" in row and row["claim_id"] is not None
    return Order(
        id=row["id"],
        merchant_id=row["merchant_id"],
        asset=row["asset"],
        chain=row["chain"],
        amount_minor=row["amount_minor"],
        customer_wallet=row["customer_wallet"],
        deposit_address=row["deposit_address"],
        metadata=row["metadata"],
        request_hash=row["request_hash"],
        created_block=row["created_block"],
        state=State(row["state"]),
        received_minor=row["received_minor"],
        refunded_minor=row["refunded_minor"],
        late_minor=row["late_minor"],
        tx_hash=row["tx_hash"],
        paid_at=row["paid_at"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        settled_at=row["settled_at"],
        settlement_batch_id=row["settlement_batch_id"],
        deposit_index=row["deposit_index"],
        reversed_minor=row["reversed_minor"],
        surplus_minor=row["surplus_minor"],
        last_claim=read_claim(row) if has_claim else None,
    )


def read_claim(row: Record) -> Claim:
    """A claim from `CLAIM_COLUMNS`."""
    return Claim(
        id=row["claim_id"],
        tx_hash=row["claim_tx_hash"],
        state=ClaimState(row["claim_state"]),
        reason=row["claim_reason"],
        confirming=row["claim_confirming"],
        seen_minor=row["claim_seen_minor"],
        confirmations=row["claim_confirmations"],
        block_number=row["claim_block_number"],
        updated_at=row["claim_updated_at"],
    )
