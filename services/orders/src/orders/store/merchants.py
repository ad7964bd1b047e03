"""Merchants and API keys in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable

from asyncpg import Record

from kit.database import Connection
from orders.domain import ApiKey, Merchant, Terms

_MERCHANT = "id, name, wallet, xpub, underpayment_tolerance_minor, surplus_policy, created_at"
_KEY = "id, merchant_id, created_at, revoked_at"


async def insert(
    connection: Connection,
    merchant_id: str,
    name: str,
    *,
    wallet: str | None,
    xpub: str | None,
    account_key: bytes | None,
    terms: Terms,
) -> Merchant | None:
    """The new merchant, or None when the id is known. Errors: UniqueViolationError when the account key is known."""
    row = await connection.fetchrow(
        f"""
        INSERT INTO merchants (id, name, wallet, xpub, account_key, underpayment_tolerance_minor, surplus_policy)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (id) DO NOTHING RETURNING {_MERCHANT}
        """,  # noqa: S608  # the columns are constants of this module
        merchant_id,
        name,
        wallet,
        xpub,
        account_key,
        terms.tolerance_minor,
        "CREDIT" if terms.credits_surplus else "SUSPENSE",
    )
    return _merchant(row) if row else None


async def terms(connection: Connection, merchant_ids: Iterable[str]) -> dict[str, Terms]:
    """What these merchants take for paid."""
    rows = await connection.fetch(
        "SELECT id, underpayment_tolerance_minor, surplus_policy FROM merchants WHERE id = ANY($1::text[])",
        sorted(set(merchant_ids)),
    )
    return {row["id"]: _terms(row) for row in rows}


async def find(connection: Connection, merchant_id: str) -> Merchant | None:
    """One merchant."""
    row = await connection.fetchrow(f"SELECT {_MERCHANT} FROM merchants WHERE id = $1", merchant_id)  # noqa: S608
    return _merchant(row) if row else None


async def owner_of(connection: Connection, account_key: bytes) -> str | None:
    """The id of the merchant that has this extended public key."""
    owner: str | None = await connection.fetchval("SELECT id FROM merchants WHERE account_key = $1", account_key)
    return owner


async def count_live_keys(connection: Connection, merchant_id: str) -> int:
    """Keys that are not revoked; the merchant's other key changes wait for this transaction."""
    # Not the merchant's row: that is locked by creates of orders with addresses of their own.
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 1))", merchant_id)
    return int(
        await connection.fetchval(
            "SELECT count(*) FROM api_keys WHERE merchant_id = $1 AND revoked_at IS NULL", merchant_id
        )
    )


async def insert_key(connection: Connection, key_id: str, merchant_id: str, key_hash: bytes) -> ApiKey:
    """Stores a key's hash."""
    row = await connection.fetchrow(
        f"INSERT INTO api_keys (id, merchant_id, key_hash) VALUES ($1, $2, $3) RETURNING {_KEY}",  # noqa: S608
        key_id,
        merchant_id,
        key_hash,
    )
    assert row is not None, "an insert without a conflict clause returns its row"
    return _key(row)


async def list_keys(connection: Connection, merchant_id: str) -> list[ApiKey]:
    """Newest first, at most 100."""
    rows = await connection.fetch(
        f"SELECT {_KEY} FROM api_keys WHERE merchant_id = $1 ORDER BY created_at DESC, id LIMIT 100",  # noqa: S608
        merchant_id,
    )
    return [_key(row) for row in rows]


async def revoke_key(connection: Connection, merchant_id: str, key_id: str) -> ApiKey | None:
    """The revoked key, or None when there is none of this merchant."""
    row = await connection.fetchrow(
        f"""
        UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 AND merchant_id = $2 RETURNING {_KEY}
        """,  # noqa: S608
        key_id,
        merchant_id,
    )
    return _key(row) if row else None


async def find_key_hash(connection: Connection, key_id: str) -> tuple[str, bytes] | None:
    """(merchant id, key hash) of a live key."""
    row = await connection.fetchrow(
        "SELECT merchant_id, key_hash FROM api_keys WHERE id = $1 AND revoked_at IS NULL", key_id
    )
    return (row["merchant_id"], row["key_hash"]) if row else None


def _merchant(row: Record) -> Merchant:
    return Merchant(row["id"], row["name"], row["wallet"], row["created_at"], row["xpub"], _terms(row))


def _terms(row: Record) -> Terms:
    return Terms(row["underpayment_tolerance_minor"], credits_surplus=row["surplus_policy"] == "CREDIT")


def _key(row: Record) -> ApiKey:
    return ApiKey(row["id"], row["merchant_id"], row["created_at"], row["revoked_at"])
