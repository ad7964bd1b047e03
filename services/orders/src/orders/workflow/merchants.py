"""Merchants and their API keys."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from kit.database import AlreadyThere, Database
from kit.errors import Fault, Kind, invalid
from orders.domain import ApiKey, Debt, Merchant, Terms
from orders.keys import KeyHasher, key_id, new_key
from orders.store import addresses
from orders.store import merchants as store
from orders.workflow.watches import watch_wallet

MAX_LIVE_KEYS = 8


@dataclass(frozen=True)
class NewMerchant:
    """Who registers: with a wallet (EIP-55), or with an extended public key and the account key inside it."""

    id: str | None
    name: str
    wallet: str | None
    xpub: str | None
    account_key: bytes | None
    terms: Terms


async def create(
    database: Database,
    hasher: KeyHasher,
    ring: Callable[[Sequence[Debt]], None],
    asked: NewMerchant,
    *,
    chains: Sequence[str],
    first_look: timedelta,
) -> tuple[Merchant, str | None]:
    """Registers a merchant, whose wallet is watched on `chains`. Returns it and its key; no key when it was known.

    Errors: Fault `merchant_exists`; `invalid_request` for an address or a key that is somebody else's.
    """
    chosen = asked.id or f"mrc_{secrets.token_hex(16)}"
    key = new_key()
    try:
        async with database.transaction() as connection:
            if asked.wallet and await addresses.is_own_address(connection, asked.wallet):
                raise invalid("merchant_wallet_address", "is the address of an order")
            merchant = await store.insert(
                connection,
                chosen,
                asked.name,
                wallet=asked.wallet,
                xpub=asked.xpub,
                account_key=asked.account_key,
                terms=asked.terms,
            )
            if merchant is not None:
                await store.insert_key(connection, key.id, chosen, hasher.hash(key.text))
                debts = await watch_wallet(connection, chains, chosen, first_look) if merchant.wallet else []
    except AlreadyThere:
        merchant = None  # the account key is known: of this merchant, registered at the same moment, or of another
    if merchant is not None:
        ring(debts)
        return merchant, key.text
    async with database.connection() as connection:
        known = await store.find(connection, chosen)
        owner = None if known or not asked.account_key else await store.owner_of(connection, asked.account_key)
    if known is None:
        # Named: it may have been registered by a request without an id, whose answer was lost.
        raise invalid("xpub", f"belongs to merchant {owner}")
    return _same(asked, known), None


def _same(asked: NewMerchant, known: Merchant) -> Merchant:
    same = (asked.name, asked.wallet, asked.xpub, asked.terms) == (known.name, known.wallet, known.xpub, known.terms)
    if not same:
        raise Fault(Kind.EXISTS, "merchant_exists", f"merchant {known.id} exists with another name, wallet or settings")
    return known


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
