"""Claims, and what the chain's word on them changes, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from kit.database import Connection
from orders.domain import Claim, ClaimState, Decision, Order
from orders.store.orders import CLAIM_COLUMNS, COLUMNS, read_claim, read_order

ClaimKey = tuple[str, str, str]


@dataclass(frozen=True)
class KnownClaim:
    """A claim as it was found."""

    state: ClaimState
    reason: str


async def share(connection: Connection, wanted: Sequence[tuple[str, str | None]]) -> list[tuple[Order, int]]:
    """The orders with these ids (of one merchant where given) and how many open claims each has.

    They are held, in the order of their keys, so that they cannot expire meanwhile.
    """
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS}, (
            SELECT count(*) FROM claims c WHERE c.order_id = o.id AND c.merchant_id = o.merchant_id AND c.state = 'OPEN'
        ) AS open_claims
        FROM unnest($1::text[], $2::text[]) AS w(id, merchant_id) CROSS JOIN LATERAL (
            SELECT id, merchant_id FROM orders
            WHERE id = w.id AND (w.merchant_id IS NULL OR merchant_id = w.merchant_id)
            LIMIT 2  -- more than one is ambiguous, however many there are
        ) k JOIN orders o ON o.id = k.id AND o.merchant_id = k.merchant_id
        ORDER BY o.id, o.merchant_id FOR SHARE OF o
        """,  # noqa: S608
        [order_id for order_id, _ in wanted],
        [merchant_id for _, merchant_id in wanted],
    )
    return [(read_order(row), row["open_claims"]) for row in rows]


async def known_claims(connection: Connection, asked: Sequence[ClaimKey]) -> dict[ClaimKey, KnownClaim]:
    """What is recorded of these (order id, merchant id, transaction hash)."""
    rows = await connection.fetch(
        """
        SELECT order_id, merchant_id, tx_hash, state, reason
        FROM unnest($1::text[], $2::text[], $3::text[]) AS k(order_id, merchant_id, tx_hash)
        JOIN claims USING (order_id, merchant_id, tx_hash)
        """,
        *_columns(asked),
    )
    return {
        (row["order_id"], row["merchant_id"], row["tx_hash"]): KnownClaim(ClaimState(row["state"]), row["reason"])
        for row in rows
    }


async def insert_claims(connection: Connection, asked: Sequence[ClaimKey]) -> dict[ClaimKey, tuple[UUID, datetime]]:
    """Records distinct claims. Returns the id and the time of those that are new jobs.

    A claim that was given up as not found becomes a new job; one the chain has refuted does not.
    """
    rows = await connection.fetch(
        """
        WITH fresh AS (
            INSERT INTO claims AS c (order_id, merchant_id, tx_hash)
            SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS k(order_id, merchant_id, tx_hash)
            ORDER BY order_id, merchant_id, tx_hash  -- two batches must meet the same keys in one order
            ON CONFLICT (order_id, merchant_id, tx_hash) DO UPDATE
                SET state = 'OPEN', reason = 'queued', updated_at = now()
                WHERE c.state = 'REJECTED' AND c.reason = 'given_up'
            RETURNING id, order_id, merchant_id, tx_hash, updated_at
        ), counted AS (
            UPDATE counters SET value = value + (SELECT count(*) FROM fresh)
            WHERE name = 'payments_detected' AND slot = pg_backend_pid() % 16
        )
        SELECT id, order_id, merchant_id, tx_hash, updated_at FROM fresh
        """,
        *_columns(asked),
    )
    return {(row["order_id"], row["merchant_id"], row["tx_hash"]): (row["id"], row["updated_at"]) for row in rows}


async def lock_claimed(connection: Connection, claim_ids: Sequence[UUID]) -> list[tuple[Claim, Order]]:
    """The open claims among these and their orders, the orders locked by (id, merchant id)."""
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS}, {CLAIM_COLUMNS}
        FROM claims c JOIN orders o ON o.id = c.order_id AND o.merchant_id = c.merchant_id
        WHERE c.id = ANY($1::uuid[]) AND c.state = 'OPEN'
        ORDER BY o.id, o.merchant_id, c.id FOR NO KEY UPDATE OF o
        """,  # noqa: S608
        claim_ids,
    )
    return [(read_claim(row), read_order(row)) for row in rows]


async def update_claims(connection: Connection, decisions: Sequence[tuple[UUID, Decision]]) -> None:
    """Writes what was decided of open claims."""
    await connection.execute(
        """
        UPDATE claims c SET state = d.state, reason = d.reason, confirming = d.confirming, seen_minor = d.seen_minor,
               confirmations = d.confirmations, block_number = d.block_number, updated_at = clock_timestamp()
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::boolean[], $5::bigint[], $6::bigint[], $7::bigint[])
            AS d(id, state, reason, confirming, seen_minor, confirmations, block_number)
        WHERE c.id = d.id AND c.state = 'OPEN'
        """,
        [claim_id for claim_id, _ in decisions],
        [decision.claim_state.value for _, decision in decisions],
        [decision.reason for _, decision in decisions],
        [decision.confirming for _, decision in decisions],
        [decision.seen_minor for _, decision in decisions],
        [decision.confirmations for _, decision in decisions],
        [decision.block_number for _, decision in decisions],
    )


def _columns(keys: Sequence[ClaimKey]) -> list[list[str]]:
    return [[key[column] for key in keys] for column in range(3)]
