"""Claims, and what the chain's word on them changes, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from kit.database import Connection
from orders.domain import Claim, ClaimState, Decision, Order, Transfer
from orders.store.orders import CLAIM_COLUMNS, COLUMNS, changed, read_claim, read_order


async def share_by_id(connection: Connection, order_id: str, merchant_id: str | None) -> list[Order]:
    """At most two orders of this id (of one merchant when given), held so that they cannot expire meanwhile."""
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS} FROM orders o
        WHERE id = $1 AND ($2::text IS NULL OR merchant_id = $2) LIMIT 2 FOR SHARE
        """,  # noqa: S608
        order_id,
        merchant_id,
    )
    return [read_order(row) for row in rows]


async def claim(connection: Connection, order: Order, tx_hash: str, max_open: int) -> tuple[UUID, ClaimState, bool]:
    """Records a claim. Returns its id, its state and whether it is a new job.

    A claim that was given up as not found becomes a new job; one the chain has refuted does not.
    Errors: LookupError when the order has `max_open` open claims already.
    """
    row = await connection.fetchrow(
        """
        INSERT INTO claims AS c (order_id, merchant_id, tx_hash)
        SELECT $1, $2, $3
        WHERE (SELECT count(*) FROM claims
               WHERE order_id = $1 AND merchant_id = $2 AND state = 'OPEN' AND tx_hash <> $3) < $4
        ON CONFLICT (order_id, merchant_id, tx_hash) DO UPDATE
            SET state = 'OPEN', reason = 'queued', updated_at = now()
            WHERE c.state = 'REJECTED' AND c.reason = 'given_up'
        RETURNING id
        """,
        order.id,
        order.merchant_id,
        tx_hash,
        max_open,
    )
    if row:
        await connection.execute(
            "UPDATE counters SET value = value + 1 WHERE name = 'payments_detected' AND slot = pg_backend_pid() % 16"
        )
        return row["id"], ClaimState.OPEN, True
    known = await connection.fetchrow(
        "SELECT id, state FROM claims WHERE order_id = $1 AND merchant_id = $2 AND tx_hash = $3",
        order.id,
        order.merchant_id,
        tx_hash,
    )
    if known is None:
        raise LookupError("too many open claims")
    return known["id"], ClaimState(known["state"]), False


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


async def used_transfers(connection: Connection, tx_hashes: Sequence[str]) -> set[tuple[int, str, int]]:
    """The transfers of these transactions that have paid an order."""
    rows = await connection.fetch(
        "SELECT chain_id, tx_hash, log_index FROM payments WHERE tx_hash = ANY($1::text[])", tx_hashes
    )
    return {(row["chain_id"], row["tx_hash"], row["log_index"]) for row in rows}


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


async def insert_payments(connection: Connection, paid: Sequence[tuple[Order, Transfer, UUID]]) -> None:
    """Records which transfer paid which order. Errors: UniqueViolationError when a transfer has paid already."""
    await connection.execute(
        """
        INSERT INTO payments (order_id, merchant_id, event_id, chain_id, tx_hash, log_index, amount_base, amount_minor,
                              sender, block_number, block_hash, block_time)
        SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[], $5::text[], $6::bigint[], $7::numeric[],
                             $8::bigint[], $9::text[], $10::bigint[], $11::text[], $12::timestamptz[])
        """,
        [order.id for order, _, _ in paid],
        [order.merchant_id for order, _, _ in paid],
        [event_id for _, _, event_id in paid],
        *_transfer_arrays([transfer for _, transfer, _ in paid]),
    )


async def insert_late(connection: Connection, late: Sequence[tuple[Order, Transfer]]) -> None:
    """Records money that came too late, once per transfer. It can still pay another order that it fits."""
    await connection.execute(
        """
        WITH recorded AS (
            INSERT INTO late_payments (order_id, merchant_id, chain_id, tx_hash, log_index, amount_base, amount_minor,
                                       sender, block_number, block_hash, block_time)
            SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::numeric[],
                                 $7::bigint[], $8::text[], $9::bigint[], $10::text[], $11::timestamptz[])
            ON CONFLICT DO NOTHING
            RETURNING order_id, merchant_id, amount_minor
        )
        UPDATE orders o SET late_minor = o.late_minor + l.amount_minor
        FROM (SELECT order_id, merchant_id, sum(amount_minor)::bigint AS amount_minor FROM recorded GROUP BY 1, 2) l
        WHERE o.id = l.order_id AND o.merchant_id = l.merchant_id
        """,
        [order.id for order, _ in late],
        [order.merchant_id for order, _ in late],
        *_transfer_arrays([transfer for _, transfer in late]),
    )


async def mark_paid(connection: Connection, paid: Sequence[tuple[Order, Transfer]]) -> int:
    """PENDING or CONFIRMING → PAID. Returns how many orders changed."""
    status = await connection.execute(
        """
        UPDATE orders o SET state = 'PAID', received_minor = p.amount_minor, tx_hash = p.tx_hash, paid_at = now()
        FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) AS p(id, merchant_id, amount_minor, tx_hash)
        WHERE o.id = p.id AND o.merchant_id = p.merchant_id AND o.state IN ('PENDING', 'CONFIRMING')
        """,
        [order.id for order, _ in paid],
        [order.merchant_id for order, _ in paid],
        [transfer.amount_minor for _, transfer in paid],
        [transfer.tx_hash for _, transfer in paid],
    )
    return changed(status)


async def follow_claims(connection: Connection, orders: Sequence[Order]) -> None:
    """PENDING ↔ CONFIRMING, as the open claims of these orders say."""
    await connection.execute(
        """
        UPDATE orders o SET state = n.state
        FROM (
            SELECT k.id, k.merchant_id, CASE WHEN EXISTS (
                SELECT FROM claims c WHERE c.order_id = k.id AND c.merchant_id = k.merchant_id AND c.confirming
            ) THEN 'CONFIRMING' ELSE 'PENDING' END AS state
            FROM unnest($1::text[], $2::text[]) AS k(id, merchant_id)
        ) n
        WHERE o.id = n.id AND o.merchant_id = n.merchant_id
          AND o.state IN ('PENDING', 'CONFIRMING') AND o.state <> n.state
        """,
        [order.id for order in orders],
        [order.merchant_id for order in orders],
    )


def _transfer_arrays(transfers: Sequence[Transfer]) -> list[list[object]]:
    return [
        [item.chain_id for item in transfers],
        [item.tx_hash for item in transfers],
        [item.log_index for item in transfers],
        [item.amount_base for item in transfers],
        [item.amount_minor for item in transfers],
        [item.sender for item in transfers],
        [item.block_number for item in transfers],
        [item.block_hash for item in transfers],
        [item.block_time for item in transfers],
    ]
