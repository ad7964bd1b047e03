"""Tells the verifier which addresses to watch, right after the commit; what is dropped here, the sweeper finds."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import structlog
from prometheus_client import Counter

from kit.database import Database
from kit.errors import Fault
from kit.process import Process
from orders.domain import Debt
from orders.peers import Verifier
from orders.workflow import debts

log = structlog.get_logger()

MAX_QUEUED = 20_000
MAX_PACKED = 500

DROPPED = Counter("orders_watches_dropped_total", "Addresses to watch that are left to the sweeper", ["why"])


class Watching:
    """Delivers debts over gRPC, many in one call, without anybody waiting for it."""

    def __init__(self, database: Database, verifier: Verifier, process: Process) -> None:
        self._database = database
        self._verifier = verifier
        self._process = process
        self._queue: deque[Debt] = deque()
        self._rung = asyncio.Event()

    def start(self) -> None:
        """Delivers in the background."""
        self._process.start("watching", self._run())

    def ring(self, watches: Sequence[Debt]) -> None:
        """Hands over debts that are committed."""
        room = max(0, MAX_QUEUED - len(self._queue))
        self._queue.extend(watches[:room])
        if len(watches) > room:
            DROPPED.labels("full").inc(len(watches) - room)
        self._rung.set()

    async def deliver(self, watches: Sequence[Debt]) -> None:
        """Has addresses watched and closes the debts. Errors: Fault."""
        await self._verifier.watch(watches)
        await debts.close(self._database, [debt.event_id for debt in watches], {})

    async def _run(self) -> None:
        while not self._process.stopping or self._queue:
            if not self._queue:
                self._rung.clear()
                await self._process.first(self._rung.wait())
                continue
            packed = [self._queue.popleft() for _ in range(min(MAX_PACKED, len(self._queue)))]
            try:
                await self.deliver(packed)
            except Exception as error:
                # Whatever it was, the rows are there; this loop must not end.
                why = error.reason if isinstance(error, Fault) else "failed"
                DROPPED.labels(why).inc(len(packed))
                log.warning("not_watched", addresses=len(packed), error=repr(error))
