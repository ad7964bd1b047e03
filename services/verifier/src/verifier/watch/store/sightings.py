"""The transfers that were found on watched addresses. Everything here runs in the leader's transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import asyncpg

from kit.database import Connection
from verifier.domain import ProofKey, Transfer
from verifier.store import to_bytes, to_columns, to_hex, to_transfer
from verifier.watch.decisions import Place, Seen, Sighting, State


@dataclass(frozen=True, slots=True)
class Change:
    """A sighting that has a new version, its state in it, what a claim on its transfer says, and its block."""

    id: UUID
    state: State
    proof_key: ProofKey
    block_number: int


# What is new is published at once: it is handed out only when it was not confirmed by then.
FIRST_REPORT = timedelta(seconds=2)
LONGEST_PAUSE = timedelta(seconds=30)
# What waits longer than an endpoint is mostly away for is looked at ever more rarely.
LONG_WAITING = timedelta(hours=1)
# How long what is claimed is left to its claim when it is final.
CLAIM_SECONDS = timedelta(seconds=3)
# A block may show tens of thousands, and a statement has a bound on its time.
ROWS_PER_STATEMENT = 5000
# Of how many the claims of one look are made: a transaction with many transfers must not fill it alone, and those of
# fifty large ones would be too much.
ROWS_PER_LOOK = 2000


async def known(connection: Connection, chain_id: int, places: Collection[Place]) -> set[Place]:
    """Those of the places whose transfer is stored and stands."""
    rows = await connection.fetch(
        """
        SELECT s.tx_hash, s.log_index, s.block_hash, s.contract, s.sender, s.recipient, s.amount_base
        FROM unnest($2::bytea[], $3::bigint[], $4::bytea[]) AS p (tx_hash, log_index, block_hash)
        JOIN sightings s ON s.chain_id = $1 AND s.tx_hash = p.tx_hash AND s.log_index = p.log_index
                        AND s.block_hash = p.block_hash
        WHERE s.state IN ('SEEN', 'FINAL')
        """,
        chain_id,
        [to_bytes(place[0]) for place in places],
        [place[1] for place in places],
        [to_bytes(place[2]) for place in places],
    )
    return {_place(row) for row in rows} & set(places)


async def seen(connection: Connection, chain_id: int, first: int, last: int) -> list[Seen]:
    """What is SEEN in these blocks."""
    rows = await connection.fetch(
        """
        SELECT id, tx_hash, log_index, block_hash, block_number, contract, sender, recipient, amount_base FROM sightings
        WHERE chain_id = $1 AND state = 'SEEN' AND block_number BETWEEN $2 AND $3
        """,
        chain_id,
        first,
        last,
    )
    return [Seen(row["id"], _place(row), row["block_number"]) for row in rows]


async def add(connection: Connection, chain_id: int, transfers: Sequence[Transfer]) -> list[Change]:
    """Stores what was found as SEEN, also when the chain had taken it back before.

    Not that of a transaction whose payment is in doubt: it may be that payment in another block.
    """
    changes: list[Change] = []
    for start in range(0, len(transfers), ROWS_PER_STATEMENT):
        changes += await _add(connection, chain_id, transfers[start : start + ROWS_PER_STATEMENT])
    return changes


async def _add(connection: Connection, chain_id: int, transfers: Sequence[Transfer]) -> list[Change]:
    rows = await connection.fetch(
        """
        INSERT INTO sightings AS s (chain_id, tx_hash, log_index, block_number, block_hash, block_time, contract,
                                    sender, recipient, amount_base, known_index, state, next_report_at)
        SELECT $1, g.tx_hash, g.log_index, g.block_number, g.block_hash, g.block_time, g.contract, g.sender,
               g.recipient, g.amount_base::numeric(78, 0), g.log_index, 'SEEN', clock_timestamp() + $2::interval
        FROM unnest($3::bytea[], $4::bigint[], $5::bigint[], $6::bytea[], $7::timestamptz[], $8::bytea[], $9::bytea[],
                    $10::bytea[], $11::text[])
             AS g (tx_hash, log_index, block_number, block_hash, block_time, contract, sender, recipient, amount_base)
        WHERE NOT EXISTS (
            SELECT FROM sightings d
            WHERE d.chain_id = $1 AND d.tx_hash = g.tx_hash AND d.contract = g.contract
              AND d.recipient = g.recipient AND d.doubted_at IS NOT NULL)
        ORDER BY g.tx_hash, g.log_index, g.block_hash
        ON CONFLICT (chain_id, tx_hash, log_index, block_hash, contract, sender, recipient, amount_base) DO UPDATE
        SET state = 'SEEN', version = s.version + 1, next_report_at = EXCLUDED.next_report_at, looks = 0,
            next_look_at = clock_timestamp(), changed_at = clock_timestamp()
        WHERE s.state IN ('GONE', 'REVERSED')
        RETURNING s.id, s.state, s.tx_hash, s.contract, s.recipient, s.block_number
        """,
        chain_id,
        FIRST_REPORT,
        *to_columns(transfers),
    )
    return _changes(rows)


async def take_back(connection: Connection, ids: Collection[UUID]) -> list[Change]:
    """SEEN ones that the chain has taken back are GONE.

    One that was already proved to a claim in that block was FINAL in truth: it is in doubt now.
    """
    if not ids:
        return []
    rows = await connection.fetch(
        """
        UPDATE sightings s
        SET state = CASE WHEN g.proved THEN 'FINAL' ELSE 'GONE' END,
            doubted_at = CASE WHEN g.proved THEN clock_timestamp() END,
            version = s.version + 1, next_report_at = clock_timestamp() + $2::interval, changed_at = clock_timestamp()
        FROM (
            SELECT o.id,
                   EXISTS (SELECT FROM transfers t
                           WHERE t.chain_id = o.chain_id AND t.tx_hash = o.tx_hash AND t.log_index = o.log_index
                             AND t.block_hash = o.block_hash AND t.contract = o.contract AND t.sender = o.sender
                             AND t.recipient = o.recipient AND t.amount_base = o.amount_base)
                   AND NOT EXISTS (SELECT FROM sightings f
                                   WHERE f.chain_id = o.chain_id AND f.tx_hash = o.tx_hash
                                     AND f.known_index = o.known_index AND f.state = 'FINAL') AS proved
            FROM sightings o WHERE o.id = ANY($1::uuid[]) AND o.state = 'SEEN' ORDER BY o.id FOR UPDATE
        ) g
        WHERE s.id = g.id
        RETURNING s.id, s.state, s.tx_hash, s.contract, s.recipient, s.block_number
        """,
        list(ids),
        FIRST_REPORT,
    )
    return _changes(rows)


async def reverse(connection: Connection, ids: Collection[UUID]) -> list[Change]:
    """FINAL ones that are nowhere on the chain any more."""
    rows = await connection.fetch(
        """
        UPDATE sightings SET state = 'REVERSED', doubted_at = NULL, version = version + 1,
               next_report_at = clock_timestamp() + $2::interval, changed_at = clock_timestamp()
        WHERE id = ANY($1::uuid[]) AND state = 'FINAL' AND doubted_at IS NOT NULL
        RETURNING id, state, tx_hash, contract, recipient, block_number
        """,
        list(ids),
        FIRST_REPORT,
    )
    return _changes(rows)


async def hand_over(connection: Connection, ids: Collection[UUID]) -> None:
    """FINAL ones whose payment is in another block now are GONE, and nothing is owed for them: that block's sighting
    is known by the same index, so it tells the same payment."""
    await connection.execute(
        """
        UPDATE sightings SET state = 'GONE', doubted_at = NULL, version = version + 1,
               confirmed_version = version + 1, changed_at = clock_timestamp()
        WHERE id = ANY($1::uuid[]) AND state = 'FINAL' AND doubted_at IS NOT NULL
        """,
        list(ids),
    )


async def finalize(connection: Connection, chain_id: int, proved: Sequence[tuple[Transfer, int]]) -> list[Change]:
    """Transfers that are proved, each with the index that it is known by, are FINAL, seen before or not."""
    rows = await connection.fetch(
        """
        INSERT INTO sightings AS s (chain_id, tx_hash, log_index, block_number, block_hash, block_time, contract,
                                    sender, recipient, amount_base, known_index, state, next_report_at)
        SELECT $1, g.tx_hash, g.log_index, g.block_number, g.block_hash, g.block_time, g.contract, g.sender,
               g.recipient, g.amount_base::numeric(78, 0), g.known_index, 'FINAL', clock_timestamp() + $2::interval
        FROM unnest($3::bytea[], $4::bigint[], $5::bigint[], $6::bytea[], $7::timestamptz[], $8::bytea[], $9::bytea[],
                    $10::bytea[], $11::text[], $12::bigint[])
             AS g (tx_hash, log_index, block_number, block_hash, block_time, contract, sender, recipient, amount_base,
                   known_index)
        ORDER BY g.tx_hash, g.log_index, g.block_hash
        ON CONFLICT (chain_id, tx_hash, log_index, block_hash, contract, sender, recipient, amount_base) DO UPDATE
        SET state = 'FINAL', known_index = EXCLUDED.known_index, block_time = EXCLUDED.block_time,
            version = s.version + 1,
            next_report_at = EXCLUDED.next_report_at, changed_at = clock_timestamp()
        WHERE s.state <> 'FINAL'
        RETURNING s.id, s.state, s.tx_hash, s.contract, s.recipient, s.block_number
        """,
        chain_id,
        FIRST_REPORT,
        *to_columns([transfer for transfer, _ in proved]),
        [known_index for _, known_index in proved],
    )
    return _changes(rows)


async def trust(connection: Connection, ids: Collection[UUID]) -> None:
    """FINAL ones whose block is canonical after all are in doubt no more."""
    await connection.execute("UPDATE sightings SET doubted_at = NULL WHERE id = ANY($1::uuid[])", list(ids))


async def doubt_above(connection: Connection, chain_id: int, number: int) -> int:
    """What is FINAL above this block has to be proved again; how many that are."""
    done = await connection.execute(
        """
        UPDATE sightings SET doubted_at = clock_timestamp(), looks = 0, next_look_at = clock_timestamp()
        WHERE chain_id = $1 AND block_number > $2 AND state = 'FINAL' AND doubted_at IS NULL
        """,
        chain_id,
        number,
    )
    return int(done.rpartition(" ")[2])


async def postpone(connection: Connection, ids: Collection[UUID]) -> None:
    """These could not be settled: they are looked at again after 0.5, 1, 2 … 30 s, or a twentieth of a long waiting.

    What never can be, as a receipt that is too large, costs ever less; others that wait for more than an hour wait a
    twentieth longer than they must.
    """
    await connection.execute(
        """
        UPDATE sightings SET looks = looks + 1,
               next_look_at = clock_timestamp() + least(
                   CASE WHEN coalesce(doubted_at, changed_at) > clock_timestamp() - $3::interval THEN $2::interval
                        ELSE (clock_timestamp() - coalesce(doubted_at, changed_at)) / 20 END,
                   interval '0.5 s' * 2 ^ least(looks, 16))
        WHERE id = ANY($1::uuid[])
        """,
        list(ids),
        LONGEST_PAUSE,
        LONG_WAITING,
    )


async def leave(connection: Connection, ids: Collection[UUID]) -> None:
    """These are neither looked at nor told for a moment."""
    await connection.execute(
        """
        UPDATE sightings SET looks = looks + 1, next_look_at = clock_timestamp() + $2::interval,
               next_report_at = greatest(next_report_at, clock_timestamp() + $2::interval)
        WHERE id = ANY($1::uuid[])
        """,
        list(ids),
        CLAIM_SECONDS,
    )


async def due(connection: Connection, chain_id: int, reach: int, claims: int) -> list[Sighting]:
    """What may be settled: SEEN and doubted ones up to the block `reach`, of at most so many claims.

    Those that have waited longest for their look come first: nobody waits behind what is looked at in vain. With them
    all others of the same transaction, contract and recipient that are SEEN or FINAL.
    """
    rows = await connection.fetch(
        """
        WITH waiting AS (
            (SELECT tx_hash, contract, recipient, next_look_at FROM sightings
             WHERE chain_id = $1 AND state = 'SEEN' AND (block_number <= $2) IS TRUE
               AND next_look_at <= statement_timestamp()
             ORDER BY next_look_at LIMIT $4)
            UNION ALL
            (SELECT tx_hash, contract, recipient, next_look_at FROM sightings
             WHERE chain_id = $1 AND doubted_at IS NOT NULL AND block_number <= $2
               AND next_look_at <= clock_timestamp()
             ORDER BY next_look_at LIMIT $4)
        ), claims AS (
            SELECT tx_hash, contract, recipient FROM waiting
            GROUP BY tx_hash, contract, recipient ORDER BY min(next_look_at), tx_hash LIMIT $3
        )
        SELECT s.id, s.state, s.tx_hash, s.log_index, s.block_number, s.block_hash, s.block_time, s.contract, s.sender,
               s.recipient, s.amount_base, s.known_index, s.looks,
               extract(epoch FROM clock_timestamp() - s.doubted_at)::float8 AS doubted_seconds,
               EXISTS (SELECT FROM transfers t
                       WHERE t.chain_id = s.chain_id AND t.tx_hash = s.tx_hash AND t.log_index = s.log_index
                         AND t.block_hash = s.block_hash AND t.contract = s.contract AND t.sender = s.sender
                         AND t.recipient = s.recipient AND t.amount_base = s.amount_base) AS is_proved
        FROM claims c JOIN sightings s ON s.chain_id = $1 AND s.tx_hash = c.tx_hash AND s.contract = c.contract
                                      AND s.recipient = c.recipient
        WHERE s.state IN ('SEEN', 'FINAL')
        ORDER BY s.block_number, s.log_index
        """,
        chain_id,
        reach,
        claims,
        ROWS_PER_LOOK,
    )
    return [
        Sighting(
            id=row["id"],
            state=State(row["state"]),
            transfer=to_transfer(chain_id, row),
            known_index=row["known_index"],
            doubted_seconds=row["doubted_seconds"],
            looks=row["looks"],
            is_proved=row["is_proved"],
        )
        for row in rows
    ]


def _place(row: asyncpg.Record) -> Place:
    where = (to_hex(row["tx_hash"]), row["log_index"], to_hex(row["block_hash"]))
    return (*where, *(to_hex(row[name]) for name in ("contract", "sender", "recipient")), row["amount_base"])


def _changes(rows: Sequence[asyncpg.Record]) -> list[Change]:
    return [Change(row["id"], State(row["state"]), _proof_key(row), row["block_number"]) for row in rows]


def _proof_key(row: asyncpg.Record) -> ProofKey:
    return (to_hex(row["tx_hash"]), to_hex(row["contract"]), to_hex(row["recipient"]))
