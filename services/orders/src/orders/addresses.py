"""Addresses below an extended public key (BIP-32). There is no private key anywhere in here."""

from __future__ import annotations

from functools import lru_cache

from bip32 import BIP32
from coincurve import PublicKey

from chains import address_of

MAX_DEPTH = 4
# Orders are paid at path 0/i below the merchant's key: the external chain of an account.
EXTERNAL = 0


def account_key(xpub: str) -> bytes:
    """Public key and chain code of an extended public key: what all addresses follow from, 65 bytes.

    Errors: ValueError for everything else, private keys first of all; what was given is not in its text.
    """
    if xpub[1:4] in ("prv", "PRV"):
        raise ValueError("is a private key: it was not kept, and should be held for lost. Give the extended public key")
    try:
        key = BIP32.from_xpub(xpub)
        is_same = key.network == "main" and key.get_xpub() == xpub
    except (ValueError, AssertionError):  # the library asserts the length
        is_same = False
    if not is_same:
        raise ValueError("is no extended public key: expected xpub… as BIP-32 serializes it")
    if key.depth > MAX_DEPTH:
        raise ValueError(f"is too deep: expected the key of an account, at most {MAX_DEPTH} levels below the master")
    return bytes(key.pubkey) + bytes(key.chaincode)


def derive(xpub: str, index: int) -> str:
    """The address (EIP-55) at path 0/`index` below a key that `account_key` has accepted."""
    branch, chain_code = _external(xpub)
    child = BIP32(chain_code, pubkey=branch).get_pubkey_from_path([index])
    return address_of(PublicKey(child).format(compressed=False))


@lru_cache(maxsize=1024)
def _external(xpub: str) -> tuple[bytes, bytes]:
    """Public key and chain code of the branch that the addresses are on: half of the work of each derivation."""
    chain_code, branch = BIP32.from_xpub(xpub).get_extended_pubkey_from_path([EXTERNAL])
    return branch, chain_code
