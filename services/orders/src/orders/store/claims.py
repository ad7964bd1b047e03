"""Claims, and what the chain's word on them changes, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from kit.database import Connection
from orders.domain import ClaimState, Debt, Decision, Order
from orders.store.found import WALLET_LOCK
from orders.store.orders import COLUMNS, read_order
from orders.store.outbox import CLOSE, OWE, owe_arguments

ClaimKey = tuple[str, str, str]


@dataclass(frozen=True)
class Candidate:
    """An order that the claim at `place` of those asked for may mean, and that claim: with its state where it is known.
    `claim_id` is new, for the case that it becomes a job."""

    place: int
    order: Order
    open_claims: int
    claims: int
    claim_id: UUID
    state: ClaimState | None
    reason: str
    asked_at: datetime


async def share(connection: Connection, asked: Sequence[tuple[str, str | None, str]]) -> list[Candidate]:
    """What is known of each (order id, merchant id where given, transaction hash): two rows where the id is ambiguous.

    The orders are held, in the order of their keys, so that they cannot expire meanwhile.
    """
    rows = await connection.fetch(
        f"""
        SELECT {COLUMNS}, (
            SELECT ARRAY[count(*) FILTER (WHERE c.state = 'OPEN'), count(*)]
            FROM claims c WHERE c.order_id = o.id AND c.merchant_id = o.merchant_id
        ) AS open_and_all, w.n, uuidv7() AS job_id, c.state AS job_state, c.reason AS job_reason,
        now() AS asked_at
        FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w(id, merchant_id, tx_hash, n)
        CROSS JOIN LATERAL (
            -- Without a merchant more than one is ambiguous, however many there are.
            (SELECT id, merchant_id FROM orders WHERE id = w.id AND w.merchant_id IS NULL LIMIT 2)
            UNION ALL
            (SELECT id, merchant_id FROM orders WHERE id = w.id AND merchant_id = w.merchant_id)
        ) k JOIN orders o ON o.id = k.id AND o.merchant_id = k.merchant_id
        LEFT JOIN claims c ON c.order_id = k.id AND c.merchant_id = k.merchant_id AND c.tx_hash = w.tx_hash
        ORDER BY o.id, o.merchant_id FOR SHARE OF o
        """,  # noqa: S608
        *_columns(asked),
    )
    return [
        Candidate(
            place=row["n"] - 1,
            order=read_order(row),
            open_claims=row["open_and_all"][0],
            claims=row["open_and_all"][1],
            claim_id=row["job_id"],
            state=ClaimState(row["job_state"]) if row["job_state"] else None,
            reason=row["job_reason"] or "",
            asked_at=row["asked_at"],
        )
        for row in rows
    ]


async def insert(
    connection: Connection, asked: Sequence[ClaimKey], debts: Sequence[Debt], first_look: timedelta
) -> set[UUID]:
    """Records distinct claims, each with the debt that has its id. Returns the ids of those that are new jobs.

    A claim that was given up as not found becomes a new job; one the chain has refuted does not. It then has another
    id: what is still told of it as it was, with the time to give up of before, is told of no claim that there is.
    """
    rows = await connection.fetch(
        f"""
        WITH fresh AS (
            INSERT INTO claims AS c (id, order_id, merchant_id, tx_hash)
            SELECT * FROM unnest($1::uuid[], $7::text[], $8::text[], $9::text[])
                AS k(id, order_id, merchant_id, tx_hash)
            ORDER BY order_id, merchant_id, tx_hash  -- two batches must meet the same keys in one order
            ON CONFLICT (order_id, merchant_id, tx_hash) DO UPDATE
                SET id = excluded.id, state = 'OPEN', reason = 'queued', updated_at = now()
                WHERE c.state = 'REJECTED' AND c.reason = 'given_up'
            RETURNING id
        ), owed AS (
            {OWE} JOIN fresh ON fresh.id = d.event_id ON CONFLICT (event_id) DO NOTHING
        ), counted AS (
            UPDATE counters SET value = value + (SELECT count(*) FROM fresh)
            WHERE name = 'payments_detected' AND slot = pg_backend_pid() % 16
        )
        SELECT id FROM fresh
        """,  # noqa: S608
        *owe_arguments(debts, first_look),
        *_columns(asked),
    )
    return {row["id"] for row in rows}


async def lock_claimed(
    connection: Connection, claim_ids: Sequence[UUID], final: Sequence[UUID]
) -> list[tuple[UUID, str, Order]]:
    """(id, transaction hash, order) of the open claims among these, the orders locked by (id, merchant id).

    Before that it keeps reports on the wallets of the claims in `final` away; other claims on them go on.
    """
    rows = await connection.fetch(
        f"""
        WITH held AS MATERIALIZED (
            SELECT pg_advisory_xact_lock_shared({WALLET_LOCK}) FROM (
                SELECT DISTINCT o.deposit_address AS wallet
                FROM claims c JOIN orders o ON o.id = c.order_id AND o.merchant_id = c.merchant_id
                WHERE c.id = ANY($2::uuid[]) AND (c.state = 'OPEN') IS TRUE AND o.deposit_index IS NULL
                ORDER BY wallet
            ) w
        )
        SELECT {COLUMNS}, c.id AS job_id, c.tx_hash AS claimed_hash
        -- Counted, so that all wallets are held before there is a row to lock.
        FROM (SELECT count(*) FROM held) h CROSS JOIN claims c
        JOIN orders o ON o.id = c.order_id AND o.merchant_id = c.merchant_id
        WHERE c.id = ANY($1::uuid[]) AND (c.state = 'OPEN') IS TRUE AND h.count >= 0
        ORDER BY o.id, o.merchant_id, c.id FOR NO KEY UPDATE OF o
        """,  # noqa: S608
        claim_ids,
        final,
    )
    return [(row["job_id"], row["claimed_hash"], read_order(row)) for row in rows]


async def lock_rivals(connection: Connection, tx_hashes: Sequence[str]) -> None:
    """Locks all open claims on these transactions, given in order.

    Of two that are decided at once the second then sees what the first has paid. Left to the key of the payments, two
    batches with two transactions in common could wait for one another.
    """
    await connection.execute(
        """
        SELECT count(*) FROM unnest($1::text[]) AS t(tx_hash) CROSS JOIN LATERAL (
            SELECT id FROM claims WHERE tx_hash = t.tx_hash AND state = 'OPEN' ORDER BY id FOR NO KEY UPDATE
        ) c
        """,
        tx_hashes,
    )


async def update_claims(
    connection: Connection, decisions: Sequence[tuple[UUID, Decision]], closed: Sequence[UUID]
) -> None:
    """Writes what was decided of open claims, and closes debts.

    Where a claim is to wait on and a transfer was seen for it, only a look at a later head may say that there is none.
    """
    await connection.execute(
        f"""
        WITH closed AS ({CLOSE})
        UPDATE claims c SET state = d.state, reason = d.reason, confirming = d.confirming, seen_minor = d.seen_minor,
               confirmations = d.confirmations, block_number = d.block_number, updated_at = clock_timestamp()
        FROM unnest($2::uuid[], $3::text[], $4::text[], $5::boolean[], $6::bigint[], $7::bigint[], $8::bigint[],
                    $9::bigint[])
            AS d(id, state, reason, confirming, seen_minor, confirmations, block_number, head_number)
        WHERE c.id = d.id AND (c.state = 'OPEN') IS TRUE
          AND NOT (c.confirming AND d.state = 'OPEN' AND NOT d.confirming
                   AND coalesce(d.head_number, 0) < coalesce(c.block_number + c.confirmations, 1))
        """,  # noqa: S608
        closed,
        [claim_id for claim_id, _ in decisions],
        [decision.claim_state.value for _, decision in decisions],
        [decision.reason for _, decision in decisions],
        [decision.confirming for _, decision in decisions],
        [decision.seen_minor for _, decision in decisions],
        [decision.confirmations for _, decision in decisions],
        [decision.block_number for _, decision in decisions],
        [decision.head_number for _, decision in decisions],
    )


def _columns(keys: Sequence[tuple[str, str | None, str]]) -> list[list[str | None]]:
    return [[key[column] for key in keys] for column in range(3)]
