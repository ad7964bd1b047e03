"""Whether a long history slows anything down: one suite with millions of rows, one with hardly any, in turn."""

from __future__ import annotations

import asyncio
import itertools
import time
from datetime import UTC, datetime
from uuid import uuid4

from pydantic import SecretStr

from bench.figures import Figures
from bench.load import http, load
from bench.orders import MANY, Orders
from bench.stage import Merchant, Stage
from kit.channel import Peer
from ospay.ledger.v1 import ledger_pb2 as pb
from ospay.ledger.v1 import ledger_pb2_grpc

AMOUNT = 5_000_000
# Of a year: four of five were paid and settled, one expired. In time's order, as they would have come.
FILL_ORDERS = """
    INSERT INTO orders (id, merchant_id, asset, chain, amount_minor, deposit_address, request_hash, created_block,
                        state, received_minor, tx_hash, paid_at, created_at, expires_at, settled_at)
    SELECT 'o' || lpad(n::text, 12, '0'), $1::text, 'USDT', 'BSC', $3::bigint, $2::text, sha256(n::text::bytea), n,
           CASE WHEN paid THEN 'SETTLED' ELSE 'EXPIRED' END, CASE WHEN paid THEN $3::bigint ELSE 0 END,
           CASE WHEN paid THEN '0x' || encode(sha256(n::text::bytea), 'hex') END,
           CASE WHEN paid THEN made + interval '5 minutes' END, made, made + interval '30 minutes',
           CASE WHEN paid THEN made + interval '10 minutes' END
    FROM (SELECT n, n % 5 <> 0 AS paid, now() - interval '1 day' - interval '1 year' * (1 - n / $4::float8) AS made
          FROM generate_series($5::int, $6::int) n) o"""
OPEN_ACCOUNTS = """
    WITH opened AS (
        INSERT INTO accounts (merchant_id, asset, bucket)
        VALUES ($1, 'USDT', 'merchant'), ($1, 'USDT', 'clearing') RETURNING account_id)
    INSERT INTO balances (account_id) SELECT account_id FROM opened"""
FILL_EVENTS = """
    INSERT INTO events (event_id, payload_hash, merchant_id, order_id)
    SELECT lpad(to_hex(n), 32, '0')::uuid, sha256(n::text::bytea), $1::text, 'o' || lpad(n::text, 12, '0')
    FROM generate_series(1, $2::int) n"""
# One account's side of all events, as post_events() writes it.
FILL_ENTRIES = """
    INSERT INTO entries (account_id, seq, amount_minor, created_at, effective_at, event_id, event_type, bucket,
                         direction, balance_after, merchant_id, order_id, asset, tx_hash)
    SELECT account_id, n, $3::bigint, made, made, lpad(to_hex(n), 32, '0')::uuid, 'ORDER_PAID'::event_type, bucket,
           CASE bucket WHEN 'merchant' THEN 'CREDIT' ELSE 'DEBIT' END::direction,
           CASE bucket WHEN 'merchant' THEN 1 ELSE -1 END * n::numeric * $3::bigint, merchant_id,
           'o' || lpad(n::text, 12, '0'), asset, '0x' || encode(sha256(n::text::bytea), 'hex')
    FROM (SELECT n, now() - interval '1 day' - interval '1 year' * (1 - n / $4::float8) AS made
          FROM generate_series(1, $5::int) n) e
    CROSS JOIN accounts WHERE merchant_id = $1 AND bucket = $2::bucket"""
# From the entries, as everything in the ledger.
FILL_BALANCES = """
    UPDATE balances b SET balance = e.balance_after, version = e.seq, last_at = e.created_at
    FROM accounts a CROSS JOIN LATERAL (
        SELECT balance_after, seq, created_at FROM entries WHERE account_id = a.account_id ORDER BY seq DESC LIMIT 1) e
    WHERE a.merchant_id = $1 AND a.account_id = b.account_id"""


class History:
    """One of the two suites, with a merchant that has so many entries and orders."""

    def __init__(self, stage: Stage, merchant: Merchant, entries: int, orders: int) -> None:
        self._stage = stage
        self._merchant = merchant
        self._events = entries // 2
        self._orders = orders
        self._creating = Orders(stage, merchant)

    async def fill(self) -> None:
        """Writes what a long life would have left, two statements at a time on the two cores."""
        merchant = self._merchant
        await self._stage.execute("ledger", (OPEN_ACCOUNTS, merchant.id))
        await asyncio.gather(*(self._fill_entries(bucket) for bucket in ("merchant", "clearing")))
        await self._stage.execute("ledger", (FILL_BALANCES, merchant.id))
        half = self._orders // 2
        ledger_events = self._stage.execute("ledger", (FILL_EVENTS, merchant.id, self._events))
        await asyncio.gather(ledger_events, self._fill_orders(1, half), self._fill_orders(half + 1, self._orders))
        # Else autovacuum comes within a minute and works while something is measured.
        await asyncio.gather(
            *(self._stage.maintain("ledger", f"VACUUM (ANALYZE) {table}") for table in ("entries", "events")),
            self._stage.maintain("orders", "VACUUM (ANALYZE) orders"),
        )
        await self._stage.checkpoint()

    async def _fill_entries(self, bucket: str) -> None:
        count = self._events
        await self._stage.execute("ledger", (FILL_ENTRIES, self._merchant.id, bucket, AMOUNT, count, count))

    async def _fill_orders(self, first: int, last: int) -> None:
        merchant = self._merchant
        await self._stage.execute(
            "orders", (FILL_ORDERS, merchant.id, merchant.wallet, AMOUNT, max(self._orders, 1), first, last)
        )

    async def reconcile(self) -> float:
        """Milliseconds of a reconciliation, the median, one after the other."""
        path = f"/reconciliation?merchant_id={self._merchant.id}&asset=USDT"
        requests = itertools.repeat(http("GET", path, self._merchant.key))
        done = await load(self._stage.gateway, requests, connections=1, seconds=self._stage.sizes.seconds / 2)
        assert set(done.statuses) == {200}, done.statuses
        return done.percentile(0.5)

    async def create(self) -> float:
        """Orders per second."""
        return (await self._creating.create(MANY)).per_second

    async def empty_orders(self) -> None:
        """No order in the table."""
        await self._stage.execute("orders", "TRUNCATE orders")

    async def check(self) -> None:
        """The books are as the ledger keeps them, and balance."""
        lines = await self._stage.value("ledger", "SELECT count(*) FROM entries")
        assert lines == 2 * self._events, f"{lines} entries"
        await self._stage.check_books(self._merchant, self._events * AMOUNT)

    async def book_one_more(self) -> None:
        """The ledger books on from where what was filled in stands."""
        posting = pb.Posting(
            event_id=str(uuid4()),
            event_type=pb.EVENT_TYPE_ORDER_PAID,
            merchant_id=self._merchant.id,
            order_id="one_more",
            asset="USDT",
            amount_minor=AMOUNT,
        )
        posting.effective_at.FromDatetime(datetime.now(UTC))
        peer = Peer(self._stage.run["grpc"]["ledger"], token=SecretStr(self._stage.run["grpc_token"]))
        try:
            stub = ledger_pb2_grpc.LedgerServiceStub(peer.channel)
            await peer.call(stub.Post, pb.PostRequest(posting=posting), timeout=10)
        finally:
            await peer.close()
        self._events += 1
        await self.check()


async def measure(empty: Stage, full: Stage, figures: Figures) -> None:
    """Both ratios; which suite is first changes from round to round."""
    sizes = full.sizes
    few = History(empty, await empty.merchant(), sizes.few_entries, 0)
    many = History(full, await full.merchant(), sizes.many_entries, sizes.many_orders)
    started = time.perf_counter()
    await few.fill()
    await many.fill()
    figures.note("seconds to fill", time.perf_counter() - started)
    for history in (few, many):
        await history.book_one_more()
        await history.create()  # caches, plans and pools are warm from here on
    for number in range(sizes.rounds):
        turns = (few, many) if number % 2 == 0 else (many, few)
        p50 = {history: await history.reconcile() for history in turns}
        figures.note("reconciliation", p50[many] / p50[few])
        figures.note("reconciliation p50 ms, many entries", p50[many])
        await few.empty_orders()
        rates = {history: await history.create() for history in turns}
        figures.note("volume", rates[many] / rates[few])
        figures.note("orders created/s, table full", rates[many])
    for history in (few, many):
        await history.check()
