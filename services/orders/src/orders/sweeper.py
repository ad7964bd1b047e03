"""Delivers over gRPC what the doorbell did not bring home: a lost message, a wiped broker, a crash after the commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial

import structlog
from prometheus_client import Counter, Gauge

from kit.database import Database
from kit.errors import Fault, Kind
from kit.process import Process
from orders.domain import Debt
from orders.doorbell import Doorbell
from orders.messages import ADDRESS_WATCHED, PAYMENT_CLAIMED, POSTINGS, configuration_of
from orders.peers import Ledger, Verifier
from orders.watching import Watching
from orders.workflow import claims, debts, suspense

log = structlog.get_logger()

LIMIT = 500
PAUSE = timedelta(seconds=3)
# The longest pause bounds how late the system heals after a part has come back.
LONGEST_PAUSE = timedelta(seconds=10)
# The verifier's answer where orders has a newer configuration: a refusal until it has that as well.
NOT_YET = frozenset({"unknown_chain", "unknown_asset"})

# What may be the fault of one debt of a batch.
OF_ONE = frozenset({Kind.INVALID, Kind.INTERNAL})

Send = Callable[[Sequence[Debt]], Awaitable[None]]

SWEPT = Counter("orders_outbox_swept_total", "Debts delivered over gRPC", ["to"])
OPEN = Gauge("orders_outbox_open", "Debts that are not confirmed")
DEAD = Gauge("orders_outbox_dead", "Debts that were refused for good")
AGE = Gauge("orders_outbox_oldest_seconds", "Age of the oldest open debt")
SUSPENSE = Gauge("orders_suspense_open", "Transfers in suspense that nobody has decided on")
REVERSED = Gauge("orders_reversed_waiting", "PAID orders of which the chain took back a payment: not settled")


class Sweeper:
    """Any number of replicas may sweep: each takes rows that no other holds."""

    def __init__(
        self,
        database: Database,
        doorbell: Doorbell,
        watching: Watching,
        verifier: Verifier,
        ledger: Ledger,
        first_look: timedelta,
    ) -> None:
        self._database = database
        self._doorbell = doorbell
        self._watching = watching
        self._verifier = verifier
        self._ledger = ledger
        self._first_look = first_look

    def start(self, process: Process, seconds: float) -> None:
        """Sweeps every so many seconds, each destination in a loop of its own: one that hangs holds up no other.

        A subject that is none of these is a newer version's, and left to it.
        """
        for to, subjects, send in (
            ("verifier", [PAYMENT_CLAIMED], self._verify),
            ("watcher", [ADDRESS_WATCHED], self._watching.deliver),
            ("ledger", POSTINGS, self._post),
        ):
            process.every(seconds, f"sweep to {to}", partial(self._sweep, to, subjects, send))

    async def measure(self) -> None:
        """Shows the depth of the outbox, and what waits for the operator."""
        open_rows, dead_rows, age = await debts.depth(self._database)
        in_suspense, taken_back = await suspense.waiting(self._database)
        OPEN.set(open_rows)
        DEAD.set(dead_rows)
        AGE.set(age)
        SUSPENSE.set(in_suspense)
        REVERSED.set(taken_back)

    async def _sweep(self, to: str, subjects: Sequence[str], send: Send) -> None:
        """Takes what is due until nothing is, or the other side is away: each row that is taken is written."""
        while due := await debts.take_due(self._database, subjects, PAUSE, LONGEST_PAUSE, LIMIT):
            if not await self._deliver(to, due, send) or len(due) < LIMIT:
                return

    async def _deliver(self, to: str, batch: Sequence[Debt], send: Send) -> bool:
        """Whether the other side is there."""
        try:
            await send(batch)
        except Fault as fault:
            log.warning("sweep_failed", to=to, debts=len(batch), reason=fault.reason, detail=fault.detail)
            return fault.kind in OF_ONE and await self._deliver_parts(to, batch, send, fault)
        SWEPT.labels(to).inc(len(batch))
        return True

    async def _deliver_parts(self, to: str, batch: Sequence[Debt], send: Send, fault: Fault) -> bool:
        """One of them is refused, or is more than the other side can bear: apart, it cannot hold up the others."""
        parts: list[Sequence[Debt]] = []
        if fault.reason in NOT_YET:
            parts = [*_by_configuration(batch).values()]
        elif len(batch) > 1:
            middle = len(batch) // 2
            parts = [batch[:middle], batch[middle:]]
        elif fault.kind is Kind.INVALID:
            await debts.close(self._database, [], {batch[0].event_id: fault.detail})
        if len(parts) > 1:
            for part in parts:
                if not await self._deliver(to, part, send):
                    return False
        return True

    async def _verify(self, batch: Sequence[Debt]) -> None:
        verdicts = await self._verifier.verify(batch)
        await claims.apply(self._database, self._doorbell, verdicts, first_look=self._first_look)

    async def _post(self, batch: Sequence[Debt]) -> None:
        booked, refused = await self._ledger.post(batch)
        await debts.close(self._database, booked, refused)


def _by_configuration(batch: Sequence[Debt]) -> dict[tuple[str, str], list[Debt]]:
    parts: dict[tuple[str, str], list[Debt]] = {}
    for debt in batch:
        parts.setdefault(configuration_of(debt), []).append(debt)
    return parts
