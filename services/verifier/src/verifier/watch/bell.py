"""Rings when sightings have changed. What is lost here is handed out by TakeReports."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from uuid import UUID

import structlog

from kit.process import Process
from verifier.domain import StoreUnavailable
from verifier.watch.decisions import Report
from verifier.watch.register import Register

log = structlog.get_logger()

BATCH = 500
MOST_WAITING = 20_000

Publish = Callable[[Sequence[Report]], Awaitable[bool]]


class Bell:
    """Publishes how changed sightings stand now; a change during that time is told by the next message."""

    def __init__(self, register: Register, publish: Publish) -> None:
        self._register = register
        self._publish = publish
        self._waiting: dict[UUID, None] = {}
        self._rung = asyncio.Event()

    def ring(self, ids: Collection[UUID]) -> None:
        """Nobody waits: a broker that hangs holds up no scan. Past a bound nothing is added."""
        if len(self._waiting) < MOST_WAITING:
            self._waiting.update(dict.fromkeys(ids))
            self._rung.set()

    async def run(self, process: Process) -> None:
        """Publishes until the process stops."""
        while not process.stopping:
            await process.first(self._rung.wait())
            self._rung.clear()
            while self._waiting and not process.stopping:
                ids = list(self._waiting)[:BATCH]
                for id in ids:
                    del self._waiting[id]
                try:
                    await self._publish(await self._register.read(ids))
                except StoreUnavailable as error:
                    log.warning("reports_not_published", reports=len(ids), error=str(error))
