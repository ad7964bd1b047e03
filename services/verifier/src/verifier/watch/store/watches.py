"""The addresses that are watched."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from kit.database import Connection
from verifier.store import to_bytes, to_hex
from verifier.watch.watching import Span, SpanState, Watch, WatchState, joined, reopens, restarts


@dataclass(frozen=True, slots=True)
class Past:
    """An address whose past is not looked through: from the block after `looked` on; None: from `from_time` on."""

    address: str
    looked: int | None
    from_time: datetime


async def add(connection: Connection, watches: Sequence[Watch]) -> None:
    """Adds addresses, each once; those that are known take the earlier start and the later end."""
    ordered = sorted(watches, key=lambda each: (each.chain_id, each.address))
    rows = await connection.fetch(
        """
        INSERT INTO watches (chain_id, address, from_block, from_time, until, looked_number)
        SELECT w.chain_id, w.address, w.from_block, w.from_time, w.until, NULLIF(w.from_block, 0)
        FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::timestamptz[], $5::timestamptz[])
             AS w (chain_id, address, from_block, from_time, until)
        ORDER BY w.chain_id, w.address
        ON CONFLICT (chain_id, address) DO NOTHING
        RETURNING chain_id, address
        """,
        *_columns(ordered),
    )
    fresh = {(row["chain_id"], to_hex(row["address"])) for row in rows}
    known = [watch for watch in ordered if (watch.chain_id, watch.address) not in fresh]
    if known:
        await _join(connection, known)


async def _join(connection: Connection, watches: Sequence[Watch]) -> None:
    rows = await connection.fetch(
        """
        SELECT w.chain_id, w.address, w.from_block, w.from_time, w.until, w.state
        FROM unnest($1::bigint[], $2::bytea[]) AS k (chain_id, address)
        JOIN watches w ON w.chain_id = k.chain_id AND w.address = k.address
        ORDER BY w.chain_id, w.address FOR UPDATE OF w
        """,
        *_columns(watches)[:2],
    )
    wanted = {(watch.chain_id, watch.address): watch for watch in watches}
    changed: list[Watch] = []
    restarted: list[bool] = []
    reopened: list[bool] = []
    for row in rows:
        old = Watch(row["chain_id"], to_hex(row["address"]), row["from_block"], row["from_time"], row["until"])
        new = wanted[old.chain_id, old.address]
        if joined(old, new) != old:
            changed.append(joined(old, new))
            restarted.append(restarts(old, new))
            reopened.append(reopens(old, new, WatchState(row["state"])))
    if changed:
        await connection.execute(
            """
            UPDATE watches w SET from_block = g.from_block, from_time = g.from_time, until = g.until,
                   looked_number = CASE WHEN g.restarts THEN NULLIF(g.from_block, 0) ELSE w.looked_number END,
                   state = CASE WHEN g.restarts OR g.reopens THEN 'CATCHING_UP' ELSE w.state END
            FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::bool[],
                        $7::bool[]) AS g (chain_id, address, from_block, from_time, until, restarts, reopens)
            WHERE w.chain_id = g.chain_id AND w.address = g.address
            """,
            *_columns(changed),
            restarted,
            reopened,
        )


async def watched(connection: Connection, chain_id: int) -> dict[str, int]:
    """The addresses for which everything up to the cursor has been looked through, and after which block they begin."""
    rows = await connection.fetch(
        "SELECT address, from_block FROM watches WHERE chain_id = $1 AND state = 'WATCHED'", chain_id
    )
    return _starts(rows)


async def catching_up(connection: Connection, chain_id: int, limit: int, but: Collection[str]) -> list[Past]:
    """Addresses with a past to look through: first those of which it is not known where it begins, then the oldest.

    Those in `but` are left out.
    """
    rows = await connection.fetch(
        """
        SELECT address, looked_number, from_time FROM watches
        WHERE chain_id = $1 AND state = 'CATCHING_UP' AND address <> ALL($3)
        ORDER BY looked_number NULLS FIRST, from_time LIMIT $2
        """,
        chain_id,
        limit,
        [to_bytes(address) for address in but],
    )
    return [Past(to_hex(row["address"]), row["looked_number"], row["from_time"]) for row in rows]


async def start_at(connection: Connection, chain_id: int, number: int, not_before: datetime) -> None:
    """The past of those that begin at this time or later begins after this block."""
    await connection.execute(
        """
        UPDATE watches SET looked_number = $2, from_block = $2
        WHERE chain_id = $1 AND state = 'CATCHING_UP' AND looked_number IS NULL AND from_time >= $3
        """,
        chain_id,
        number,
        not_before,
    )


async def looked_back(connection: Connection, chain_id: int, pasts: Collection[Past], number: int) -> None:
    """The blocks up to this one have been looked through for these; not for one that was begun anew meanwhile."""
    await connection.execute(
        """
        UPDATE watches w SET looked_number = greatest(w.looked_number, $4)
        FROM unnest($2::bytea[], $3::bigint[]) AS g (address, looked)
        WHERE w.chain_id = $1 AND w.address = g.address AND w.state = 'CATCHING_UP' AND w.looked_number = g.looked
        """,
        chain_id,
        [to_bytes(past.address) for past in pasts],
        [past.looked for past in pasts],
        number,
    )


async def caught_up(connection: Connection, chain_id: int, cursor: int) -> dict[str, int]:
    """Those that nothing is left to look through for up to the cursor are watched from now on; see `watched`."""
    rows = await connection.fetch(
        """
        UPDATE watches SET state = 'WATCHED', joined_at = clock_timestamp()
        WHERE chain_id = $1 AND state = 'CATCHING_UP' AND looked_number >= $2 RETURNING address, from_block
        """,
        chain_id,
        cursor,
    )
    return _starts(rows)


async def end(connection: Connection, chain_id: int, cursor: int, chain_time: int) -> set[str]:
    """Those whose time is over, by the chain's clock (Unix, seconds) and by ours, are watched no more."""
    rows = await connection.fetch(
        """
        UPDATE watches SET state = 'ENDED', looked_number = $2
        WHERE chain_id = $1 AND state = 'WATCHED' AND until <= least($3::timestamptz, statement_timestamp())
        RETURNING address
        """,
        chain_id,
        cursor,
        datetime.fromtimestamp(chain_time, UTC),
    )
    return {to_hex(row["address"]) for row in rows}


async def fall_back(connection: Connection, chain_id: int, number: int) -> None:
    """What was looked through above this block was another chain."""
    await connection.execute(
        "UPDATE watches SET looked_number = $2 WHERE chain_id = $1 AND looked_number > $2 AND state <> 'WATCHED'",
        chain_id,
        number,
    )


async def count(connection: Connection, chain_id: int) -> tuple[int, int]:
    """(addresses that are watched, those of them whose past is not looked through)"""
    row = await connection.fetchrow(
        """
        SELECT count(*) AS watched, count(*) FILTER (WHERE state = 'CATCHING_UP') AS catching_up
        FROM watches WHERE chain_id = $1 AND state <> 'ENDED'
        """,
        chain_id,
    )
    assert row is not None, "an aggregate is one row"
    return row["watched"], row["catching_up"]


async def check(connection: Connection, spans: Sequence[Span]) -> list[SpanState]:
    """Whether all that reached these addresses in these times was found and confirmed, in the order of `spans`."""
    rows = await connection.fetch(
        """
        WITH span AS MATERIALIZED (
            SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::timestamptz[], $4::timestamptz[])
                WITH ORDINALITY AS s (chain_id, address, from_time, until, place)
        ), untold AS MATERIALIZED (
            -- Of a busy wallet many have one time: all spans at it are compared with times, and not with reports.
            SELECT DISTINCT chain_id, recipient, block_time FROM sightings
            WHERE version > confirmed_version AND recipient IN (SELECT address FROM span)
        )
        SELECT CASE
            WHEN w.state IS NULL THEN 'NOT_WATCHED'
            WHEN w.state <> 'ENDED' AND (c.looked_through_at > g.until) IS NOT TRUE THEN 'CHAIN_BEHIND'
            WHEN w.state = 'CATCHING_UP' OR EXISTS (
                SELECT FROM untold u WHERE u.chain_id = g.chain_id AND u.recipient = g.address
                    AND u.block_time BETWEEN g.from_time AND g.until
            ) THEN 'ADDRESS_BEHIND'
            -- What is over was looked through twice, up to its end. Of the others one that joined later is not in it.
            WHEN w.state <> 'ENDED' AND w.joined_at > c.looked_through_at THEN 'ADDRESS_BEHIND'
            ELSE 'DONE' END AS state
        FROM span g
        LEFT JOIN LATERAL (
            SELECT state, joined_at FROM watches WHERE chain_id = g.chain_id AND address = g.address OFFSET 0
        ) w ON true
        LEFT JOIN cursors c ON c.chain_id = g.chain_id
        ORDER BY g.place
        """,
        [span.chain_id for span in spans],
        [to_bytes(span.address) for span in spans],
        [span.from_time for span in spans],
        [span.until for span in spans],
    )
    return [SpanState(row["state"]) for row in rows]


def _starts(rows: Sequence[asyncpg.Record]) -> dict[str, int]:
    return {to_hex(row["address"]): row["from_block"] for row in rows}


def _columns(watches: Sequence[Watch]) -> list[list[object]]:
    return [
        [watch.chain_id for watch in watches],
        [to_bytes(watch.address) for watch in watches],
        [watch.from_block for watch in watches],
        [watch.from_time for watch in watches],
        [watch.until for watch in watches],
    ]
