"""Which transfer paid which order, in PostgreSQL."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from asyncpg import Record

from kit.database import Connection
from kit.errors import Fault, Kind
from orders.domain import Credit, Debt, Order, OrderKey, Payment, Reversal, Transfer, TransferKey
from orders.store.orders import changed
from orders.store.outbox import OWE, owe_arguments


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
        FROM unnest($1::text[]) AS t(hash) CROSS JOIN LATERAL (
            SELECT * FROM payments WHERE tx_hash = t.hash OFFSET 0
        ) p CROSS JOIN LATERAL (
            SELECT deposit_address FROM orders WHERE id = p.order_id AND merchant_id = p.merchant_id OFFSET 0
        ) o LEFT JOIN LATERAL (
            SELECT recipient FROM suspense WHERE tx_hash = p.tx_hash AND log_index = p.log_index
              AND chain_id = p.chain_id AND state <> 'REVERSED' OFFSET 0
        ) s ON true
        UNION ALL
        SELECT chain_id, tx_hash, log_index, order_id, merchant_id, 'LATE', sender, amount_base, block_hash, 0, ''
        FROM late_payments WHERE tx_hash = ANY($1::text[])
        """,
        tx_hashes,
    )
    late = {(row["chain_id"], row["tx_hash"], row["log_index"]) for row in rows if row["state"] == "LATE"}
    return [_payment(row) for row in rows if row["state"] != "LATE"], late


async def known_among(
    connection: Connection, tx_hashes: Sequence[str], senders: Collection[str]
) -> tuple[bool, list[str]]:
    """Whether anything of these transactions has paid, came late or is in suspense; which senders are an order's own
    address."""
    # Counted for each, which no plan does but by the index. LIMIT and EXISTS would invite a look through the table.
    row = await connection.fetchrow(
        """
        SELECT (SELECT sum((SELECT count(*) FROM payments p WHERE p.tx_hash = t.tx_hash)
                         + (SELECT count(*) FROM late_payments l WHERE l.tx_hash = t.tx_hash)
                         + (SELECT count(*) FROM suspense s WHERE s.tx_hash = t.tx_hash))
                FROM unnest($1::text[]) AS t(tx_hash)) > 0 AS is_known,
               ARRAY(SELECT sender FROM unnest($2::text[]) AS t(sender)
                     WHERE (SELECT count(*) FROM orders o
                            WHERE o.deposit_address = t.sender AND o.deposit_index IS NOT NULL) > 0) AS internal
        """,
        tx_hashes,
        senders,
    )
    assert row is not None, "a SELECT without FROM has one row"
    return row["is_known"], row["internal"]


async def book(
    connection: Connection,
    credits: Sequence[Credit],
    changes: Sequence[tuple[Order, Order]],
    debts: Sequence[Debt],
    first_look: timedelta,
) -> None:
    """Writes which transfer paid which order, what becomes of the orders, and what is owed for it: one statement.

    `changes` are (before, after) of orders whose rows are locked: PAID or as they were, with the facts beside the
    state. What is received is derived from the rows that say so: payments, those of `credits` as well, and, while the
    order is not paid, what is held. Errors: UniqueViolationError when a transfer has paid already.
    """
    fresh: Counter[OrderKey] = Counter()
    for credit in credits:
        fresh[credit.order.key] += credit.credited_minor
    # IS TRUE keeps the state out of the search: PostgreSQL 18 may take an index that begins with merchant and state and
    # skip from one open order of the merchant to the next. With 70 000 of them a payment took six times the CPU.
    status = await connection.execute(
        f"""
        WITH owed AS ({OWE} ON CONFLICT (event_id) DO NOTHING), paid AS (
            INSERT INTO payments (order_id, merchant_id, event_id, credited_minor, chain_id, tx_hash, log_index,
                                  amount_base, amount_minor, sender, block_number, block_hash, block_time)
            SELECT * FROM unnest($7::text[], $8::text[], $9::uuid[], $10::bigint[], $11::bigint[], $12::text[],
                                 $13::bigint[], $14::numeric[], $15::bigint[], $16::text[], $17::bigint[], $18::text[],
                                 $19::timestamptz[])
        )
        UPDATE orders o SET state = n.state, tx_hash = n.tx_hash, late_minor = n.late, surplus_minor = n.surplus,
               reversed_minor = n.reversed, paid_at = CASE WHEN n.state <> n.before THEN now() ELSE o.paid_at END,
               received_minor = n.fresh + (
                   SELECT coalesce(sum(coalesce(credited_minor, amount_minor)), 0) FROM payments p
                   WHERE p.order_id = o.id AND p.merchant_id = o.merchant_id
               ) + (
                   SELECT coalesce(sum(amount_minor), 0) FROM suspense s
                   WHERE s.order_id = o.id AND s.merchant_id = o.merchant_id
                     AND (s.paid_event_id IS NOT NULL OR n.state IN ('PENDING', 'CONFIRMING', 'EXPIRED')
                                                         AND s.state = 'OPEN' AND s.reason = 'underpaid')
               )
        FROM unnest($20::text[], $21::text[], $22::text[], $23::text[], $24::text[], $25::bigint[], $26::bigint[],
                    $27::bigint[], $28::bigint[])
            AS n(id, merchant_id, before, state, tx_hash, late, surplus, reversed, fresh)
        WHERE o.id = n.id AND o.merchant_id = n.merchant_id AND (o.state = n.before) IS TRUE
        """,  # noqa: S608
        *owe_arguments(debts, first_look),
        [credit.order.id for credit in credits],
        [credit.order.merchant_id for credit in credits],
        [credit.event_id for credit in credits],
        [credit.credited_minor for credit in credits],
        *transfer_arrays([credit.arrival.transfer for credit in credits]),
        [order.id for order, _ in changes],
        [order.merchant_id for order, _ in changes],
        [before.state.value for before, _ in changes],
        [after.state.value for _, after in changes],
        [after.tx_hash for _, after in changes],
        [after.late_minor for _, after in changes],
        [after.surplus_minor for _, after in changes],
        [after.reversed_minor for _, after in changes],
        [fresh[order.key] for order, _ in changes],
    )
    assert changed(status) == len(changes), "the rows were locked in the state that they had before"


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
