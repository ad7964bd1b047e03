"""Page tokens: opaque to callers, refused when they are not ours or belong to another listing."""

from __future__ import annotations

import base64
import binascii
import struct
from zlib import crc32

from kit.errors import Fault, Kind
from ledger.domain import Position, from_microseconds, microseconds

_FORM = struct.Struct(">qqqI")


def encode(position: Position, *, listing: str) -> str:
    """The token of a position in a listing."""
    numbers = (microseconds(position.created_at), position.seq, position.account_id)
    return base64.urlsafe_b64encode(_FORM.pack(*numbers, _check(numbers, listing))).decode().rstrip("=")


def decode(token: str, *, listing: str) -> Position | None:
    """The position of a token, None of the empty one. Errors: Fault INVALID `invalid_cursor`."""
    if not token:
        return None
    try:
        raw = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        created_at, seq, account_id, check = _FORM.unpack(raw)
        position = Position(from_microseconds(created_at), seq, account_id)
    except (binascii.Error, struct.error, OverflowError):
        raise _invalid() from None
    if check != _check((created_at, seq, account_id), listing):
        raise _invalid()
    return position


def _check(numbers: tuple[int, int, int], listing: str) -> int:
    """No secret: a forged token shows nothing but what its bearer may list anyway."""
    return crc32(f"{numbers} {listing}".encode())


def _invalid() -> Fault:
    return Fault(Kind.INVALID, "invalid_cursor", "page_token is not one of this listing")
