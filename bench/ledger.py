"""The ledger alone: events that wait in its queue, all of one merchant, until their entries are committed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

from bench import limits
from bench.figures import Figures
from bench.queues import Queues, packs
from bench.stage import BOUND_SECONDS, Stage
from ospay.ledger.v1 import ledger_pb2 as pb

PAID = "ospay.orders.v1.order_paid"
POSTED = "ospay.ledger.v1.posted"
MERCHANT = "mrc_bench_ledger"  # the ledger knows no list of merchants
AMOUNT = 5_000_000


class Round:
    """The row of the ledger, each round anew."""

    def __init__(self, stage: Stage, queues: Queues) -> None:
        self._stage = stage
        self._queues = queues
        self._booked = 0

    async def measure(self, figures: Figures) -> None:
        """Entries per second, with orders stopped, so that nobody works on the confirmations meanwhile."""
        limit = await limits.inserts(self._stage)
        figures.note("pgbench inserts/s", limit)
        postings = [self._posting() for _ in range(self._stage.sizes.postings)]
        payloads = [pb.BatchPostRequest(postings=pack).SerializeToString() for pack in packs(postings)]
        with self._stage.stopped("orders"):
            rate = await self._book(payloads, len(postings))
        await self._queues.drained("OSPAY_LEDGER", "orders_posted")
        await self._check()
        figures.note("ledger", rate / limit)
        figures.note("entries booked/s", rate)

    async def _book(self, payloads: Sequence[bytes], count: int) -> float:
        """The outcome is published after the commit: the last one ends the time."""
        async with self._queues.told(POSTED, _size) as told:
            with self._stage.stopped("ledger"):
                await self._queues.publish(PAID, payloads)
            started = time.perf_counter()
            seconds = await told.items(count, BOUND_SECONDS) - started
        results = [result for data in told.payloads for result in pb.BatchPostResponse.FromString(data).results]
        posted = {result.event_id for result in results if result.outcome == pb.POST_OUTCOME_POSTED}
        assert len(posted) == len(results) == count, f"{len(posted)} of {count} posted, in {len(results)} answers"
        self._booked += count
        return 2 * count / seconds

    async def _check(self) -> None:
        """Two entries of each event, numbered without a gap, and the balance is their sum."""
        sql = """SELECT array_agg(ARRAY[balance, version, booked, newest] ORDER BY bucket)
                 FROM accounts a JOIN balances USING (account_id) CROSS JOIN LATERAL (
                     SELECT count(*) AS booked, max(seq) AS newest FROM entries WHERE account_id = a.account_id) e
                 WHERE merchant_id = $1"""
        found = await self._stage.value("ledger", sql, MERCHANT)
        count = self._booked
        assert found == [[sign * count * AMOUNT, count, count, count] for sign in (1, -1)], found

    def _posting(self) -> pb.Posting:
        posting = pb.Posting(
            event_id=str(uuid4()),
            event_type=pb.EVENT_TYPE_ORDER_PAID,
            merchant_id=MERCHANT,
            order_id="o_" + secrets.token_hex(8),
            asset="USDT",
            amount_minor=AMOUNT,
            tx_hash="0x" + secrets.token_hex(32),
        )
        posting.effective_at.FromDatetime(datetime.now(UTC))
        return posting


def _size(payload: bytes) -> int:
    return len(pb.BatchPostResponse.FromString(payload).results)
