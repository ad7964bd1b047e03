"""Many concurrent requests of one kind, sent together: the cost of a call is shared, nobody waits on a timer."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from kit.errors import Fault, Kind

log = structlog.get_logger()

Item = TypeVar("Item")
Result = TypeVar("Result")

OVERLOADED = "too many requests are waiting; try again"
# A burst is served late. A queue that never empties for so long is no burst: more comes than can be done, and whoever
# waits in it only waits longer.
BURST_SECONDS = 0.5
# How long a refusal is kept back: as Retry-After says. To say no costs CPU as well, and who asks again at once would
# take from the others what they need to be served: with four times the callers that fill it creates were halved.
REFUSAL_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    future: asyncio.Future[Result | Fault]
    since: float


class Coalescer(Generic[Item, Result]):
    """Collects items while `max_in_flight` batches are under way and sends them when one of these is answered.

    While one batch is under way the next goes only with `min_ahead` items; while none is, with whatever there is.
    `send` gets at most `max_batch` items and answers with a result or a Fault for each, in their order. Lanes
    (merchants) take turns, so that one with a long queue does not hold up the others. Waiting is bounded: by
    `max_wait` seconds before an item is sent (and by `send`'s own time-out after that), and by `max_backlog` items; by
    half a batch, when there is no end to the waiting.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Sequence[Result | Fault]]],
        *,
        # The next batch fills while two are under way; with 200 all callers were in these two, and nobody worked.
        max_batch: int = 64,
        max_in_flight: int = 2,
        min_ahead: int = 1,
        max_backlog: int = 2000,
        max_wait: float = 2.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._max_batch = max_batch
        self._max_in_flight = max_in_flight
        self._min_ahead = min_ahead
        self._max_backlog = max_backlog
        self._max_wait = max_wait
        self._clock = clock
        # Kept: each look-up of the running loop asks the system for the process's id, and that once a request was 3 %
        # of the gateway's event loop.
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[str, deque[_Waiting[Item, Result]]] = {}
        self._turns: deque[str] = deque()  # the lanes that are not empty, the next one first
        self._backlog = 0
        self._empty_at = clock()
        self._flush_is_due = False
        self._in_flight: set[asyncio.Task[None]] = set()

    async def submit(self, lane: str, item: Item) -> Result:
        """The item's own result. Errors: the item's own Fault; UNAVAILABLE `overloaded` past the bounds."""
        now = self._clock()
        if not self._backlog:
            self._empty_at = now
        elif self._backlog >= self._room(now) and not self._made_room(lane):
            await asyncio.sleep(REFUSAL_SECONDS)
            raise _overloaded()
        waiting: _Waiting[Item, Result] = _Waiting(item, self._loop.create_future(), now)
        queue = self._lanes.get(lane)
        if queue is None:
            queue = self._lanes[lane] = deque()
            self._turns.append(lane)
        queue.append(waiting)
        self._backlog += 1
        if not self._flush_is_due and self._may_send():
            # At the end of this turn of the loop: what arrived together goes together.
            self._flush_is_due = True
            self._loop.call_soon(self._flush)
        outcome = await waiting.future
        if isinstance(outcome, Fault):
            raise outcome
        return outcome

    def _may_send(self) -> bool:
        under_way = len(self._in_flight)
        return self._backlog >= (self._min_ahead if under_way else 1) and under_way < self._max_in_flight

    def _room(self, now: float) -> int:
        is_burst = now - self._empty_at < BURST_SECONDS
        return self._max_backlog if is_burst else min(self._max_backlog, self._max_batch // 2)

    def _made_room(self, lane: str) -> bool:
        """When the backlog is full the longest lane pays: its newest item; not when it is this lane's."""
        longest = max(self._lanes.values(), key=len)
        if len(longest) <= len(self._lanes.get(lane, ())) + 1:
            return False
        self._backlog -= 1
        _settle(longest.pop(), _overloaded())
        return True

    def _flush(self) -> None:
        self._flush_is_due = False
        while self._may_send():
            batch = self._take()
            if batch:
                # A context of its own: a batch belongs to no one request, its deadline or its log lines.
                task = self._loop.create_task(self._run(batch), context=Context())
                self._in_flight.add(task)
                task.add_done_callback(self._ended)

    def _take(self) -> list[_Waiting[Item, Result]]:
        """The next batch, one item of each lane in turn. Who went away or waited too long is left out."""
        batch: list[_Waiting[Item, Result]] = []
        oldest = self._clock() - self._max_wait
        while self._backlog and len(batch) < self._max_batch:
            lane = self._turns.popleft()
            queue = self._lanes[lane]
            waiting = queue.popleft()
            self._backlog -= 1
            if queue:
                self._turns.append(lane)
            else:
                del self._lanes[lane]
            if waiting.since < oldest:
                _settle(waiting, _overloaded())
            elif not waiting.future.done():
                batch.append(waiting)
        return batch

    async def _run(self, batch: list[_Waiting[Item, Result]]) -> None:
        outcomes: Sequence[Result | Fault]
        try:
            outcomes = await self._send([waiting.item for waiting in batch])
            if len(outcomes) != len(batch):
                raise RuntimeError(f"{len(outcomes)} results for {len(batch)} items")
        except Fault as fault:
            outcomes = [_copy(fault) for _ in batch]
        except Exception as error:
            log.error("batch_failed", items=len(batch), exc_info=error)
            outcomes = [Fault(Kind.INTERNAL, "internal", "unexpected error") for _ in batch]
        for waiting, outcome in zip(batch, outcomes, strict=True):
            _settle(waiting, outcome)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._flush()


def _settle(waiting: _Waiting[Item, Result], outcome: Result | Fault) -> None:
    # A caller that went away has cancelled its future; setting it would raise and fail the others of its batch.
    if not waiting.future.done():
        waiting.future.set_result(outcome)


def _overloaded() -> Fault:
    return Fault(Kind.UNAVAILABLE, "overloaded", OVERLOADED)


def _copy(fault: Fault) -> Fault:
    """An exception of its own for each waiter: a raised one collects the traceback of every raise."""
    return Fault(fault.kind, fault.reason, fault.detail, metadata=fault.metadata, violations=fault.violations)
