"""Settlement in PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from kit.database import Connection
from orders.domain import SettlementBatch


async def settle(connection: Connection, delay: timedelta, limit: int) -> int:
    """PAID → SETTLED for at most `limit` orders paid at least `delay` ago, with a batch per merchant and asset.

    An order of which the chain took back a payment is left to the operator.
    Any number of replicas may call it at once: each takes the rows that no other holds. Returns how many settled.
    """
    return int(
        await connection.fetchval(
            """
            WITH due AS (
                SELECT id, merchant_id, asset, received_minor - refunded_minor AS net_minor FROM orders
                WHERE state = 'PAID' AND reversed_minor = 0 AND paid_at <= now() - $1::interval
                ORDER BY paid_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
            ), batch AS (
                INSERT INTO settlement_batches (merchant_id, asset, order_count, total_minor)
                SELECT merchant_id, asset, count(*), sum(net_minor) FROM due GROUP BY merchant_id, asset
                RETURNING id, merchant_id, asset
            ), settled AS (
                UPDATE orders o SET state = 'SETTLED', settled_at = now(), settlement_batch_id = b.id
                FROM due d JOIN batch b USING (merchant_id, asset)
                WHERE o.id = d.id AND o.merchant_id = d.merchant_id AND (o.state = 'PAID') IS TRUE
                RETURNING 1
            )
            SELECT count(*) FROM settled
            """,
            delay,
            limit,
        )
    )


async def list_batches(
    connection: Connection, merchant_id: str, after: UUID | None, limit: int
) -> list[SettlementBatch]:
    """Settlement batches of a merchant, newest first (a UUIDv7 sorts by its time)."""
    rows = await connection.fetch(
        """
        SELECT id, merchant_id, asset, order_count, total_minor, created_at FROM settlement_batches
        WHERE merchant_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3
        """,
        merchant_id,
        after,
        limit,
    )
    return [SettlementBatch(**dict(row)) for row in rows]
