"""Closing debts: what other services have confirmed, and what they refuse."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import structlog
from prometheus_client import Counter

from kit.database import Database
from orders.domain import Debt
from orders.store import outbox

log = structlog.get_logger()

BURIED = Counter("orders_outbox_buried_total", "Debts that the other side refuses for good")


async def close(database: Database, event_ids: Sequence[UUID], refused: dict[UUID, str]) -> None:
    """Closes what is confirmed; what is refused for good stays, marked, for somebody to look at."""
    async with database.connection() as connection:
        if event_ids:
            await outbox.close(connection, event_ids)
        if refused:
            await outbox.bury(connection, refused)
            BURIED.inc(len(refused))
            log.error("debts_refused", debts={str(key): reason for key, reason in refused.items()})


async def take_due(
    database: Database, subjects: Sequence[str], pause: timedelta, longest: timedelta, limit: int
) -> list[Debt]:
    """Debts of these subjects that were not confirmed in time."""
    async with database.connection() as connection:
        return await outbox.take_due(connection, subjects, pause, longest, limit)


async def queued_claims(database: Database, up_to: int) -> int:
    """How many claims wait to be verified, counted up to a bound."""
    async with database.connection() as connection:
        return await outbox.count_claims(connection, up_to)


async def depth(database: Database) -> tuple[int, int, float]:
    """(open, dead, seconds since the oldest open one)"""
    async with database.connection() as connection:
        return await outbox.depth(connection)


async def dead_letter(database: Database, subject: str, payload: bytes, reason: str) -> None:
    """Keeps a message that could not be understood, and says so."""
    log.error("dead_letter", subject=subject, reason=reason, bytes=len(payload))
    async with database.connection() as connection:
        await outbox.insert_dead_letter(connection, subject, payload, reason)
