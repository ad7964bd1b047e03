"""Until when a chain has been looked through, as its passes go."""

from __future__ import annotations

import time
from datetime import timedelta

from chains import Chain
from kit.database import Database
from verifier.domain import Header, Heads
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
        self._head, self._head_since = -1, 0.0
        self._noted_at = float("-inf")

    def begin(self) -> None:
        """A pass begins: what is mined from now on is not seen by it."""
        self._began = time.monotonic()

    async def note(self, term: int, heads: Heads, *, highest: int, end: Header | None = None) -> None:
        """Notes up to which time all has been looked through, once a second: to the head, or to the block `end`.

        `highest` is the newest block that any operator tells. Errors: StoreUnavailable, Fenced.
        """
        if heads.head.number != self._head:
            self._head, self._head_since = heads.head.number, self._began
        now = time.monotonic()
        if now - self._noted_at < NOTE_SECONDS:
            return
        pause = max(IDLE_SECONDS, IDLE_BLOCKS * self._chain.block_seconds)
        # A head that moves, or that somebody is past, may be late: only its own time counts.
        is_still = end is None and highest <= self._head and self._began - self._head_since >= pause
        reached = min(heads.head.timestamp, end.timestamp) if end is not None else heads.head.timestamp
        idle = timedelta(seconds=now - self._began + pause) if is_still else None
        async with cursors.leading(self._database, self._chain.chain_id, term) as connection:
            await cursors.look_through(connection, self._chain.chain_id, reached, idle)
        self._noted_at = now
