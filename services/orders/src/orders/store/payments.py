"""Which transfer paid which order, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from asyncpg import Record

from kit.database import Connection
from kit.errors import Fault, Kind
from orders.domain import Credit, OrderKey, Payment, Reversal, Transfer, TransferKey
from orders.store.orders import changed


class Contended(Fault):
    """Somebody else has changed it in between: look again."""

    def __init__(self) -> None:
        super().__init__(Kind.UNAVAILABLE, "unavailable", "somebody else changed it at the same moment; try again")


async def now(connection: Connection) -> datetime:
    """The time of this transaction."""
    found = await connection.fetchval("SELECT now()")
    assert isinstance(found, datetime), "PostgreSQL knows the time"
    return found


async def find(connection: Connection, tx_hashes: Sequence[str]) -> tuple[list[Payment], set[TransferKey]]:
    """What the transfers of these transactions have paid, and which of them came late before suspense was kept."""
    rows = await connection.fetch(
        """
        SELECT p.chain_id, p.tx_hash, p.log_index, p.order_id, p.merchant_id, p.state, p.sender, p.amount_base,
               p.block_hash, coalesce(p.credited_minor, p.amount_minor) AS credited,
               -- What came out of suspense may have reached another address than its order's.
               coalesce(s.recipient, o.deposit_address) AS recipient
        FROM payments p JOIN orders o ON o.id = p.order_id AND o.merchant_id = p.merchant_id
        LEFT JOIN suspense s ON s.tx_hash = p.tx_hash AND s.log_index = p.log_index AND s.chain_id = p.chain_id
            AND s.state <> 'REVERSED'
        WHERE p.tx_hash = ANY($1::text[])
        UNION ALL
        SELECT chain_id, tx_hash, log_index, order_id, merchant_id, 'LATE', sender, amount_base, block_hash, 0, ''
        FROM late_payments WHERE tx_hash = ANY($1::text[])
        """,
        tx_hashes,
    )
    late = {(row["chain_id"], row["tx_hash"], row["log_index"]) for row in rows if row["state"] == "LATE"}
    return [_payment(row) for row in rows if row["state"] != "LATE"], late


async def insert(connection: Connection, credits: Sequence[Credit]) -> None:
    """Records which transfer paid which order. Errors: UniqueViolationError when a transfer has paid already."""
    await connection.execute(
        """
        INSERT INTO payments (order_id, merchant_id, event_id, credited_minor, chain_id, tx_hash, log_index,
                              amount_base, amount_minor, sender, block_number, block_hash, block_time)
        SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[],
                             $8::numeric[], $9::bigint[], $10::text[], $11::bigint[], $12::text[], $13::timestamptz[])
        """,
        [credit.order.id for credit in credits],
        [credit.order.merchant_id for credit in credits],
        [credit.event_id for credit in credits],
        [credit.credited_minor for credit in credits],
        *transfer_arrays([credit.arrival.transfer for credit in credits]),
    )


async def reverse(connection: Connection, reversals: Sequence[Reversal]) -> None:
    """CREDITED → REVERSED. Errors: Contended."""
    status = await connection.execute(
        """
        UPDATE payments p SET state = 'REVERSED', reversed_event_id = r.event_id, reversed_at = now()
        FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::uuid[]) AS r(chain_id, tx_hash, log_index, event_id)
        WHERE p.chain_id = r.chain_id AND p.tx_hash = r.tx_hash AND p.log_index = r.log_index AND p.state = 'CREDITED'
        """,
        [reversal.key[0] for reversal in reversals],
        [reversal.key[1] for reversal in reversals],
        [reversal.key[2] for reversal in reversals],
        [reversal.event_id for reversal in reversals],
    )
    if changed(status) != len(reversals):
        raise Contended


async def of_order(connection: Connection, key: OrderKey, limit: int) -> list[tuple[Transfer, int, bool]]:
    """(transfer, credited, reversed) of the payments of an order, by block and log; minor units."""
    rows = await connection.fetch(
        """
        SELECT chain_id, tx_hash, log_index, amount_base, amount_minor, sender, block_number, block_hash, block_time,
               coalesce(credited_minor, amount_minor) AS credited, state
        FROM payments WHERE order_id = $1 AND merchant_id = $2 ORDER BY block_number, log_index LIMIT $3
        """,
        key[0],
        key[1],
        limit,
    )
    return [(read_transfer(row), row["credited"], row["state"] == "REVERSED") for row in rows]


def transfer_arrays(transfers: Sequence[Transfer]) -> list[list[object]]:
    """The columns of transfers, in the order: chain id, transaction, log, base, minor, sender, number, hash, time."""
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


def read_transfer(row: Record) -> Transfer:
    """A transfer from a row that has its columns."""
    return Transfer(
        chain_id=row["chain_id"],
        tx_hash=row["tx_hash"],
        log_index=row["log_index"],
        block_number=row["block_number"],
        block_hash=row["block_hash"],
        block_time=row["block_time"],
        sender=row["sender"],
        amount_base=row["amount_base"],
        amount_minor=row["amount_minor"],
    )


def _payment(row: Record) -> Payment:
    return Payment(
        key=(row["chain_id"], row["tx_hash"], row["log_index"]),
        order_key=(row["order_id"], row["merchant_id"]),
        credited_minor=row["credited"],
        footprint=(row["chain_id"], row["tx_hash"], row["sender"], row["recipient"], row["amount_base"]),
        block_hash=row["block_hash"],
        reversed=row["state"] == "REVERSED",
    )
