"""What the verifier has found on the watched addresses: taken, applied, confirmed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import structlog
from prometheus_client import Counter

from kit.database import TOO_SLOW, UNAVAILABLE, Database
from kit.errors import Fault
from orders.domain import Report
from orders.doorbell import Doorbell
from orders.peers import Verifier
from orders.store.payments import Contended
from orders.workflow import found

log = structlog.get_logger()

# How many are applied in one commit.
LIMIT = 200

APPLIED = Counter("orders_reports_applied_total", "Reports of transfers that were applied", ["state"])
FAILED = Counter("orders_reports_failed_total", "Reports that could not be applied: somebody must look")


class Reports:
    """Any number of replicas may take them in: a report that two have is applied once."""

    def __init__(self, database: Database, doorbell: Doorbell, verifier: Verifier, first_look: timedelta) -> None:
        self._database = database
        self._doorbell = doorbell
        self._verifier = verifier
        self._first_look = first_look
        self._is_away = False

    async def pull(self) -> None:
        """Takes what was not confirmed in time until nothing is left: after a lost message, a wiped broker, a crash."""
        told = LIMIT
        while told >= LIMIT:
            taken, told = await self._take()
            await self.take_in(taken)

    async def _take(self) -> tuple[list[Report], int]:
        try:
            taken = await self._verifier.take_reports(LIMIT)
        except Fault as fault:
            if not self._is_away:
                log.warning("reports_not_taken", reason=fault.reason, detail=fault.detail)
            self._is_away = True
            return [], 0
        self._is_away = False
        return taken

    async def take_in(self, reports: Sequence[Report]) -> None:
        """Applies reports, and confirms each whose effect is on disk; what is not confirmed is told again."""
        for start in range(0, len(reports), LIMIT):
            applied = await self._apply(reports[start : start + LIMIT])
            for report in applied:
                APPLIED.labels(report.state.value).inc()
            if applied:
                await self._confirm(applied)

    async def _apply(self, reports: Sequence[Report]) -> list[Report]:
        """Applies reports together; one that cannot be applied holds up no other, and stays the verifier's to tell."""
        try:
            return await found.apply(self._database, self._doorbell, reports, first_look=self._first_look)
        except Exception as error:
            if isinstance(error, (*UNAVAILABLE, Fault)) and not isinstance(error, (*TOO_SLOW, Contended)):
                raise
            if len(reports) > 1:
                middle = len(reports) // 2
                return [*await self._apply(reports[:middle]), *await self._apply(reports[middle:])]
            FAILED.inc()
            log.error("report_failed", report=str(reports[0].id), exc_info=error)
            return []

    async def _confirm(self, applied: Sequence[Report]) -> None:
        try:
            await self._verifier.confirm_reports(applied)
        except Fault as fault:
            log.warning("not_confirmed", reports=len(applied), reason=fault.reason, detail=fault.detail)
