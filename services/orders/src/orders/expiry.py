"""Expires orders, each only when all that was paid in its time has been found."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import structlog
from prometheus_client import Gauge

from chains import Registry
from kit.database import Database
from kit.errors import Fault, Kind
from orders.domain import Debt, Due
from orders.messages import span_of, tokens, watch_debt
from orders.peers import Verifier
from orders.workflow import orders as workflow
from ospay.verifier.v1 import verifier_pb2

log = structlog.get_logger()

LIMIT = 1000
# Of its newest blocks a node may show the logs a moment later than the blocks themselves.
MARGIN = timedelta(seconds=2)

DONE = verifier_pb2.SPAN_STATE_DONE
NOT_WATCHED = verifier_pb2.SPAN_STATE_NOT_WATCHED
CHAIN_BEHIND = verifier_pb2.SPAN_STATE_CHAIN_BEHIND
# Where nobody looks for money, nothing is waited for.
FREE = (DONE, verifier_pb2.SPAN_STATE_NOT_SERVED)

OVERDUE = Gauge(
    "orders_expiry_overdue_seconds", "How long an order is past its time at most that waits to be looked through"
)


class Expiry:
    """Any number of replicas may expire: an order that another holds is left out."""

    def __init__(self, database: Database, registry: Registry, verifier: Verifier, watch_period: timedelta) -> None:
        self._database = database
        self._tokens = tokens(registry)
        self._verifier = verifier
        self._watch_period = watch_period
        self._failing = ""

    async def expire(self) -> None:
        """Goes through all that are due, and expires those of which nothing more can come to light."""
        behind: set[str] = set()
        last: Due | None = None
        waiting: list[Due] = []
        page: Sequence[Due] = []
        try:
            while page := await workflow.due(self._database, MARGIN, sorted(behind), last, LIMIT):
                left = await self._expire(page)
                # What is due on these chains and comes after is behind as well.
                behind |= {order.chain for order, state in left if state == CHAIN_BEHIND}
                waiting = waiting or [order for order, _ in left]
                last = page[-1]
        finally:
            # A page that failed is left as a whole.
            oldest = next(iter([*waiting, *page]), None)
            OVERDUE.set((datetime.now(UTC) - oldest.expires_at).total_seconds() if oldest else 0)

    async def _expire(self, page: Sequence[Due]) -> list[tuple[Due, verifier_pb2.SpanState.ValueType]]:
        """Expires of these what may be; returns what is left."""
        found = list(zip(page, await self._check(page), strict=True))
        free = [order.key for order, state in found if state in FREE]
        if free:
            await workflow.expire(self._database, free)
        await self._watch([order for order, state in found if state == NOT_WATCHED])
        return [(order, state) for order, state in found if state not in FREE]

    async def _check(self, due: Sequence[Due]) -> list[verifier_pb2.SpanState.ValueType]:
        failing = ""
        try:
            states = await self._verifier.check([span_of(order, self._tokens, MARGIN) for order in due])
        except Fault as fault:
            failing = fault.reason
            # One that does not know the question is of the version before: beside it everything is as it was.
            states = [DONE if fault.kind is Kind.UNIMPLEMENTED else CHAIN_BEHIND] * len(due)
            if failing != self._failing:
                log.warning("expiry_not_checked", reason=fault.reason, detail=fault.detail)
        self._failing = failing
        return states

    async def _watch(self, unknown: Sequence[Due]) -> None:
        """Tells addresses again that the verifier does not know: its database may be one of before."""
        if not unknown:
            return
        try:
            await self._verifier.watch([self._watch_of(order) for order in unknown])
        except Fault as fault:
            log.warning("not_watched", addresses=len(unknown), reason=fault.reason, detail=fault.detail)

    def _watch_of(self, order: Due) -> Debt:
        return watch_debt(
            uuid4(),
            order.merchant_id,
            order.chain,
            order.address,
            from_block=order.created_block if order.is_own else None,
            from_time=order.created_at,
            until=order.expires_at + self._watch_period if order.is_own else None,
        )
