"""Final money that pays no order, or not yet, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from asyncpg import Record

from kit.database import Connection
from orders.domain import Arrival, Credit, Hold, Move, OrderKey, Page, Release, Reversal, SuspenseItem, SuspenseState
from orders.store.orders import changed
from orders.store.payments import Contended, read_transfer, transfer_arrays

_COLUMNS = """id, merchant_id, order_id, chain, asset, chain_id, tx_hash, log_index, block_number, block_hash,
    block_time, sender, recipient, amount_base, transfer_minor AS amount_minor, amount_minor AS held_minor, reason,
    state, paid_event_id IS NOT NULL AS pays, note, created_at, resolved_at"""


async def of_transactions(connection: Connection, tx_hashes: Sequence[str]) -> list[SuspenseItem]:
    """What of these transactions is or was in suspense, locked: the operator may be deciding on it at this moment."""
    rows = await connection.fetch(
        f"""
        SELECT {_COLUMNS} FROM suspense WHERE id = ANY(ARRAY(
            SELECT s.id FROM unnest($1::text[]) AS t(hash) CROSS JOIN LATERAL (
                SELECT id FROM suspense WHERE tx_hash = t.hash OFFSET 0
            ) s
        )) ORDER BY created_at, id FOR UPDATE
        """,  # noqa: S608
        tx_hashes,
    )
    return [_item(row) for row in rows]


async def held_for(connection: Connection, keys: Sequence[OrderKey]) -> list[SuspenseItem]:
    """What waits for the rest of what these orders ask for, oldest first."""
    rows = await connection.fetch(
        f"""
        SELECT {_COLUMNS} FROM suspense
        WHERE (order_id, merchant_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
          AND state = 'OPEN' AND reason = 'underpaid'
        ORDER BY created_at, id
        """,  # noqa: S608
        [order_id for order_id, _ in keys],
        [merchant_id for _, merchant_id in keys],
    )
    return [_item(row) for row in rows]


async def find(connection: Connection, item_id: UUID) -> SuspenseItem | None:
    """One item."""
    row = await connection.fetchrow(f"SELECT {_COLUMNS} FROM suspense WHERE id = $1", item_id)  # noqa: S608
    return _item(row) if row else None


async def lock(connection: Connection, item_id: UUID) -> SuspenseItem:
    """One item that is known to exist, locked for a change."""
    row = await connection.fetchrow(f"SELECT {_COLUMNS} FROM suspense WHERE id = $1 FOR UPDATE", item_id)  # noqa: S608
    assert row is not None, "items are never deleted"
    return _item(row)


async def of_order(connection: Connection, key: OrderKey, limit: int) -> list[SuspenseItem]:
    """What is or was in suspense of an order."""
    rows = await connection.fetch(
        f"""
        SELECT {_COLUMNS} FROM suspense WHERE order_id = $1 AND merchant_id = $2
        ORDER BY block_number, log_index LIMIT $3
        """,  # noqa: S608
        key[0],
        key[1],
        limit,
    )
    return [_item(row) for row in rows]


async def list_page(
    connection: Connection, merchant_id: str | None, state: SuspenseState | None, after: Page | None, limit: int
) -> list[SuspenseItem]:
    """The newest items before a position, of one merchant and in one state where given."""
    rows = await connection.fetch(
        f"""
        SELECT {_COLUMNS} FROM suspense
        WHERE ($1::text IS NULL OR merchant_id = $1) AND ($2::text IS NULL OR state = $2)
          AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4::uuid))
        ORDER BY created_at DESC, id DESC LIMIT $5
        """,  # noqa: S608
        merchant_id,
        state.value if state else None,
        after.created_at if after else None,
        UUID(after.id) if after else None,
        limit,
    )
    return [_item(row) for row in rows]


async def insert(connection: Connection, holds: Sequence[Hold]) -> None:
    """Money comes into suspense. Errors: UniqueViolationError when the transfer is there already."""
    items = [hold.item for hold in holds]
    await connection.execute(
        """
        INSERT INTO suspense (id, merchant_id, order_id, chain, asset, recipient, reason, amount_minor,
                              received_event_id, chain_id, tx_hash, log_index, amount_base, sender, block_number,
                              block_hash, block_time, transfer_minor)
        SELECT id, merchant_id, order_id, chain, asset, recipient, reason, amount_minor, received_event_id,
               chain_id, tx_hash, log_index, amount_base, sender, block_number, block_hash, block_time, transfer_minor
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
                    $9::uuid[], $10::bigint[], $11::text[], $12::bigint[], $13::numeric[], $14::bigint[], $15::text[],
                    $16::bigint[], $17::text[], $18::timestamptz[])
            AS i(id, merchant_id, order_id, chain, asset, recipient, reason, amount_minor, received_event_id, chain_id,
                 tx_hash, log_index, amount_base, transfer_minor, sender, block_number, block_hash, block_time)
        """,
        [item.id for item in items],
        [item.merchant_id for item in items],
        [item.order_id for item in items],
        [item.arrival.chain for item in items],
        [item.arrival.asset for item in items],
        [item.arrival.recipient for item in items],
        [item.reason for item in items],
        [item.amount_minor for item in items],
        [hold.event_id for hold in holds],
        *transfer_arrays([item.arrival.transfer for item in items]),
    )


async def move(connection: Connection, moves: Sequence[Move]) -> None:
    """Open items are found to concern an order. Errors: Contended."""
    status = await connection.execute(
        """
        UPDATE suspense s SET order_id = m.order_id, reason = m.reason
        FROM unnest($1::uuid[], $2::text[], $3::text[]) AS m(id, order_id, reason)
        WHERE s.id = m.id AND s.state = 'OPEN'
        """,
        [item.item.id for item in moves],
        [item.item.order_id for item in moves],
        [item.item.reason for item in moves],
    )
    if changed(status) != len(moves):
        raise Contended


async def release(
    connection: Connection,
    releases: Sequence[Release],
    credits: Sequence[Credit],
    *,
    note: str = "",
    return_tx_hash: str | None = None,
) -> None:
    """OPEN → ALLOCATED, RETURNED or REVERSED; `credits` are those that have no row among the payments.

    Rows are locked in the order of their ids. Errors: Contended.
    """
    paid = {credit.item_id: credit.event_id for credit in credits}
    status = await connection.execute(
        """
        UPDATE suspense s SET state = r.state, order_id = r.order_id, released_event_id = r.event_id,
               paid_event_id = r.paid_event_id, resolved_at = now(), note = $6, return_tx_hash = $7
        FROM (
            SELECT r.* FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::uuid[])
                AS r(id, state, order_id, event_id, paid_event_id)
            JOIN suspense l ON l.id = r.id ORDER BY l.id FOR UPDATE OF l
        ) r
        WHERE s.id = r.id AND s.state = 'OPEN'
        """,
        [release.item.id for release in releases],
        [release.state.value for release in releases],
        [release.order_id for release in releases],
        [release.event_id for release in releases],
        [paid.get(release.item.id) for release in releases],
        note,
        return_tx_hash,
    )
    if changed(status) != len(releases):
        raise Contended


async def name_return(connection: Connection, item_id: UUID, tx_hash: str, note: str) -> bool:
    """Writes down the transaction that sent an item back, and a note if there is one; False where another is noted."""
    status = await connection.execute(
        """
        UPDATE suspense SET return_tx_hash = $2, note = coalesce(nullif($3, ''), note)
        WHERE id = $1 AND state = 'RETURNED' AND coalesce(return_tx_hash, $2) = $2
        """,
        item_id,
        tx_hash,
        note,
    )
    return changed(status) == 1


async def reverse(connection: Connection, reversals: Sequence[Reversal]) -> None:
    """ALLOCATED → REVERSED, for what has paid an order and is not among the payments. Errors: Contended."""
    status = await connection.execute(
        """
        UPDATE suspense s SET state = 'REVERSED', reversed_event_id = r.event_id
        FROM unnest($1::uuid[], $2::uuid[]) AS r(id, event_id)
        WHERE s.id = r.id AND s.state = 'ALLOCATED' AND s.paid_event_id IS NOT NULL
        """,
        [reversal.item_id for reversal in reversals],
        [reversal.event_id for reversal in reversals],
    )
    if changed(status) != len(reversals):
        raise Contended


async def void(connection: Connection, item_ids: Sequence[UUID]) -> None:
    """ALLOCATED or RETURNED → REVERSED: what had left suspense before the chain took it back. Errors: Contended."""
    status = await connection.execute(
        "UPDATE suspense SET state = 'REVERSED' WHERE id = ANY($1::uuid[]) AND state IN ('ALLOCATED', 'RETURNED')",
        item_ids,
    )
    if changed(status) != len(item_ids):
        raise Contended


async def returns_among(connection: Connection, tx_hashes: Sequence[str]) -> set[str]:
    """Those of these transactions that sent an item back, whatever became of it since."""
    rows = await connection.fetch(
        "SELECT return_tx_hash FROM suspense WHERE return_tx_hash = ANY($1::text[])", tx_hashes
    )
    return {row["return_tx_hash"] for row in rows}


async def count_open(connection: Connection) -> int:
    """Items that wait for somebody to decide."""
    return int(await connection.fetchval("SELECT count(*) FROM suspense WHERE state = 'OPEN'"))


def _item(row: Record) -> SuspenseItem:
    arrival = Arrival(row["chain"], row["asset"], row["recipient"], read_transfer(row))
    return SuspenseItem(
        id=row["id"],
        merchant_id=row["merchant_id"],
        order_id=row["order_id"],
        arrival=arrival,
        amount_minor=row["held_minor"],
        reason=row["reason"],
        state=SuspenseState(row["state"]),
        pays=row["pays"],
        note=row["note"],
        created_at=row["created_at"],
        resolved_at=row["resolved_at"],
    )
