"""The background work on one chain: workers that verify batches, and the one watcher of its head."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from opentelemetry.trace import SpanKind

from kit import telemetry
from kit.process import Process
from verifier import workflow
from verifier.desk import Desk, Job
from verifier.domain import CHAIN_UNAVAILABLE, ChainFailure, Claim, Outcome, Rejected, Verdict, Waiting, WaitReason
from verifier.metrics import VERDICTS
from verifier.panel import Panel
from verifier.store import ProofStore

log = structlog.get_logger()

SHORTEST_TICK_SECONDS = 0.25
# A block so near to finality is often final at the next look at the head, at most half a second later on BSC. That a
# claim waits for it is told only then, for all that still do together: 0.90 of a payment's CPU, with what the scanner's
# `_tell` leaves out.
NEAR_BLOCKS = 4

Publish = Callable[[Sequence[Verdict]], Awaitable[bool]]


@dataclass(frozen=True)
class Line:
    """A chain that is served: its endpoints and the claims on it."""

    panel: Panel
    desk: Desk


async def work(line: Line, store: ProofStore, publish: Publish, looks: asyncio.Semaphore) -> None:
    """One worker: verifies batch after batch until the desk closes. `looks` is shared by the workers on a chain."""
    while jobs := await line.desk.next_batch():
        with telemetry.spans("verify", [job.claim.traceparent for job in jobs], kind=SpanKind.CONSUMER) as onward:
            outcomes = await _verify([job.claim for job in jobs], line.panel, store, looks)
            verdicts = [
                Verdict(job.claim, outcome, onward.get(job.claim.traceparent, job.claim.traceparent))
                for job, outcome in zip(jobs, outcomes, strict=True)
            ]
            await _tell(line.desk, jobs, verdicts, publish)


async def watch(line: Line, process: Process, publish: Publish) -> None:
    """The one reader of the head: at the chain's pace, and only while a claim waits for what a head may tell."""
    tick = max(line.panel.chain.block_seconds, SHORTEST_TICK_SECONDS)
    failing = False
    while not process.stopping:
        await line.desk.anything_parked()
        if line.desk.wants_head:
            finalized, failed = await _read(line.panel)
            line.desk.release(finalized, recovered=failing and not failed)
            failing = failed
        else:
            line.desk.release(0, recovered=False)
        await _publish(line.desk.take_kept(), publish)
        await process.sleep(tick)


async def _read(panel: Panel) -> tuple[int, bool]:
    try:
        return (await panel.heads()).finalized, False
    except ChainFailure:
        return 0, True


async def _verify(claims: Sequence[Claim], panel: Panel, store: ProofStore, looks: asyncio.Semaphore) -> list[Outcome]:
    try:
        return await workflow.verify(claims, panel, store, looks)
    except Exception as error:
        # A defect that one claim shows must not stop the process, which would meet it again, nor hold up other claims.
        if len(claims) > 1:
            middle = len(claims) // 2
            first = await _verify(claims[:middle], panel, store, looks)
            return [*first, *await _verify(claims[middle:], panel, store, looks)]
        log.error("unexpected", claim_id=claims[0].claim_id, exc_info=error)
        return [CHAIN_UNAVAILABLE]


async def _tell(desk: Desk, jobs: Sequence[Job], verdicts: Sequence[Verdict], publish: Publish) -> None:
    """Answers those who listen, publishes what is new to the others, and gives the jobs back to the desk."""
    news: list[tuple[Job, Verdict]] = []
    for labels, count in Counter(_labels(verdict.outcome) for verdict in verdicts).items():
        VERDICTS.labels(*labels).inc(count)
    for job, verdict in zip(jobs, verdicts, strict=True):
        answered = job.answer(verdict)
        job.kept = None
        if not _is_new(job, verdict.outcome) or (answered and not job.by_bus):
            _remember(job, verdict)
        elif _is_nearly_final(job, verdict.outcome):
            job.kept = verdict
        else:
            news.append((job, verdict))
    await _publish(news, publish)
    # Only now, so that a claim's verdicts go out in the order in which they were reached.
    for job, verdict in zip(jobs, verdicts, strict=True):
        desk.settle(job, verdict.outcome)


async def _publish(news: Sequence[tuple[Job, Verdict]], publish: Publish) -> None:
    if news and await publish([verdict for _, verdict in news]):
        for job, verdict in news:
            _remember(job, verdict)


def _remember(job: Job, verdict: Verdict) -> None:
    if isinstance(verdict.outcome, Waiting):
        job.told = verdict.outcome


def _is_new(job: Job, outcome: Outcome) -> bool:
    """A claim that waits as before is no news; how far the head has come is not worth a message."""
    if not isinstance(outcome, Waiting) or job.told is None:
        return True
    told = job.told
    return (told.reason, told.block_number, told.transfers) != (outcome.reason, outcome.block_number, outcome.transfers)


def _is_nearly_final(job: Job, outcome: Outcome) -> bool:
    """Whether a claim waits for its block for the first time, and not for long."""
    if not isinstance(outcome, Waiting) or outcome.reason is not WaitReason.NOT_FINAL:
        return False
    return job.reason is not WaitReason.NOT_FINAL and outcome.block_number - outcome.finalized_number <= NEAR_BLOCKS


def _labels(outcome: Outcome) -> tuple[str, str]:
    if isinstance(outcome, Waiting | Rejected):
        return type(outcome).__name__.lower(), outcome.reason.value
    return "final", ""
