"""Whether a long history slows anything down: one suite with millions of rows, one with hardly any, in turn."""

from __future__ import annotations

import asyncio
import itertools
import time
from datetime import UTC, datetime
from typing import Any
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
# OFFSET 0, here and below: what is in the sub-select is worked out once, not wherever it is named.
FILL_ORDERS = """
    INSERT INTO orders (id, merchant_id, asset, chain, amount_minor, deposit_address, request_hash, created_block,
                        state, received_minor, tx_hash, paid_at, created_at, expires_at, settled_at)
    SELECT 'o' || lpad(n::text, 12, '0'), $1::text, 'USDT', 'BSC', $3::bigint, $2::text, hash, n,
           CASE WHEN paid THEN 'SETTLED' ELSE 'EXPIRED' END, CASE WHEN paid THEN $3::bigint ELSE 0 END,
           CASE WHEN paid THEN '0x' || encode(hash, 'hex') END,
           CASE WHEN paid THEN made + interval '5 minutes' END, made, made + interval '30 minutes',
           CASE WHEN paid THEN made + interval '10 minutes' END
    FROM (SELECT n, n % 5 <> 0 AS paid, sha256(n::text::bytea) AS hash,
                 now() - interval '1 day' - interval '1 year' * (1 - n::float8 / $4) AS made
          FROM generate_series(1, $4::int) n OFFSET 0) o"""
OPEN_ACCOUNTS = """
    WITH opened AS (
        INSERT INTO accounts (merchant_id, asset, bucket)
        VALUES ($1, 'USDT', 'merchant'), ($1, 'USDT', 'clearing') RETURNING account_id)
    INSERT INTO balances (account_id) SELECT account_id FROM opened"""
FILL_EVENTS = """
    INSERT INTO events (event_id, payload_hash, merchant_id, order_id)
    SELECT lpad(to_hex(n), 32, '0')::uuid, sha256(n::text::bytea), $1::text, 'o' || lpad(n::text, 12, '0')
    FROM generate_series(1, $2::int) n"""
# Both sides of each event one after the other, and their ids counted on from one number, as post_events() writes them.
FILL_ENTRIES = """
    INSERT INTO entries (id, account_id, seq, amount_minor, created_at, effective_at, event_id, event_type, bucket,
                         direction, balance_after, merchant_id, order_id, asset, tx_hash)
    SELECT ((SELECT left(replace(uuidv7()::text, '-', ''), 24))
            || lpad(to_hex(2 * n + (bucket = 'clearing')::int), 8, '0'))::uuid,
           account_id, n, $2::bigint, made, made, event_id, 'ORDER_PAID'::event_type, bucket,
           CASE bucket WHEN 'merchant' THEN 'CREDIT' ELSE 'DEBIT' END::direction,
           CASE bucket WHEN 'merchant' THEN balance ELSE -balance END, merchant_id, order_id, asset, tx_hash
    FROM (SELECT n, now() - interval '1 day' - interval '1 year' * (1 - n::float8 / $3) AS made,
                 lpad(to_hex(n), 32, '0')::uuid AS event_id, n::numeric * $2::bigint AS balance,
                 'o' || lpad(n::text, 12, '0') AS order_id, '0x' || encode(sha256(n::text::bytea), 'hex') AS tx_hash
          FROM generate_series(1, $3::int) n OFFSET 0) e
    CROSS JOIN (SELECT * FROM accounts WHERE merchant_id = $1 ORDER BY account_id) a"""
# From the entries, as everything in the ledger.
FILL_BALANCES = """
    UPDATE balances b SET balance = e.balance_after, version = e.seq, last_at = e.created_at
    FROM accounts a CROSS JOIN LATERAL (
        SELECT balance_after, seq, created_at FROM entries WHERE account_id = a.account_id ORDER BY seq DESC LIMIT 1) e
    WHERE a.merchant_id = $1 AND a.account_id = b.account_id"""
# How to drop and how to make the indexes of some tables; those of some rows only stay, they cost little.
INDEXES = """
    SELECT ARRAY[format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname),
                 format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))]
    FROM pg_constraint WHERE conrelid = ANY ($1::regclass[]) AND contype IN ('p', 'u')
    UNION ALL
    SELECT ARRAY[format('DROP INDEX %s', indexrelid::regclass), pg_get_indexdef(indexrelid)]
    FROM pg_index WHERE indrelid = ANY ($1::regclass[]) AND indpred IS NULL
        AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)"""


class History:
    """One of the two suites, with a merchant that has so many entries and orders."""

    def __init__(self, stage: Stage, merchant: Merchant, entries: int, orders: int) -> None:
        self._stage = stage
        self._merchant = merchant
        self._events = entries // 2
        self._orders = orders
        self._creating = Orders(stage, merchant)

    async def fill(self) -> None:
        """Writes what a long life would have left, both databases at a time on the two cores."""
        merchant, events, orders = self._merchant, self._events, self._orders
        await asyncio.gather(
            self._fill(
                "ledger",
                ("entries", "events"),
                (OPEN_ACCOUNTS, merchant.id),
                (FILL_ENTRIES, merchant.id, AMOUNT, events),
                (FILL_EVENTS, merchant.id, events),
            ),
            self._fill("orders", ("orders",), (FILL_ORDERS, merchant.id, merchant.wallet, AMOUNT, orders)),
        )
        await self._stage.execute("ledger", (FILL_BALANCES, merchant.id))
        await self._stage.checkpoint()

    async def _fill(self, database: str, tables: tuple[str, ...], *statements: tuple[Any, ...]) -> None:
        """Statements, with the tables' indexes made anew after them: 0.6 of the CPU.

        The tables are locked meanwhile, and the sweepers of orders log that they were kept waiting.
        """
        indexes = await self._stage.column(database, INDEXES, tables)
        drop, make = zip(*indexes, strict=True)
        await self._stage.execute(database, "SET LOCAL maintenance_work_mem = '256MB'", *drop, *statements, *make)
        # Else autovacuum comes within a minute and works while something is measured.
        for table in tables:
            await self._stage.maintain(database, f"VACUUM (ANALYZE) {table}")

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
