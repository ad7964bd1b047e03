"""The claims of one chain that this process has taken: a bounded queue and a bounded waiting set.

Nothing here is precious: the debt is orders' row. What is not `async` changes the desk in one step of the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from verifier.domain import Claim, Outcome, ProofKey, Verdict, Waiting, WaitReason
from verifier.metrics import CLAIMS, DROPPED

# More than a node is asked for at once: they are kept by one statement and told in one message. With 200 PostgreSQL and
# NATS have half of the work that they have with four times 50, the verifier 0.9.
BATCH = 200
FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = {WaitReason.NOT_FOUND: 30.0, WaitReason.CHAIN_UNAVAILABLE: 8.0}

Key = tuple[str, ...]


class QueueFull(Exception):
    """The desk takes no more claims now."""


class Closed(Exception):
    """The process stops."""


@dataclass(eq=False, slots=True)
class Job:
    """A claim at hand. `told` is the newest Waiting that was told to anyone, `kept` a verdict that is told only if the
    next look at the head does not make it final; `listeners` wait for the next look."""

    claim: Claim
    by_bus: bool
    listeners: list[asyncio.Future[Verdict]] = field(default_factory=list)
    told: Waiting | None = None
    kept: Verdict | None = None
    reason: WaitReason | None = None
    attempts: int = 0
    due: float = 0.0
    height: int = 0

    def answer(self, verdict: Verdict) -> bool:
        """Gives the verdict to those who listen; whether anyone did."""
        listening = [future for future in self.listeners if not future.done()]
        self.listeners.clear()
        for future in listening:
            future.set_result(verdict)
        return bool(listening)


class Desk:
    """A job is in one place: queued, in a worker's hand, confirming (until a height is final) or paused (until due)."""

    def __init__(self, chain: str, limit: int, clock: Callable[[], float]) -> None:
        """`limit` bounds the queue and the waiting set, each; `clock` is monotonic, in seconds."""
        self._limit = limit
        self._clock = clock
        self._jobs: dict[Key, Job] = {}
        self._queue: deque[Job] = deque()
        self._confirming: dict[Key, Job] = {}
        self._paused: dict[Key, Job] = {}
        self._closed = False
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._parked = asyncio.Event()
        self._dropped = DROPPED.labels(chain)
        CLAIMS.labels(chain, "queued").set_function(lambda: len(self._queue))
        CLAIMS.labels(chain, "waiting").set_function(lambda: self.waiting_count)

    @property
    def waiting_count(self) -> int:
        """Claims that wait for the chain."""
        return len(self._confirming) + len(self._paused)

    @property
    def wants_head(self) -> bool:
        """Whether a claim waits for something that a new head may tell."""
        return bool(self._confirming) or any(
            job.reason is WaitReason.CHAIN_UNAVAILABLE for job in self._paused.values()
        )

    def awaited(self) -> set[ProofKey]:
        """What is claimed and is decided as soon as it is final: claims that wait for a height, or are at hand."""
        return {job.claim.proof_key for key, job in self._jobs.items() if key not in self._paused}

    def has_room(self, claims: Sequence[Claim]) -> bool:
        """Whether `ask` would take these claims."""
        idle = sum(1 for key in {claim.key for claim in claims} if key not in self._jobs or self._is_parked(key))
        return idle <= self._limit - len(self._queue)

    def ask(self, claims: Sequence[Claim]) -> list[asyncio.Future[Verdict]]:
        """Wants a look at each claim now, ahead of the queue: somebody waits. One that is at hand is the same job.

        Errors: QueueFull (nothing is taken), Closed.
        """
        if self._closed:
            raise Closed
        if not self.has_room(claims):
            raise QueueFull
        return [self._ask(claim) for claim in claims]

    async def take(self, claims: Sequence[Claim], seconds: float) -> None:
        """Takes claims that came over the bus, waiting for room. Errors: TimeoutError after `seconds`, Closed."""
        async with asyncio.timeout(seconds):
            for claim in claims:
                await self._take(claim)

    async def next_batch(self) -> list[Job]:
        """All that is queued, at most 200; waits for one. Empty when the desk is closed."""
        while not self._closed:
            if self._queue:
                self._emptied.set()
                return [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            self._filled.clear()
            await self._filled.wait()
        return []

    def settle(self, job: Job, outcome: Outcome) -> None:
        """Takes a job back: decided it goes, open it waits; if somebody asked meanwhile it is next in the queue."""
        if job.listeners:
            self._queue.appendleft(job)
            self._filled.set()
        elif isinstance(outcome, Waiting):
            self._park(job, outcome)
        else:
            self._drop(job)

    async def anything_parked(self) -> None:
        """Returns when a job waits, or the desk is closed."""
        while not self._closed and self.waiting_count == 0:
            self._parked.clear()
            await self._parked.wait()

    def release(self, finalized: int, *, recovered: bool) -> None:
        """Queues what may be decided: blocks up to `finalized`, pauses that are over, on recovery all unavailable."""
        now = self._clock()
        ready = [job for job in self._confirming.values() if job.height <= finalized]
        for job in self._paused.values():
            back = recovered and job.reason is WaitReason.CHAIN_UNAVAILABLE
            if back:
                job.attempts = 0
            if back or job.due <= now:
                ready.append(job)
        for job in ready:
            self._unpark(job)
            self._queue.append(job)
        self._filled.set()

    def take_kept(self) -> list[tuple[Job, Verdict]]:
        """What was kept back of jobs that still wait for a height."""
        kept = [(job, job.kept) for job in self._confirming.values() if job.kept is not None]
        for job, _ in kept:
            job.kept = None
        return kept

    def close(self) -> None:
        """Takes and gives no more; the futures of those who listen are cancelled."""
        self._closed = True
        for event in (self._filled, self._emptied, self._parked):
            event.set()
        for job in self._jobs.values():
            for future in job.listeners:
                future.cancel()

    def _park(self, job: Job, waiting: Waiting) -> None:
        """Keeps a job until what it waits for may have come; a full waiting set lets the oldest paused one go."""
        if self.waiting_count >= self._limit:
            self._dropped.inc()
            victim = next(iter(self._paused.values()), job)
            self._drop(victim)
            if victim is job:
                return
        job.attempts = job.attempts + 1 if job.reason is waiting.reason else 1
        job.reason = waiting.reason
        if waiting.reason is WaitReason.NOT_FINAL:
            job.height = waiting.block_number
            self._confirming[job.claim.key] = job
        else:
            pause = FIRST_PAUSE_SECONDS * 2.0 ** min(job.attempts - 1, 10)
            job.due = self._clock() + min(pause, LAST_PAUSE_SECONDS[waiting.reason])
            self._paused[job.claim.key] = job
        self._parked.set()

    def _drop(self, job: Job) -> None:
        self._unpark(job)
        self._jobs.pop(job.claim.key, None)

    def _ask(self, claim: Claim) -> asyncio.Future[Verdict]:
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        job = self._jobs.get(claim.key)
        if job is None:
            job = self._jobs[claim.key] = Job(claim, by_bus=False)
            self._queue.appendleft(job)
        elif self._is_parked(claim.key):
            self._unpark(job)
            self._queue.appendleft(job)
        job.listeners.append(future)
        self._filled.set()
        return future

    async def _take(self, claim: Claim) -> None:
        while not self._closed:
            known = self._jobs.get(claim.key)
            if known is not None:
                known.by_bus = True
                return
            if len(self._queue) < self._limit:
                job = self._jobs[claim.key] = Job(claim, by_bus=True)
                self._queue.append(job)
                self._filled.set()
                return
            self._emptied.clear()
            await self._emptied.wait()
        raise Closed

    def _is_parked(self, key: Key) -> bool:
        return key in self._confirming or key in self._paused

    def _unpark(self, job: Job) -> None:
        self._confirming.pop(job.claim.key, None)
        self._paused.pop(job.claim.key, None)
