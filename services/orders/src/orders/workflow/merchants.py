"""Merchants and their API keys."""

from __future__ import annotations

import secrets

from kit.database import Database
from kit.errors import Fault, Kind
from orders.domain import ApiKey, Merchant
from orders.keys import KeyHasher, key_id, new_key
from orders.store import merchants as store

MAX_LIVE_KEYS = 8


async def create(
    database: Database, hasher: KeyHasher, *, merchant_id: str | None, name: str, wallet: str
) -> tuple[Merchant, str | None]:
    """Registers a merchant. Returns it and its key; no key when it was known with the same name and wallet.

    Errors: Fault `merchant_exists`.
    """
    chosen = merchant_id or f"mrc_{secrets.token_hex(16)}"
    key = new_key()
    async with database.transaction() as connection:
        merchant = await store.insert(connection, chosen, name, wallet)
        if merchant is not None:
            await store.insert_key(connection, key.id, chosen, hasher.hash(key.text))
            return merchant, key.text
        known = await store.find(connection, chosen)
    assert known is not None, "the id was in conflict, and merchants are never deleted"
    if (known.name, known.wallet) != (name, wallet):
        raise Fault(Kind.EXISTS, "merchant_exists", f"merchant {chosen} exists with another name or wallet")
    return known, None


async def create_key(database: Database, hasher: KeyHasher, merchant_id: str) -> tuple[ApiKey, str]:
    """A further key and its text. Errors: Fault `merchant_not_found`, `too_many_keys`."""
    key = new_key()
    async with database.transaction() as connection:
        if await store.find(connection, merchant_id) is None:
            raise Fault(Kind.NOT_FOUND, "merchant_not_found", f"there is no merchant {merchant_id}")
        if await store.count_live_keys(connection, merchant_id) >= MAX_LIVE_KEYS:
            raise Fault(Kind.EXHAUSTED, "too_many_keys", f"at most {MAX_LIVE_KEYS} live keys; revoke one first")
        return await store.insert_key(connection, key.id, merchant_id, hasher.hash(key.text)), key.text


async def list_keys(database: Database, merchant_id: str) -> list[ApiKey]:
    """A merchant's keys, newest first."""
    async with database.connection() as connection:
        return await store.list_keys(connection, merchant_id)


async def revoke_key(database: Database, merchant_id: str, revoked: str) -> ApiKey:
    """Ends a key. Errors: Fault `api_key_not_found`."""
    async with database.connection() as connection:
        key = await store.revoke_key(connection, merchant_id, revoked)
    if key is None:
        raise Fault(Kind.NOT_FOUND, "api_key_not_found", f"there is no key {revoked}")
    return key


async def authenticate(database: Database, hasher: KeyHasher, text: str) -> tuple[str, str]:
    """(merchant id, key id) of a live key. Errors: Fault `invalid_api_key`."""
    public = key_id(text)
    found = None
    if public is not None:
        async with database.connection() as connection:
            found = await store.find_key_hash(connection, public)
    if public is None or found is None or not hasher.matches(text, found[1]):
        raise Fault(Kind.UNAUTHENTICATED, "invalid_api_key", "the API key is unknown, malformed or revoked")
    return found[0], public
