"""API keys: `ospay_<id>_<256 random bits>`, of which only a keyed hash is stored."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

PREFIX = "ospay"


@dataclass(frozen=True)
class NewKey:
    """A key at the moment of its making; `text` is shown once and never stored."""

    id: str
    text: str


def new_key() -> NewKey:
    """A fresh key."""
    key_id = secrets.token_hex(8)
    return NewKey(key_id, f"{PREFIX}_{key_id}_{secrets.token_hex(32)}")


def key_id(text: str) -> str | None:
    """The public part of a key, or None when it has not the form of one."""
    parts = text.split("_")
    if len(parts) != 3 or parts[0] != PREFIX or len(parts[1]) != 16 or len(parts[2]) != 64:
        return None
    return parts[1] if parts[1].isalnum() and parts[1].isascii() else None


class KeyHasher:
    """HMAC-SHA256 under the server's pepper, which is not in the database."""

    def __init__(self, pepper: str) -> None:
        self._pepper = pepper.encode()

    def hash(self, text: str) -> bytes:
        """32 bytes."""
        return hmac.new(self._pepper, text.encode(), hashlib.sha256).digest()

    def matches(self, text: str, key_hash: bytes) -> bool:
        """Compares in constant time."""
        return hmac.compare_digest(self.hash(text), key_hash)
