"""Whose key is it: asked of orders, remembered for seconds."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kit.errors import Fault, Kind

# A revoked key must be refused within 5 s.
GOOD_SECONDS = 3.0
BAD_SECONDS = 1.0
MAX_GOOD = 10_000
MAX_BAD = 10_000
MAX_ASKING = 256
MAX_KEY_LENGTH = 256


@dataclass(frozen=True, slots=True)
class _Known:
    merchant_id: str
    until: float


class KeyCache:
    """Merchants by API key. Keys are held as SHA-256 only; a bad key can push out bad keys only.

    `ask` answers with the merchant's id, or raises Fault UNAUTHENTICATED `invalid_api_key`.
    """

    def __init__(self, ask: Callable[[str], Awaitable[str]], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._good: OrderedDict[bytes, _Known] = OrderedDict()
        self._bad: OrderedDict[bytes, float] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[str]] = {}

    async def merchant(self, key: str) -> str:
        """The id of the key's merchant. Errors: UNAUTHENTICATED `invalid_api_key`; UNAVAILABLE."""
        if not 0 < len(key) <= MAX_KEY_LENGTH or not key.isascii() or not key.isprintable():
            raise _invalid()
        digest = hashlib.sha256(key.encode()).digest()
        now = self._clock()
        known = self._good.get(digest)
        if known is not None and now < known.until:
            self._good.move_to_end(digest)
            return known.merchant_id
        if now < self._bad.get(digest, now):
            raise _invalid()
        # Shielded: who goes away must not take the answer from the others that wait for it.
        return await asyncio.shield(self._asking.get(digest) or self._start(digest, key))

    def _start(self, digest: bytes, key: str) -> asyncio.Task[str]:
        if len(self._asking) >= MAX_ASKING:
            raise Fault(Kind.UNAVAILABLE, "overloaded", "too many keys are being looked up; try again")
        task = asyncio.create_task(self._find(digest, key))
        self._asking[digest] = task
        task.add_done_callback(lambda done: self._ended(digest, done))
        return task

    async def _find(self, digest: bytes, key: str) -> str:
        # The time before the question: an answer is as old as its question.
        now = self._clock()
        try:
            merchant_id = await self._ask(key)
        except Fault as fault:
            if fault.kind is not Kind.UNAUTHENTICATED or fault.reason != "invalid_api_key":
                raise
            self._good.pop(digest, None)
            self._bad[digest] = now + BAD_SECONDS
            _trim(self._bad, MAX_BAD)
            raise _invalid() from None
        self._good[digest] = _Known(merchant_id, now + GOOD_SECONDS)
        self._good.move_to_end(digest)
        _trim(self._good, MAX_GOOD)
        return merchant_id

    def _ended(self, digest: bytes, task: asyncio.Task[str]) -> None:
        del self._asking[digest]
        if not task.cancelled():
            task.exception()  # retrieved, also when everyone who waited went away


def _trim(entries: OrderedDict[bytes, _Known] | OrderedDict[bytes, float], size: int) -> None:
    while len(entries) > size:
        entries.popitem(last=False)


def _invalid() -> Fault:
    return Fault(Kind.UNAUTHENTICATED, "invalid_api_key", "X-API-Key is not a live key")
