"""What the verifier has found, and whose addresses they are, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from asyncpg import Record

from kit.database import Connection
from orders.domain import Arrival, OrderKey, Report, Sighting, SightingState, Transfer
from orders.store.payments import read_transfer, transfer_arrays

# Claims on a wallet share its lock, a report on it has the lock alone: while it is decided whether a transfer pays one
# of the wallet's orders or goes to suspense, no claim can decide otherwise. The second argument keeps these locks apart
# from others.
WALLET_LOCK = "hashtextextended(wallet, 2)"


@dataclass(frozen=True)
class Told:
    """What is known of a report before anything is locked for it.

    `version` is the one that is recorded; `is_paid`: the transfer has paid in this very block.
    """

    version: int | None
    is_paid: bool


@dataclass(frozen=True)
class Recorded:
    """What is written of a report: the order that it concerns, and whether that waits for it."""

    report: Report
    order_id: str | None
    merchant_id: str | None
    confirming: bool


async def told(connection: Connection, reports: Sequence[Report]) -> dict[UUID, Told]:
    """What is known of reports. Each look is by a key: what is counted cannot be had by a look through a table."""
    transfers = [report.arrival.transfer for report in reports]
    rows = await connection.fetch(
        """
        SELECT r.id, (SELECT version FROM sightings s WHERE s.id = r.id) AS version,
               (SELECT count(*) FROM payments p
                WHERE p.tx_hash = r.tx_hash AND p.log_index = r.log_index AND p.chain_id = r.chain_id
                  AND p.block_hash = r.block_hash AND p.state = 'CREDITED') > 0 AS is_paid
        FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::text[])
            AS r(id, chain_id, tx_hash, log_index, block_hash)
        """,
        [report.id for report in reports],
        [transfer.chain_id for transfer in transfers],
        [transfer.tx_hash for transfer in transfers],
        [transfer.log_index for transfer in transfers],
        [transfer.block_hash for transfer in transfers],
    )
    return {row["id"]: Told(row["version"], row["is_paid"]) for row in rows}


async def lock_wallets(connection: Connection, addresses: Sequence[str]) -> dict[str, str]:
    """Locks the wallets among these addresses. Returns the merchant that registered each of them first."""
    await connection.execute(
        f"""
        SELECT pg_advisory_xact_lock({WALLET_LOCK})
        FROM (SELECT DISTINCT wallet FROM merchants WHERE wallet = ANY($1::text[]) ORDER BY wallet) w
        """,  # noqa: S608
        addresses,
    )
    rows = await connection.fetch(
        """
        SELECT DISTINCT ON (wallet) wallet, id FROM merchants
        WHERE wallet = ANY($1::text[]) ORDER BY wallet, created_at, id
        """,
        addresses,
    )
    return {row["wallet"]: row["id"] for row in rows}


async def own_orders(connection: Connection, addresses: Sequence[str]) -> dict[str, OrderKey]:
    """The orders that have these addresses for their own."""
    rows = await connection.fetch(
        """
        SELECT deposit_address, id, merchant_id FROM orders
        WHERE deposit_address = ANY($1::text[]) AND deposit_index IS NOT NULL
        """,
        addresses,
    )
    return {row["deposit_address"]: (row["id"], row["merchant_id"]) for row in rows}


async def candidates(
    connection: Connection, arrivals: Sequence[Arrival], grace: timedelta, limit: int
) -> list[list[OrderKey]]:
    """The orders on a transfer's wallet that it may be meant for, at most `limit`, for each in the order of `arrivals`.

    It narrows down, with conditions that are necessary; the rule itself is in the domain.
    """
    rows = await connection.fetch(
        """
        SELECT t.n, o.id, o.merchant_id
        FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bigint[], $7::timestamptz[])
            WITH ORDINALITY AS t(wallet, chain, asset, amount_minor, sender, block_number, block_time, n)
        CROSS JOIN LATERAL (
            SELECT id, merchant_id FROM orders
            WHERE deposit_address = t.wallet AND deposit_index IS NULL AND amount_minor = t.amount_minor
              AND state IN ('PENDING', 'CONFIRMING', 'EXPIRED') AND expires_at > t.block_time - $8::interval
              AND chain = t.chain AND asset = t.asset
              AND (customer_wallet IS NULL OR customer_wallet = t.sender)
              AND (created_block IS NULL OR created_block < t.block_number)
              AND created_at < t.block_time + interval '1 minute'
            LIMIT $9
        ) o
        """,
        [arrival.recipient for arrival in arrivals],
        [arrival.chain for arrival in arrivals],
        [arrival.asset for arrival in arrivals],
        [arrival.transfer.amount_minor for arrival in arrivals],
        [arrival.transfer.sender for arrival in arrivals],
        [arrival.transfer.block_number for arrival in arrivals],
        [arrival.transfer.block_time for arrival in arrivals],
        grace,
        limit,
    )
    found: list[list[OrderKey]] = [[] for _ in arrivals]
    for row in rows:
        found[row["n"] - 1].append((row["id"], row["merchant_id"]))
    return found


async def concerned(
    connection: Connection, report_ids: Sequence[UUID], reversed_tx_hashes: Sequence[str]
) -> set[OrderKey]:
    """The orders that these reports concerned before, and those that have anything of the transactions taken back."""
    rows = await connection.fetch(
        """
        SELECT order_id, merchant_id FROM sightings WHERE id = ANY($1::uuid[]) AND order_id IS NOT NULL
        UNION SELECT order_id, merchant_id FROM unnest($2::text[]) AS t(hash) CROSS JOIN LATERAL (
            SELECT order_id, merchant_id FROM payments WHERE tx_hash = t.hash OFFSET 0
        ) p
        UNION SELECT order_id, merchant_id FROM unnest($2::text[]) AS t(hash) CROSS JOIN LATERAL (
            SELECT order_id, merchant_id FROM suspense WHERE tx_hash = t.hash AND order_id IS NOT NULL OFFSET 0
        ) s
        """,
        report_ids,
        reversed_tx_hashes,
    )
    return {(row["order_id"], row["merchant_id"]) for row in rows}


async def sightings(connection: Connection, tx_hashes: Sequence[str]) -> list[Sighting]:
    """What is recorded of these transactions."""
    rows = await connection.fetch(
        """
        SELECT id, version, state, chain_id, tx_hash, log_index, block_hash, sender, recipient, amount_base, order_id,
               merchant_id
        FROM unnest($1::text[]) AS t(hash) CROSS JOIN LATERAL (
            SELECT * FROM sightings WHERE tx_hash = t.hash OFFSET 0
        ) s
        """,
        tx_hashes,
    )
    return [_sighting(row) for row in rows]


async def record(connection: Connection, items: Sequence[Recorded]) -> None:
    """Writes what was reported; an older version changes nothing."""
    arrivals = [item.report.arrival for item in items]
    await connection.execute(
        """
        INSERT INTO sightings AS s (id, version, state, chain, asset, recipient, merchant_id, order_id, confirming,
                                    confirmations, chain_id, tx_hash, log_index, amount_base, amount_minor, sender,
                                    block_number, block_hash, block_time)
        SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                             $8::text[], $9::boolean[], $10::bigint[], $11::bigint[], $12::text[], $13::bigint[],
                             $14::numeric[], $15::bigint[], $16::text[], $17::bigint[], $18::text[], $19::timestamptz[])
            AS r(id)
        ORDER BY r.id  -- two batches with the same reports must meet them in one order
        ON CONFLICT (id) DO UPDATE
            SET version = excluded.version, state = excluded.state, merchant_id = excluded.merchant_id,
                order_id = excluded.order_id, confirming = excluded.confirming,
                confirmations = excluded.confirmations, updated_at = now()
            WHERE s.version < excluded.version
        """,
        [item.report.id for item in items],
        [item.report.version for item in items],
        [item.report.state.value for item in items],
        [arrival.chain for arrival in arrivals],
        [arrival.asset for arrival in arrivals],
        [arrival.recipient for arrival in arrivals],
        [item.merchant_id for item in items],
        [item.order_id for item in items],
        [item.confirming for item in items],
        [item.report.confirmations for item in items],
        *transfer_arrays([arrival.transfer for arrival in arrivals]),
    )


async def of_order(connection: Connection, key: OrderKey, limit: int) -> list[tuple[Transfer, str, SightingState]]:
    """(transfer, asset, state) of what was found for an order, by block and log."""
    rows = await connection.fetch(
        """
        SELECT chain_id, tx_hash, log_index, amount_base, amount_minor, sender, block_number, block_hash, block_time,
               asset, state
        FROM sightings WHERE order_id = $1 AND merchant_id = $2 ORDER BY block_number, log_index LIMIT $3
        """,
        key[0],
        key[1],
        limit,
    )
    return [(read_transfer(row), row["asset"], SightingState(row["state"])) for row in rows]


def _sighting(row: Record) -> Sighting:
    return Sighting(
        id=row["id"],
        version=row["version"],
        state=SightingState(row["state"]),
        spot=((row["chain_id"], row["tx_hash"], row["log_index"]), row["block_hash"]),
        footprint=(row["chain_id"], row["tx_hash"], row["sender"], row["recipient"], row["amount_base"]),
        order_key=(row["order_id"], row["merchant_id"]) if row["order_id"] is not None else None,
    )
