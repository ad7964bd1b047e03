"""What those who watch ask of the verifier: addresses to watch, reports, how far a chain has been looked through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from kit.database import Database
from verifier.store import unavailable
from verifier.watch.decisions import Report
from verifier.watch.ranges import Position
from verifier.watch.store import cursors, reports, watches
from verifier.watch.watching import Span, SpanState, Watch, merged

LEASE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Coverage:
    """How far a chain has been looked through.

    `position` is None before its first final block, `looked_through_at` before its first pass.
    """

    position: Position | None
    looked_through_at: datetime | None
    watched: int
    catching_up: int


class Register:
    """The same on every replica, whichever of them scans. Errors of all: StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def watch(self, wanted: Sequence[Watch]) -> None:
        """Takes addresses to watch; they are on disk when this returns."""
        with unavailable():
            async with self._database.transaction() as connection:
                await watches.add(connection, merged(wanted))

    async def take(self, limit: int) -> list[Report]:
        """Reports that were not confirmed in time, oldest change first; others get them only after some seconds."""
        with unavailable():
            async with self._database.connection() as connection:
                taken = await reports.take(connection, limit, LEASE)
                return await reports.read(connection, taken) if taken else []

    async def read(self, ids: Sequence[UUID]) -> list[Report]:
        """How these sightings stand now."""
        with unavailable():
            async with self._database.connection() as connection:
                return await reports.read(connection, ids)

    async def confirm(self, told: Sequence[tuple[UUID, int]]) -> None:
        """Closes reports up to the versions named."""
        newest: dict[UUID, int] = {}
        for id, version in told:
            newest[id] = max(version, newest.get(id, 0))
        with unavailable():
            async with self._database.connection() as connection:
                await reports.confirm(connection, newest)

    async def open_reports(self) -> int:
        """How many reports are not confirmed."""
        with unavailable():
            async with self._database.connection() as connection:
                return await reports.count_open(connection)

    async def looked_through(self, chain_id: int) -> datetime | None:
        """Up to which time a chain has been looked through; None before the first pass."""
        with unavailable():
            async with self._database.connection() as connection:
                return await cursors.looked_through(connection, chain_id)

    async def coverage(self, chain_id: int) -> Coverage:
        """How far a chain has been looked through."""
        with unavailable():
            async with self._database.connection() as connection:
                position = await cursors.position(connection, chain_id)
                looked_through_at = await cursors.looked_through(connection, chain_id)
                watched, catching_up = await watches.count(connection, chain_id)
        return Coverage(position, looked_through_at, watched, catching_up)

    async def check(self, spans: Sequence[Span]) -> list[SpanState]:
        """Whether more may come to light of these, in their order."""
        with unavailable():
            async with self._database.connection() as connection:
                return await watches.check(connection, spans)
