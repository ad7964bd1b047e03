"""One function per use case."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import structlog
from prometheus_client import Counter

from kit import telemetry
from kit.database import Database
from ledger import store
from ledger.domain import Balances, Entry, Outcome, Position, Posting, Reason, Refusal, Result, conflict

log = structlog.get_logger()

POSTINGS = Counter("ledger_postings_total", "Postings answered, by outcome", ["outcome"])
ENTRIES = Counter("ledger_entries_posted_total", "Entries booked")
REJECTED = Counter("ledger_rejected_events_total", "Refused and recorded, by reason", ["reason"])

for _outcome in Outcome:
    POSTINGS.labels(_outcome)
for _reason in Reason:
    REJECTED.labels(_reason)


async def post(database: Database, items: Sequence[Posting | Refusal]) -> list[Result]:
    """Books what can be booked and records what cannot; the results are in the order given.

    The postings are one statement and one commit. What is refused is recorded by another before anybody is told:
    after a crash between the two the caller has no answer and asks again.
    """
    with telemetry.spans("ledger.post", [item.traceparent for item in items]) as onward:
        postings = [item for item in items if isinstance(item, Posting)]
        async with database.connection() as connection:
            outcomes = iter(await store.post(connection, postings) if postings else [])
            settled = [_settle(item, outcomes) for item in items]
            refusals = [item for item in settled if isinstance(item, Refusal)]
            if refusals:
                await store.record(connection, refusals)
    _count(settled)
    return [_result(item, given, onward) for item, given in zip(settled, items, strict=True)]


async def record(database: Database, refusals: Sequence[Refusal]) -> None:
    """Records what is not even a posting."""
    async with database.connection() as connection:
        await store.record(connection, refusals)
    _count(refusals)


async def read_balances(database: Database, merchant_id: str, asset: str, as_of: datetime | None) -> Balances:
    """A merchant's balances now, or as of a time of booking."""
    async with database.connection() as connection:
        if as_of is None:
            return await store.balances_now(connection, merchant_id, asset)
        return await store.balances_as_of(connection, merchant_id, asset, as_of)


async def list_entries(
    database: Database, merchant_id: str, order_id: str, before: Position | None, size: int
) -> tuple[list[Entry], Position | None]:
    """A page of entries, newest first, and where the next one starts; all orders where `order_id` is empty."""
    async with database.connection() as connection:
        if order_id:
            found = await store.entries_of_order(connection, merchant_id, order_id, before, size + 1)
        else:
            found = await store.entries_of_merchant(connection, merchant_id, before, size + 1)
    page = found[:size]
    if len(found) <= size:
        return page, None
    last = page[-1]
    return page, Position(last.created_at, last.seq, last.account_id)


def _settle(item: Posting | Refusal, outcomes: Iterator[Outcome]) -> Outcome | Refusal:
    if isinstance(item, Refusal):
        return item
    outcome = next(outcomes)
    return conflict(item) if outcome is Outcome.CONFLICT else outcome


def _result(settled: Outcome | Refusal, given: Posting | Refusal, onward: Mapping[str, str]) -> Result:
    parent = onward.get(given.traceparent, given.traceparent)
    if isinstance(settled, Refusal):
        return Result(settled.kept_id, Outcome(settled.reason), settled.kept_detail, parent)
    return Result(given.event_id_text, settled, "", parent)


def _count(settled: Sequence[Outcome | Refusal]) -> None:
    for item in settled:
        if isinstance(item, Refusal):
            REJECTED.labels(item.reason).inc()
            log.warning("rejected", reason=item.reason, event_id=item.kept_id, detail=item.kept_detail)
    answered = Counts(
        _outcome_of(item) for item in settled if not (isinstance(item, Refusal) and item.reason is Reason.UNPARSEABLE)
    )
    for outcome, count in answered.items():
        POSTINGS.labels(outcome).inc(count)
    ENTRIES.inc(2 * answered[Outcome.POSTED])


def _outcome_of(item: Outcome | Refusal) -> Outcome:
    return Outcome(item.reason) if isinstance(item, Refusal) else item
