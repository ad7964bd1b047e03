"""Where a claim goes: into the queue, or, when that is full, straight to the verifier."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from kit.database import Database
from kit.errors import Fault, Kind
from orders.domain import Order
from orders.doorbell import Doorbell
from orders.peers import Verifier
from orders.workflow import claims, debts
from orders.workflow import orders as workflow

MAX_INLINE = 32


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
        self._give_up_after = give_up_after
        self._first_look = first_look
        self._queued = 0
        self._inline = asyncio.Semaphore(MAX_INLINE)

    async def count(self) -> None:
        """Counts the queue."""
        self._queued = await debts.queued_claims(self._database, self._max_queued + 1)

    async def detect(self, merchant_id: str | None, order_id: str, tx_hash: str) -> tuple[Order, bool]:
        """Records a claim and has it verified. Returns the order and whether the verification is queued.

        Errors: those of the workflow; Fault `queue_full` when the claim must wait for the sweeper.
        """
        detected = await claims.detect(
            self._database,
            merchant_id=merchant_id,
            order_id=order_id,
            tx_hash=tx_hash,
            give_up_after=self._give_up_after,
            first_look=self._first_look,
        )
        if detected.debt is None:
            return detected.order, detected.open
        if self._queued < self._max_queued:
            self._queued += 1
            self._doorbell.ring([detected.debt])
            return detected.order, True
        if self._inline.locked():
            raise Fault(Kind.UNAVAILABLE, "queue_full", "the claim is recorded and will be verified; the queue is full")
        async with self._inline:
            verdicts = await self._verifier.verify([detected.debt])
        await claims.apply(self._database, self._doorbell, verdicts, first_look=self._first_look)
        order = detected.order
        return await workflow.get(self._database, order.merchant_id, order.id), False
