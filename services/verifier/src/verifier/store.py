"""Proofs and high-water marks in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import asyncpg

from kit.database import UNAVAILABLE, Connection, Database
from verifier.domain import ProofKey, StoreUnavailable, Transfer

Proofs = Mapping[ProofKey, tuple[Transfer, ...]]

# The transfers of each `k`, by their key. Before PostgreSQL has counted the table it makes a join by reading all that
# was ever proved on the chain; OFFSET keeps it from that.
BY_KEY = """CROSS JOIN LATERAL (
        SELECT chain_id, tx_hash, log_index, block_number, block_hash, block_time, contract, sender, recipient,
               amount_base
        FROM transfers
        WHERE chain_id = $1 AND tx_hash = k.tx_hash AND contract = k.contract AND recipient = k.recipient OFFSET 0
    ) t"""

# Not what the chain has taken back beyond finality since: it is a proof of the past only.
FIND = f"""
    SELECT t.tx_hash, t.log_index, t.block_number, t.block_hash, t.block_time, t.contract, t.sender, t.recipient,
           t.amount_base
    FROM unnest($2::bytea[], $3::bytea[], $4::bytea[]) AS k (tx_hash, contract, recipient)
    {BY_KEY}
    WHERE 0 = (  -- counted, so that it is looked up for each as well
        SELECT count(*) FROM sightings s
        WHERE s.chain_id = t.chain_id AND s.tx_hash = t.tx_hash AND s.known_index = t.log_index
          AND (s.state = 'REVERSED' OR s.doubted_at IS NOT NULL))
    ORDER BY t.tx_hash, t.log_index
"""  # noqa: S608

# What was proved once stays: of a transaction that comes back elsewhere, past finality, nothing new is recorded.
# Of what is new only its place is told, the rest is known here: with the verdicts counted once for a batch the
# verifier's CPU for a claim is 0.93 of what it was (medians of four rounds, whose ranges overlap).
# The inserts come before the mark and in one order, so that two of these wait for each other and never in a circle.
RECORD = f"""
    WITH given AS (
        SELECT g.tx_hash, g.log_index, g.block_number, g.block_hash, g.block_time, g.contract, g.sender, g.recipient,
               g.amount_base::numeric(78, 0) AS amount_base
        FROM unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::bytea[], $6::timestamptz[], $7::bytea[], $8::bytea[],
                    $9::bytea[], $10::text[])
             AS g (tx_hash, log_index, block_number, block_hash, block_time, contract, sender, recipient, amount_base)
    ), known AS (
        SELECT t.tx_hash, t.log_index, t.block_number, t.block_hash, t.block_time, t.contract, t.sender, t.recipient,
               t.amount_base
        FROM (SELECT DISTINCT tx_hash, contract, recipient FROM given) AS k
        {BY_KEY}
    ), inserted AS (
        INSERT INTO transfers (chain_id, tx_hash, log_index, block_number, block_hash, block_time, contract, sender,
                               recipient, amount_base)
        SELECT $1, g.tx_hash, g.log_index, g.block_number, g.block_hash, g.block_time, g.contract, g.sender,
               g.recipient, g.amount_base
        FROM given g
        WHERE NOT EXISTS (
            SELECT FROM known k
            WHERE k.tx_hash = g.tx_hash AND k.contract = g.contract AND k.recipient = g.recipient)
        ORDER BY g.tx_hash, g.log_index
        ON CONFLICT (chain_id, tx_hash, log_index) DO NOTHING
        RETURNING tx_hash, log_index
    ), mark AS (
        INSERT INTO chain_heads (chain_id, finalized_number) VALUES ($1, $11)
        ON CONFLICT (chain_id) DO UPDATE SET finalized_number = EXCLUDED.finalized_number, seen_at = clock_timestamp()
        WHERE chain_heads.finalized_number < EXCLUDED.finalized_number
    )
    SELECT true AS is_new, tx_hash, log_index, NULL AS block_number, NULL AS block_hash, NULL AS block_time,
           NULL AS contract, NULL AS sender, NULL AS recipient, NULL AS amount_base
    FROM inserted
    UNION ALL
    SELECT false, tx_hash, log_index, block_number, block_hash, block_time, contract, sender, recipient, amount_base
    FROM known
    ORDER BY tx_hash, log_index
"""  # noqa: S608


class ProofStore:
    """Reads and keeps what was proved. Errors of all: StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def marks(self) -> dict[int, int]:
        """The highest final height seen, by chain id."""
        with unavailable():
            async with self._database.connection() as connection:
                rows = await connection.fetch("SELECT chain_id, finalized_number FROM chain_heads")
        return {row["chain_id"]: row["finalized_number"] for row in rows}

    async def find(self, chain_id: int, keys: Collection[ProofKey]) -> Proofs:
        """The proofs recorded for (tx_hash, contract, recipient); nothing for a key that has none."""
        with unavailable():
            async with self._database.connection() as connection:
                return await _find(connection, chain_id, keys)

    async def record(self, chain_id: int, transfers: Sequence[Transfer], finalized: int) -> Proofs:
        """Keeps transfers and the final height they were proved at, in one statement; returns what stands for them.

        That is the transfers themselves, unless other ones were proved before under the same key.
        """
        keys = {item.proof_key for item in transfers}
        given = {(to_bytes(item.tx_hash), item.log_index): item for item in transfers}
        with unavailable():
            async with self._database.connection() as connection:
                rows = await connection.fetch(RECORD, chain_id, *to_columns(list(given.values())), finalized)
                proofs = _proofs(
                    given[row["tx_hash"], row["log_index"]] if row["is_new"] else to_transfer(chain_id, row)
                    for row in rows
                )
                # Another process recorded them while this statement ran, and it sees what was there when it began.
                missing = keys - proofs.keys()
                return {**proofs, **await _find(connection, chain_id, missing)} if missing else proofs


async def _find(connection: Connection, chain_id: int, keys: Collection[ProofKey]) -> Proofs:
    columns = [[to_bytes(key[place]) for key in keys] for place in range(3)]
    rows = await connection.fetch(FIND, chain_id, *columns)
    return _proofs(to_transfer(chain_id, row) for row in rows)


def _proofs(transfers: Iterable[Transfer]) -> dict[ProofKey, tuple[Transfer, ...]]:
    proofs: dict[ProofKey, tuple[Transfer, ...]] = {}
    for transfer in transfers:
        proofs[transfer.proof_key] = (*proofs.get(transfer.proof_key, ()), transfer)
    return proofs


def to_columns(transfers: Sequence[Transfer]) -> list[list[object]]:
    """One array for each column, from tx_hash to amount_base, as unnest takes them."""
    return [
        [to_bytes(item.tx_hash) for item in transfers],
        [item.log_index for item in transfers],
        [item.block_number for item in transfers],
        [to_bytes(item.block_hash) for item in transfers],
        [datetime.fromtimestamp(item.block_time, UTC) for item in transfers],
        [to_bytes(item.contract) for item in transfers],
        [to_bytes(item.sender) for item in transfers],
        [to_bytes(item.recipient) for item in transfers],
        [str(item.amount_base) for item in transfers],
    ]


def to_transfer(chain_id: int, row: asyncpg.Record) -> Transfer:
    """The transfer of a row that has all of those columns."""
    return Transfer(
        chain_id=chain_id,
        tx_hash=to_hex(row["tx_hash"]),
        log_index=row["log_index"],
        block_number=row["block_number"],
        block_hash=to_hex(row["block_hash"]),
        block_time=int(row["block_time"].timestamp()),
        contract=to_hex(row["contract"]),
        sender=to_hex(row["sender"]),
        recipient=to_hex(row["recipient"]),
        amount_base=row["amount_base"],
    )


@contextmanager
def unavailable() -> Iterator[None]:
    """Gives what the database cannot do now the one name that workflows know: StoreUnavailable."""
    try:
        yield
    except UNAVAILABLE as error:
        raise StoreUnavailable(f"the database does not answer ({type(error).__name__})") from error


def to_bytes(text: str) -> bytes:
    """Hex with 0x as it is stored."""
    return bytes.fromhex(text.removeprefix("0x"))


def to_hex(data: bytes) -> str:
    """What is stored as hex with 0x."""
    return "0x" + data.hex()
