"""How far each chain has been looked through, and who may say so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg

from kit.database import Connection, Database
from verifier.domain import Heads
from verifier.store import to_bytes, to_hex, unavailable
from verifier.watch.ranges import Pin, Position


class Fenced(Exception):
    """Another process leads on this chain now, or the cursor is not where this one left it."""


@asynccontextmanager
async def leading(database: Database, chain_id: int, term: int) -> AsyncIterator[Connection]:
    """A transaction of the scanner that leads in this term. Errors: Fenced, StoreUnavailable."""
    with unavailable():
        async with database.transaction() as connection:
            # Locked until the commit: a new leader begins its term after it, and reads what it left.
            held = await connection.fetchval(
                "SELECT term = $2 FROM cursors WHERE chain_id = $1 FOR UPDATE", chain_id, term
            )
            if not held:
                raise Fenced
            yield connection


async def begin_term(connection: Connection, chain_id: int) -> tuple[int, Position | None]:
    """A new term, which ends that of any other leader, and where the cursor is; None before the first final block."""
    row = await connection.fetchrow(
        """
        INSERT INTO cursors AS c (chain_id, term) VALUES ($1, 1)
        ON CONFLICT (chain_id) DO UPDATE SET term = c.term + 1
        RETURNING term, first_number, number, hash, scanned_number, swept_number, swept_time
        """,
        chain_id,
    )
    assert row is not None, "it inserts or updates"
    return row["term"], _position(row)


async def move(connection: Connection, chain_id: int, old: Position | None, new: Position, heads: Heads) -> None:
    """Moves the cursor from where it is known to be (None: nowhere yet). Errors: Fenced when it is not there."""
    moved = await connection.execute(
        """
        UPDATE cursors SET first_number = $4, number = $5, hash = $6, scanned_number = $7, swept_number = $8,
               swept_time = $9, head_number = $10, finalized_number = $11, moved_at = clock_timestamp(),
               -- It falls back when what was looked through above was another chain.
               looked_through_at = CASE WHEN $5 >= number THEN looked_through_at END
        WHERE chain_id = $1 AND number IS NOT DISTINCT FROM $2 AND hash IS NOT DISTINCT FROM $3
        """,
        chain_id,
        old.number if old else None,
        to_bytes(old.hash) if old else None,
        new.first,
        new.number,
        to_bytes(new.hash),
        new.scanned,
        new.swept,
        datetime.fromtimestamp(new.swept_time, UTC),
        heads.head.number,
        heads.finalized,
    )
    if moved != "UPDATE 1":
        raise Fenced


async def look_through(connection: Connection, chain_id: int, block_time: int, idle: timedelta | None) -> None:
    """Notes up to which time all has been looked through.

    It is the time of the newest block that was (Unix, seconds): what is still to be mined is of a later one. Ahead of
    our clock it is not believed. Where the chain stands still it is `idle` before now.
    """
    # Lost with the machine, it comes again with the next pass: nobody has to wait for the disk.
    await connection.execute("SET LOCAL synchronous_commit = off")
    await connection.execute(
        """
        UPDATE cursors SET looked_through_at = greatest(least($2, clock_timestamp()), clock_timestamp() - $3::interval)
        WHERE chain_id = $1
        """,
        chain_id,
        datetime.fromtimestamp(block_time, UTC),
        idle,
    )


async def looked_through(connection: Connection, chain_id: int) -> datetime | None:
    """Up to which time all has been looked through; None before the first pass."""
    noted: datetime | None = await connection.fetchval(
        "SELECT looked_through_at FROM cursors WHERE chain_id = $1", chain_id
    )
    return noted


async def pins(connection: Connection, chain_id: int) -> list[Pin]:
    """The final blocks that the cursor stood on, ascending."""
    rows = await connection.fetch(
        "SELECT number, hash, operator FROM pins WHERE chain_id = $1 ORDER BY number", chain_id
    )
    return [Pin(row["number"], to_hex(row["hash"]), row["operator"]) for row in rows]


async def add_pin(connection: Connection, chain_id: int, pin: Pin, surplus: Sequence[Pin]) -> None:
    """Notes a final block and lets others go."""
    await connection.execute(
        "INSERT INTO pins (chain_id, number, hash, operator) VALUES ($1, $2, $3, $4)",
        chain_id,
        pin.number,
        to_bytes(pin.hash),
        pin.operator,
    )
    if surplus:
        await connection.execute(
            "DELETE FROM pins WHERE chain_id = $1 AND number = ANY($2::bigint[])",
            chain_id,
            [each.number for each in surplus],
        )


async def drop_pins_above(connection: Connection, chain_id: int, number: int) -> None:
    """Lets blocks go that are canonical no more."""
    await connection.execute("DELETE FROM pins WHERE chain_id = $1 AND number > $2", chain_id, number)


async def position(connection: Connection, chain_id: int) -> Position | None:
    """Where the cursor is; None before the first final block."""
    row = await connection.fetchrow(
        """
        SELECT first_number, number, hash, scanned_number, swept_number, swept_time FROM cursors WHERE chain_id = $1
        """,
        chain_id,
    )
    return _position(row) if row else None


def _position(row: asyncpg.Record) -> Position | None:
    if row["number"] is None:
        return None
    return Position(
        first=row["first_number"],
        number=row["number"],
        hash=to_hex(row["hash"]),
        scanned=row["scanned_number"],
        swept=row["swept_number"],
        swept_time=int(row["swept_time"].timestamp()),
    )
