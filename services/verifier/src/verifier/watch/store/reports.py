"""What those who watch have not confirmed yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from uuid import UUID

import asyncpg

from kit.database import Connection
from verifier.store import to_transfer
from verifier.watch.decisions import Report, State


async def read(connection: Connection, ids: Collection[UUID]) -> list[Report]:
    """How these sightings stand now, oldest change first."""
    rows = await connection.fetch(
        """
        SELECT s.id, s.version, s.state, s.chain_id, s.tx_hash, s.known_index AS log_index, s.block_number,
               s.block_hash, s.block_time, s.contract, s.sender, s.recipient, s.amount_base,
               coalesce(c.head_number, 0) AS head_number, coalesce(c.finalized_number, 0) AS finalized_number
        FROM sightings s LEFT JOIN cursors c ON c.chain_id = s.chain_id
        WHERE s.id = ANY($1::uuid[])
        ORDER BY s.changed_at, s.block_number, s.log_index
        """,
        list(ids),
    )
    return [_report(row) for row in rows]


async def take(connection: Connection, limit: int, lease: timedelta) -> list[UUID]:
    """Open reports whose time has come, the longest due first; nobody else takes them before the lease is over."""
    rows = await connection.fetch(
        """
        WITH due AS MATERIALIZED (
            SELECT id FROM sightings WHERE version > confirmed_version AND next_report_at <= clock_timestamp()
            ORDER BY next_report_at LIMIT $1 FOR UPDATE SKIP LOCKED
        )
        UPDATE sightings s SET next_report_at = clock_timestamp() + $2::interval FROM due
        WHERE s.id = due.id
        RETURNING s.id
        """,
        limit,
        lease,
    )
    return [row["id"] for row in rows]


async def confirm(connection: Connection, versions: Mapping[UUID, int]) -> None:
    """Closes reports up to a version. One that was never told confirms nothing."""
    await connection.execute(
        """
        UPDATE sightings s SET confirmed_version = g.version
        FROM (
            SELECT o.id, v.version
            FROM unnest($1::uuid[], $2::bigint[]) AS v (id, version) JOIN sightings o ON o.id = v.id
            WHERE v.version > o.confirmed_version AND v.version <= o.version
            ORDER BY o.id FOR UPDATE OF o
        ) g
        WHERE s.id = g.id
        """,
        list(versions.keys()),
        list(versions.values()),
    )


async def count_open(connection: Connection) -> int:
    """How many reports are not confirmed."""
    return int(await connection.fetchval("SELECT count(*) FROM sightings WHERE version > confirmed_version"))


def _report(row: asyncpg.Record) -> Report:
    return Report(
        id=row["id"],
        version=row["version"],
        state=State(row["state"]),
        transfer=to_transfer(row["chain_id"], row),
        head_number=row["head_number"],
        finalized_number=row["finalized_number"],
    )
