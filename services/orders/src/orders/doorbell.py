"""Rings for other services right after a commit. What it drops, the sweeper finds in the outbox."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import structlog
from opentelemetry.trace import SpanKind
from prometheus_client import Counter

from kit import telemetry
from kit.bus import Bus
from kit.errors import Fault
from kit.process import Process
from orders.domain import Debt
from orders.messages import PAYMENT_CLAIMED
from ospay.ledger.v1 import ledger_pb2
from ospay.verifier.v1 import verifier_pb2

log = structlog.get_logger()

MAX_QUEUED = 20_000
MAX_PACKED = 200

DROPPED = Counter("orders_doorbell_dropped_total", "Debts left to the sweeper", ["why"])


class Doorbell:
    """Publishes debts, many in one message, without anybody waiting for it."""

    def __init__(self, bus: Bus, process: Process) -> None:
        self._bus = bus
        self._process = process
        self._queue: deque[Debt] = deque()
        self._rung = asyncio.Event()

    def start(self) -> None:
        """Publishes in the background."""
        self._process.start("doorbell", self._run())

    def ring(self, debts: Sequence[Debt]) -> None:
        """Hands over debts that are committed."""
        for debt in debts:
            if len(self._queue) >= MAX_QUEUED:
                DROPPED.labels("full").inc()
                continue
            self._queue.append(debt)
        self._rung.set()

    async def _run(self) -> None:
        while not self._process.stopping or self._queue:
            if not self._queue:
                self._rung.clear()
                await self._process.first(self._rung.wait())
                continue
            subject = self._queue[0].subject
            packed = self._take(subject)
            await self._publish(subject, packed)

    async def _publish(self, subject: str, packed: Sequence[Debt]) -> None:
        parents = [debt.traceparent for debt in packed]
        try:
            with telemetry.spans(f"publish {subject}", parents, kind=SpanKind.PRODUCER):
                await self._bus.publish(subject, pack(subject, [debt.payload for debt in packed]))
        except Fault as fault:
            DROPPED.labels("unpublished").inc(len(packed))
            log.warning("not_published", subject=subject, debts=len(packed), error=fault.detail)

    def _take(self, subject: str) -> list[Debt]:
        taken: list[Debt] = []
        while self._queue and self._queue[0].subject == subject and len(taken) < MAX_PACKED:
            taken.append(self._queue.popleft())
        return taken


def pack(subject: str, payloads: Sequence[bytes]) -> bytes:
    """Several payloads as one batch request of the contract that the subject carries."""
    if subject == PAYMENT_CLAIMED:
        claims = [verifier_pb2.Claim.FromString(payload) for payload in payloads]
        return verifier_pb2.BatchVerifyRequest(claims=claims).SerializeToString()
    postings = [ledger_pb2.Posting.FromString(payload) for payload in payloads]
    return ledger_pb2.BatchPostRequest(postings=postings).SerializeToString()
