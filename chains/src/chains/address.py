"""Addresses of accounts and contracts."""

from __future__ import annotations

from functools import lru_cache

from eth_utils.address import is_hex_address, to_checksum_address
from eth_utils.crypto import keccak

ZERO_ADDRESS = "0x" + "0" * 40


@lru_cache(maxsize=65_536)
def checksum_address(text: str) -> str:
    """The EIP-55 form of an address. All-lower and all-upper digits are accepted, a wrong mixed checksum is not.

    Errors: ValueError, with a sentence for people. Source: EIP-55.
    """
    if len(text) != 42 or not text.startswith("0x") or not is_hex_address(text):
        raise ValueError("must be 0x and 40 hexadecimal digits")
    checksummed = str(to_checksum_address(text))
    digits = text[2:]
    if digits not in (digits.lower(), digits.upper(), checksummed[2:]):
        raise ValueError("has a wrong EIP-55 checksum")
    return checksummed


def address_of(public_key: bytes) -> str:
    """The EIP-55 address of an uncompressed secp256k1 public key of 65 bytes. Errors: ValueError for another form.

    Source: Ethereum's yellow paper, appendix F: the last 20 bytes of the Keccak-256 hash of the key's two coordinates.
    """
    if len(public_key) != 65 or public_key[0] != 4:
        raise ValueError("must be an uncompressed public key of 65 bytes")
    return str(to_checksum_address(keccak(public_key[1:])[-20:]))
