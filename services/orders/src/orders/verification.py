"""Where a claim goes: into the queue, or, when that is full, straight to the verifier."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from uuid import UUID

import structlog

from kit.database import Database
from kit.errors import Fault
from orders.domain import Debt, Order
from orders.doorbell import Doorbell
from orders.peers import Verifier
from orders.workflow import claims, debts
from orders.workflow import orders as workflow

log = structlog.get_logger()

MAX_INLINE = 32
# The caller waits for it, and many more with him: what takes longer is queued after all.
INLINE_SECONDS = 2.0
AFTER_FAILURE_SECONDS = 5.0


class Verification:
    """Takes claims; the bound of the queue is counted a few times a second, not for each claim."""

    def __init__(
        self,
        database: Database,
        doorbell: Doorbell,
        verifier: Verifier,
        *,
        max_queued: int,
        give_up_after: timedelta,
        first_look: timedelta,
    ) -> None:
        self._database = database
        self._doorbell = doorbell
        self._verifier = verifier
        self._max_queued = max_queued
        self.give_up_after = give_up_after
        self._first_look = first_look
        self._queued = 0
        self._inline = asyncio.Semaphore(MAX_INLINE)
        self._closed_until = 0.0

    async def count(self) -> None:
        """Counts the queue."""
        self._queued = await debts.queued_claims(self._database, self._max_queued + 1)

    async def detect(self, asked: Sequence[claims.Asked]) -> list[tuple[Order, bool] | Fault]:
        """Records claims and has them verified. For each the order and whether its verification is queued, or a Fault.

        Faults: those of the workflow. Where the queue is full and the inline way is full or closed as well, the claim
        waits in the outbox: it is queued all the same.
        """
        results = await claims.detect(
            self._database, asked, give_up_after=self.give_up_after, first_look=self._first_look
        )
        debts_made = [item.debt for item in results if isinstance(item, claims.Detected) and item.debt]
        verified = await self.carry(debts_made)
        if not verified:
            return [item if isinstance(item, Fault) else (item.order, item.open) for item in results]
        keys = [item.order.key for item in results if isinstance(item, claims.Detected)]
        after = await workflow.find_many(self._database, keys)
        return [_after(item, verified, after) for item in results]

    async def carry(self, made: Sequence[Debt]) -> AbstractSet[UUID]:
        """Has committed debts verified. Returns the ids of the claims that were verified inline; the others wait."""
        room = max(0, self._max_queued - self._queued)
        queued, inline = made[:room], made[room:]
        self._queued += len(queued)
        self._doorbell.ring(queued)
        return await self._verify_now(inline) if inline else frozenset()

    async def _verify_now(self, inline: Sequence[Debt]) -> AbstractSet[UUID]:
        """The ids of the claims that were verified; none when even this way is full or closed."""
        if self._inline.locked() or time.monotonic() < self._closed_until:
            return frozenset()
        try:
            async with self._inline:
                verdicts = await self._verifier.verify(inline, INLINE_SECONDS)
        except Fault as fault:
            self._closed_until = time.monotonic() + AFTER_FAILURE_SECONDS
            log.warning("not_verified_inline", claims=len(inline), reason=fault.reason, detail=fault.detail)
            return frozenset()
        return await claims.apply(self._database, self._doorbell, verdicts, first_look=self._first_look)


def _after(
    result: claims.Detected | Fault, verified: AbstractSet[UUID], after: Mapping[tuple[str, str], Order]
) -> tuple[Order, bool] | Fault:
    if isinstance(result, Fault):
        return result
    if result.debt is None or result.debt.event_id not in verified:
        return result.order, result.open
    return after[result.order.key], False
