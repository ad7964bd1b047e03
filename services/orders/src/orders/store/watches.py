"""On which chains the merchants' wallets are watched, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kit.database import Connection


@dataclass(frozen=True)
class WalletWatch:
    """A wallet that is to be watched on a chain, from when its merchant was registered."""

    merchant_id: str
    wallet: str
    chain: str
    since: datetime


async def insert_missing(
    connection: Connection, chains: Sequence[str], merchant_id: str | None, limit: int
) -> list[WalletWatch]:
    """Notes that wallets (of one merchant where given) are watched on these chains. Returns those that were not."""
    rows = await connection.fetch(
        """
        WITH missing AS (
            SELECT m.id, c.chain FROM merchants m CROSS JOIN unnest($1::text[]) AS c(chain)
            WHERE m.wallet IS NOT NULL AND ($2::text IS NULL OR m.id = $2) AND NOT EXISTS (
                SELECT FROM wallet_watches w WHERE w.merchant_id = m.id AND w.chain = c.chain)
            ORDER BY m.id, c.chain LIMIT $3
        ), fresh AS (
            INSERT INTO wallet_watches (merchant_id, chain) SELECT id, chain FROM missing
            ON CONFLICT DO NOTHING RETURNING merchant_id, chain
        )
        SELECT f.merchant_id, m.wallet, f.chain, m.created_at AS since
        FROM fresh f JOIN merchants m ON m.id = f.merchant_id
        """,
        chains,
        merchant_id,
        limit,
    )
    return [WalletWatch(**dict(row)) for row in rows]


async def wallets_after(connection: Connection, merchant_id: str, limit: int) -> list[tuple[str, str, datetime]]:
    """The next merchants with a wallet: (id, wallet, registered at), in the order of their ids."""
    rows = await connection.fetch(
        "SELECT id, wallet, created_at FROM merchants WHERE wallet IS NOT NULL AND id > $1 ORDER BY id LIMIT $2",
        merchant_id,
        limit,
    )
    return [tuple(row) for row in rows]
