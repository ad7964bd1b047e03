"""The outbox: what another service has yet to confirm."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from kit.database import Connection
from orders.domain import Debt

# Both are also parts of larger statements: a round trip and a plan for each batch less. The parameters are the first of
# these: `owe_arguments`, and the ids.
OWE = """INSERT INTO outbox (event_id, subject, merchant_id, asset, payload, next_attempt_at)
    SELECT d.*, now() + $6::interval FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bytea[])
        AS d(event_id, subject, merchant_id, asset, payload)"""
# Rows are locked in the order of their ids, so that two closers cannot deadlock.
CLOSE = """DELETE FROM outbox WHERE event_id IN (
    SELECT event_id FROM outbox WHERE event_id = ANY($1::uuid[]) ORDER BY event_id FOR UPDATE)"""


def owe_arguments(debts: Sequence[Debt], first_look: timedelta) -> list[object]:
    """The parameters of `OWE`. The doorbell rings right after the commit; the sweeper looks `first_look` later."""
    return [
        [debt.event_id for debt in debts],
        [debt.subject for debt in debts],
        [debt.merchant_id for debt in debts],
        [debt.asset for debt in debts],
        [debt.payload for debt in debts],
        first_look,
    ]


async def insert(connection: Connection, debts: Sequence[Debt], first_look: timedelta) -> None:
    """Records debts."""
    await connection.execute(f"{OWE} ON CONFLICT (event_id) DO NOTHING", *owe_arguments(debts, first_look))


async def close(connection: Connection, event_ids: Sequence[UUID]) -> None:
    """The effects are confirmed."""
    await connection.execute(CLOSE, event_ids)


async def take_due(
    connection: Connection, subjects: Sequence[str], pause: timedelta, longest: timedelta, limit: int
) -> list[Debt]:
    """Open rows of these subjects whose time has come; each next pause is twice the last, up to `longest`."""
    rows = await connection.fetch(
        """
        WITH due AS MATERIALIZED (
            SELECT d.event_id FROM unnest($4::text[]) AS s(subject) CROSS JOIN LATERAL (
                SELECT event_id, next_attempt_at FROM outbox
                WHERE subject = s.subject AND dead_reason IS NULL AND next_attempt_at <= now()
                ORDER BY next_attempt_at LIMIT $3 FOR UPDATE SKIP LOCKED
            ) d ORDER BY d.next_attempt_at LIMIT $3
        )
        UPDATE outbox o SET attempts = attempts + 1,
               next_attempt_at = now() + least($2::interval, $1::interval * 2 ^ least(attempts, 16))
        FROM due
        WHERE o.event_id = due.event_id
        RETURNING o.event_id, o.subject, o.merchant_id, o.asset, o.payload
        """,
        pause,
        longest,
        limit,
        subjects,
    )
    return [Debt(row["event_id"], row["subject"], row["merchant_id"], row["asset"], row["payload"]) for row in rows]


async def bury(connection: Connection, reasons: dict[UUID, str]) -> None:
    """Marks rows that the other side refuses for good; they stay until somebody has looked."""
    await connection.execute(
        """
        UPDATE outbox o SET dead_reason = d.reason
        FROM unnest($1::uuid[], $2::text[]) AS d(event_id, reason) WHERE o.event_id = d.event_id
        """,
        list(reasons.keys()),
        list(reasons.values()),
    )


async def count_claims(connection: Connection, up_to: int) -> int:
    """How many claims are queued, counted up to a bound."""
    return int(
        await connection.fetchval(
            """
            SELECT count(*) FROM (
                SELECT FROM outbox WHERE subject = 'ospay.orders.v1.payment_claimed' AND dead_reason IS NULL LIMIT $1
            ) queued
            """,
            up_to,
        )
    )


async def depth(connection: Connection) -> tuple[int, int, float]:
    """(open rows, dead rows, age of the oldest open one in seconds), for the metrics."""
    row = await connection.fetchrow(
        """
        SELECT count(*) FILTER (WHERE dead_reason IS NULL) AS open,
               count(*) FILTER (WHERE dead_reason IS NOT NULL) AS dead,
               extract(epoch FROM now() - min(created_at) FILTER (WHERE dead_reason IS NULL))::float8 AS age
        FROM outbox
        """
    )
    assert row is not None, "an aggregate without groups has one row"
    return row["open"], row["dead"], row["age"] or 0.0


async def insert_dead_letter(connection: Connection, subject: str, payload: bytes, reason: str) -> None:
    """Keeps a message that could not be understood."""
    await connection.execute(
        "INSERT INTO dead_letters (subject, payload, reason) VALUES ($1, $2, $3)", subject, payload, reason
    )
