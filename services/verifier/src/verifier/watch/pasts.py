"""Whose past is looked through next."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kit.database import Database
from verifier.store import unavailable
from verifier.watch.store import watches
from verifier.watch.store.watches import Past

# How long a past that could not be looked through is put back, at first and at most.
PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 300.0


class Pasts:
    """The addresses of a chain that catch up, the oldest first.

    What cannot be looked through now, as a node may have forgotten it, keeps what is newer waiting no longer.
    """

    def __init__(self, chain_id: int, database: Database) -> None:
        self._chain_id = chain_id
        self._database = database
        # Until when, by the monotonic clock, and for how long.
        self._put_back: dict[str, tuple[float, float]] = {}

    async def next(self, limit: int) -> list[Past]:
        """At most `limit`; those that were put back only when there are no others. Errors: StoreUnavailable."""
        now = time.monotonic()
        later = [address for address, (until, _) in self._put_back.items() if now < until]
        with unavailable():
            async with self._database.connection() as connection:
                found = await watches.catching_up(connection, self._chain_id, limit, later)
                if not found and later:
                    found = await watches.catching_up(connection, self._chain_id, limit, [])
        return found

    def put_back(self, pasts: Sequence[Past]) -> None:
        """These could not be looked through."""
        now = time.monotonic()
        # Those that are long due again have been looked through since.
        self._put_back = {
            address: (until, pause)
            for address, (until, pause) in self._put_back.items()
            if now < until + MAX_PAUSE_SECONDS
        }
        for past in pasts:
            before = self._put_back.get(past.address)
            pause = min(2 * before[1], MAX_PAUSE_SECONDS) if before else PAUSE_SECONDS
            self._put_back[past.address] = (now + pause, pause)
