"""Until when a chain has been looked through, as its passes go."""

from __future__ import annotations

import time
from datetime import timedelta

from chains import Chain
from kit.database import Database
from verifier.domain import Heads
from verifier.watch.store import cursors

NOTE_SECONDS = 1.0
# A chain that shows no new block for so long stands still; fewer are those that are only late, here or at the node.
IDLE_SECONDS, IDLE_BLOCKS = 10.0, 3


class Progress:
    """Of one scanner; see `cursors.look_through`."""

    def __init__(self, chain: Chain, database: Database) -> None:
        self._chain = chain
        self._database = database
        self._began = 0.0
        self._noted_at = float("-inf")

    def begin(self) -> None:
        """A pass begins: what is mined from now on is not seen by it."""
        self._began = time.monotonic()

    async def note(self, term: int, heads: Heads) -> None:
        """Notes up to which time all has been looked through, now that the pass has come to the head, once a second.

        Errors: StoreUnavailable, Fenced.
        """
        now = time.monotonic()
        if now - self._noted_at < NOTE_SECONDS:
            return
        idle = now - self._began + max(IDLE_SECONDS, IDLE_BLOCKS * self._chain.block_seconds)
        async with cursors.leading(self._database, self._chain.chain_id, term) as connection:
            await cursors.look_through(connection, self._chain.chain_id, heads.head.timestamp, timedelta(seconds=idle))
        self._noted_at = now
