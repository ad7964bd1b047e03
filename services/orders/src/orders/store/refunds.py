"""Refunds, and the transactions that prove them, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from asyncpg import Record

from kit.database import Connection
from orders.domain import Order, Refund, State, Transfer
from orders.proof import Proof, ProofState, Ruling, Shown
from orders.store.orders import COLUMNS, read_order

MAX_LISTED = 1000

# The payer of what an order has, null where there are several: anybody can send something to an order's own address,
# also before the customer does. And the block of the first payment: nothing before it can have been a refund. What came
# out of suspense beside another part of its transfer has no row among the payments.
_PAID = """SELECT min(block_number) AS block_number,
           CASE WHEN count(DISTINCT sender) FILTER (WHERE live) = 1 THEN min(sender) FILTER (WHERE live) END AS payer
    FROM (
        SELECT sender, block_number, state = 'CREDITED' AS live FROM payments
        WHERE order_id = r.order_id AND merchant_id = r.merchant_id
        UNION ALL
        SELECT sender, block_number, state = 'ALLOCATED' FROM suspense
        WHERE order_id = r.order_id AND merchant_id = r.merchant_id AND paid_event_id IS NOT NULL
    ) part"""
_SHOWN = f"""
    SELECT r.id, r.order_id, r.merchant_id, o.chain, o.asset, r.amount_minor, r.reason, r.created_at,
           coalesce(r.to_address, p.payer, '') AS to_address,
           coalesce(r.from_address, nullif(m.wallet, '')) AS from_address,
           coalesce(t.tx_hash, r.tx_hash) AS tx_hash, coalesce(t.attempt, 0) AS attempt, t.state,
           coalesce(t.reason, '') AS state_reason, t.confirmed_at
    FROM refunds r JOIN orders o ON o.id = r.order_id AND o.merchant_id = r.merchant_id
    JOIN merchants m ON m.id = r.merchant_id CROSS JOIN LATERAL ({_PAID}) p
    LEFT JOIN LATERAL (
        SELECT tx_hash, attempt, state, reason, confirmed_at FROM refund_proofs
        WHERE refund_id = r.id AND merchant_id = r.merchant_id ORDER BY attempt DESC LIMIT 1
    ) t ON true"""  # noqa: S608  # constants of this module


async def find(connection: Connection, merchant_id: str, refund_id: str) -> Refund | None:
    """One refund of a merchant, as it was recorded."""
    row = await connection.fetchrow(
        """
        SELECT id, order_id, merchant_id, request_hash, amount_minor, state_after, refunded_after
        FROM refunds WHERE id = $1 AND merchant_id = $2
        """,
        refund_id,
        merchant_id,
    )
    return _refund(row) if row else None


async def payer(connection: Connection, order: Order) -> str | None:
    """Who has paid what an order has, or None: several have."""
    found = await connection.fetchval(
        f"SELECT p.payer FROM (SELECT $1::text AS order_id, $2::text AS merchant_id) r CROSS JOIN LATERAL ({_PAID}) p",  # noqa: S608
        order.id,
        order.merchant_id,
    )
    assert found is None or isinstance(found, str), "the column is text"
    return found


async def insert(
    connection: Connection,
    refund: Refund,
    event_id: UUID,
    reason: str,
    tx_hash: str | None,
    to_address: str,
    from_address: str | None,
) -> datetime:
    """Records a refund; returns when. Errors: UniqueViolationError when the id is taken."""
    created_at = await connection.fetchval(
        """
        INSERT INTO refunds (id, merchant_id, order_id, event_id, request_hash, amount_minor, reason, tx_hash,
                             state_after, refunded_after, to_address, from_address)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        RETURNING created_at
        """,
        refund.id,
        refund.merchant_id,
        refund.order_id,
        event_id,
        refund.request_hash,
        refund.amount_minor,
        reason,
        tx_hash,
        refund.state_after.value,
        refund.refunded_after,
        to_address,
        from_address,
    )
    await connection.execute(
        "UPDATE counters SET value = value + 1 WHERE name = 'refunds_processed' AND slot = pg_backend_pid() % 16"
    )
    assert isinstance(created_at, datetime), "an insert without a conflict clause returns its row"
    return created_at


async def show(connection: Connection, merchant_id: str, refund_id: str) -> Shown | None:
    """One refund of a merchant, as it stands."""
    row = await connection.fetchrow(f"{_SHOWN} WHERE r.id = $1 AND r.merchant_id = $2", refund_id, merchant_id)
    return _shown(row) if row else None


async def show_all(connection: Connection, merchant_id: str, order_id: str) -> list[Shown]:
    """An order's refunds as they stand, oldest first, at most 1000."""
    rows = await connection.fetch(
        f"{_SHOWN} WHERE r.order_id = $1 AND r.merchant_id = $2 ORDER BY r.created_at, r.id LIMIT $3",
        order_id,
        merchant_id,
        MAX_LISTED,
    )
    return [_shown(row) for row in rows]


async def lock_order(connection: Connection, merchant_id: str, refund_id: str) -> Order | None:
    """The order of a refund, locked: whoever names a transaction for the refund meanwhile waits."""
    row = await connection.fetchrow(
        f"""
        SELECT {COLUMNS} FROM refunds r JOIN orders o ON o.id = r.order_id AND o.merchant_id = r.merchant_id
        WHERE r.id = $1 AND r.merchant_id = $2 FOR NO KEY UPDATE OF o
        """,  # noqa: S608
        refund_id,
        merchant_id,
    )
    return read_order(row) if row else None


async def insert_proof(
    connection: Connection, merchant_id: str, refund_id: str, attempt: int, tx_hash: str
) -> tuple[UUID, UUID, datetime]:
    """Names a transaction. Returns (claim id, debt id, when). Errors: UniqueViolationError when another one stands."""
    row = await connection.fetchrow(
        """
        INSERT INTO refund_proofs (refund_id, merchant_id, attempt, tx_hash) VALUES ($1, $2, $3, $4)
        RETURNING claim_id, debt_id, created_at
        """,
        refund_id,
        merchant_id,
        attempt,
        tx_hash,
    )
    assert row is not None, "an insert without a conflict clause returns its row"
    return row["claim_id"], row["debt_id"], row["created_at"]


async def lock_proofs(connection: Connection, claim_ids: Sequence[UUID]) -> list[Proof]:
    """The open proofs among these, locked in the order of their ids."""
    rows = await connection.fetch(
        f"""
        SELECT t.claim_id, t.debt_id, t.refund_id, t.merchant_id, r.amount_minor,
               coalesce(r.to_address, p.payer, '') AS to_address,
               coalesce(r.from_address, nullif(m.wallet, '')) AS from_address,
               nullif(m.wallet, '') AS wallet, o.deposit_address, p.block_number AS paid_block
        FROM refund_proofs t JOIN refunds r ON r.id = t.refund_id AND r.merchant_id = t.merchant_id
        JOIN orders o ON o.id = r.order_id AND o.merchant_id = r.merchant_id
        JOIN merchants m ON m.id = r.merchant_id CROSS JOIN LATERAL ({_PAID}) p
        WHERE t.claim_id = ANY($1::uuid[]) AND t.state = 'OPEN'
        ORDER BY t.claim_id FOR NO KEY UPDATE OF t
        """,  # noqa: S608
        claim_ids,
    )
    return [Proof(**dict(row)) for row in rows]


async def lock_transactions(connection: Connection, tx_hashes: Sequence[str]) -> None:
    """Locks transactions, given in order, for what they prove.

    Of one that sent an item of suspense back and is to prove a refund, whoever is second then sees the first. No
    constraint would tell: what is known of a return is the hash.
    """
    # The second argument keeps these locks apart from others.
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(tx_hash, 3)) FROM unnest($1::text[]) AS t(tx_hash)", tx_hashes
    )


async def is_proof(connection: Connection, tx_hash: str) -> bool:
    """Whether a transfer of this transaction proves a refund, of any merchant."""
    return bool(await connection.fetchval("SELECT count(*) FROM refund_transfers WHERE tx_hash = $1", tx_hash))


async def used_transfers(
    connection: Connection, tx_hashes: Sequence[str]
) -> set[tuple[str | None, tuple[int, str, int]]]:
    """The transfers of these transactions that prove a refund, of any merchant; with a merchant, those that paid it."""
    rows = await connection.fetch(
        """
        SELECT NULL AS merchant_id, chain_id, tx_hash, log_index
        FROM unnest($1::text[]) AS t(hash) CROSS JOIN LATERAL (
            SELECT chain_id, tx_hash, log_index FROM refund_transfers WHERE tx_hash = t.hash OFFSET 0
        ) r
        UNION ALL
        SELECT merchant_id, chain_id, tx_hash, log_index
        FROM unnest($1::text[]) AS t(hash) CROSS JOIN LATERAL (
            SELECT merchant_id, chain_id, tx_hash, log_index FROM payments WHERE tx_hash = t.hash OFFSET 0
        ) p
        """,
        tx_hashes,
    )
    return {(row["merchant_id"], (row["chain_id"], row["tx_hash"], row["log_index"])) for row in rows}


async def update_proofs(connection: Connection, rulings: Sequence[tuple[Proof, Ruling]]) -> None:
    """OPEN → OPEN, CONFIRMED or REFUTED."""
    await connection.execute(
        """
        UPDATE refund_proofs t SET state = d.state, reason = d.reason, updated_at = clock_timestamp(),
               confirmed_at = CASE WHEN d.state = 'CONFIRMED' THEN clock_timestamp() END
        FROM unnest($1::uuid[], $2::text[], $3::text[]) AS d(claim_id, state, reason)
        WHERE t.claim_id = d.claim_id AND t.state = 'OPEN'
        """,
        [proof.claim_id for proof, _ in rulings],
        [ruling.state.value for _, ruling in rulings],
        [ruling.reason for _, ruling in rulings],
    )


async def insert_transfers(connection: Connection, confirmed: Sequence[tuple[Proof, Transfer]]) -> None:
    """Records which transfer proves which refund. Errors: UniqueViolationError when one proves a refund already."""
    # Two batches must meet the same keys in one order.
    rows = sorted(confirmed, key=lambda item: item[1].key)
    await connection.execute(
        """
        INSERT INTO refund_transfers (claim_id, refund_id, merchant_id, chain_id, tx_hash, log_index, amount_base,
                                      amount_minor, sender, block_number, block_hash, block_time)
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bigint[],
                             $7::numeric[], $8::bigint[], $9::text[], $10::bigint[], $11::text[], $12::timestamptz[])
        """,
        [proof.claim_id for proof, _ in rows],
        [proof.refund_id for proof, _ in rows],
        [proof.merchant_id for proof, _ in rows],
        [item.chain_id for _, item in rows],
        [item.tx_hash for _, item in rows],
        [item.log_index for _, item in rows],
        [item.amount_base for _, item in rows],
        [item.amount_minor for _, item in rows],
        [item.sender for _, item in rows],
        [item.block_number for _, item in rows],
        [item.block_hash for _, item in rows],
        [item.block_time for _, item in rows],
    )


def _refund(row: Record) -> Refund:
    return Refund(
        id=row["id"],
        order_id=row["order_id"],
        merchant_id=row["merchant_id"],
        request_hash=row["request_hash"],
        amount_minor=row["amount_minor"],
        state_after=State(row["state_after"]),
        refunded_after=row["refunded_after"],
    )


def _shown(row: Record) -> Shown:
    return Shown(**{**dict(row), "state": ProofState(row["state"]) if row["state"] else None})
