"""A ledger on real parts: its database by both roles, and the whole service behind gRPC and NATS."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import grpc
import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from pydantic import SecretStr

from kit.channel import Peer
from kit.database import Database
from kit.process import Process
from ledger import bootstrap
from ledger.contract import timestamp_of
from ledger.domain import EventType, Posting
from ledger.settings import Settings
from local.testing import MakeDatabase
from ospay.ledger.v1 import ledger_pb2 as pb
from ospay.ledger.v1.ledger_pb2_grpc import LedgerServiceStub

TOKEN = "t" * 40
TABLES = {
    "accounts": "account_id",
    "balances": "account_id",
    "events": "event_id",
    "entries": "account_id, seq",
}

# Every rule of the books over every row: each query answers nothing when the rule holds.
RULES = {
    "entries sum to zero per event and asset": """
        SELECT event_id FROM entries GROUP BY event_id, asset
        HAVING sum(CASE direction WHEN 'CREDIT' THEN amount_minor ELSE -amount_minor END) <> 0 OR count(*) <> 2
    """,
    "an event has its entries and an entry its event": """
        SELECT event_id FROM events FULL JOIN (SELECT DISTINCT event_id FROM entries) AS e USING (event_id)
        WHERE events.event_id IS NULL OR e.event_id IS NULL
    """,
    "a balance is the sum of its entries and their last balance_after": """
        SELECT account_id FROM balances LEFT JOIN LATERAL (
            SELECT sum(CASE direction WHEN 'CREDIT' THEN amount_minor ELSE -amount_minor END) AS total,
                count(*) AS lines, (array_agg(balance_after ORDER BY seq DESC))[1] AS last, max(created_at) AS newest_at
            FROM entries WHERE entries.account_id = balances.account_id
        ) AS e ON true
        WHERE balance <> coalesce(total, 0) OR balance <> coalesce(last, 0) OR version <> lines
            OR last_at <> coalesce(newest_at, '-infinity')
    """,
    "seq has no gaps and time never goes back": """
        SELECT account_id FROM (
            SELECT account_id, seq, created_at, lag(created_at) OVER w AS earlier, row_number() OVER w AS nth,
                balance_after,
                sum(CASE direction WHEN 'CREDIT' THEN amount_minor ELSE -amount_minor END) OVER w AS total
            FROM entries WINDOW w AS (PARTITION BY account_id ORDER BY seq)
        ) AS line WHERE seq <> nth OR created_at < earlier OR balance_after <> total
    """,
    "each pair of buckets of a merchant's asset sums to zero": """
        SELECT merchant_id, asset FROM accounts JOIN balances USING (account_id)
        GROUP BY merchant_id, asset, bucket IN ('merchant', 'clearing') HAVING sum(balance) <> 0 OR count(*) <> 2
    """,
    "an event is booked in the pair of its type": """
        SELECT event_id FROM entries GROUP BY event_id, event_type
        HAVING array_agg(bucket::text ORDER BY bucket) <> CASE
            WHEN event_type::text LIKE 'SUSPENSE_%' THEN '{suspense, suspense_clearing}'::text[]
            ELSE '{merchant, clearing}'
        END
    """,
    "an account has one balance": """
        SELECT account_id FROM accounts FULL JOIN balances USING (account_id)
        WHERE accounts.account_id IS NULL OR balances.account_id IS NULL
    """,
}


@dataclass(frozen=True)
class Books:
    """One ledger's database: `service` as the service sees it, `owner` as its owner does."""

    service: Database
    owner: asyncpg.Connection
    url: str

    async def rows(self, table: str) -> list[tuple]:
        """All rows with their physical version, in order."""
        found = await self.owner.fetch(f"SELECT xmin::text, ctid::text, * FROM {table} ORDER BY {TABLES[table]}")
        return [tuple(row.values()) for row in found]

    async def bytes(self) -> dict[str, list[tuple]]:
        """The whole books."""
        return {table: await self.rows(table) for table in TABLES}

    async def lines(self) -> list[dict]:
        """All entries without what differs from run to run (ids of rows, times of booking), in order."""
        found = await self.owner.fetch(
            """
            SELECT merchant_id, asset, bucket::text, seq, direction::text, amount_minor, balance_after::text,
                event_type::text, event_id, order_id, tx_hash, effective_at
            FROM entries ORDER BY merchant_id, asset, entries.bucket, seq
            """
        )
        return [dict(row) for row in found]

    async def broken(self) -> list[str]:
        """The rules that do not hold."""
        return [rule for rule, query in RULES.items() if await self.owner.fetch(query)]

    async def rejected(self) -> list[dict]:
        """What was refused and recorded."""
        found = await self.owner.fetch(
            "SELECT reason, event_id, detail, payload, seen_count FROM rejected_events ORDER BY first_seen_at, digest"
        )
        return [dict(row) for row in found]


@pytest_asyncio.fixture
async def open_books(database: MakeDatabase) -> AsyncIterator[Callable[[], Awaitable[Books]]]:
    opened: list[Books] = []

    async def make() -> Books:
        made = await database("ledger")
        service = await Database.open(made.url, application="test", size=6)
        opened.append(Books(service, await asyncpg.connect(made.owner_url), made.url))
        return opened[-1]

    yield make
    for books in opened:
        await books.service.close()
        await books.owner.close()


@pytest_asyncio.fixture
async def books(open_books: Callable[[], Awaitable[Books]]) -> Books:
    return await open_books()


def _posting(
    amount: int = 5,
    *,
    event_id: UUID | None = None,
    event_type: EventType = EventType.ORDER_PAID,
    merchant: str = "m1",
    order: str = "o1",
    asset: str = "USDT",
    tx_hash: str = "0x" + "ab" * 32,
    effective_at: datetime = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    traceparent: str = "",
) -> Posting:
    event_id = event_id or uuid4()
    return Posting(
        event_id, event_type, merchant, order, asset, amount, tx_hash, effective_at, str(event_id), traceparent
    )


@pytest.fixture(scope="session")
def posting() -> Callable[..., Posting]:
    """Makes a posting; everything has a default."""
    return _posting


def _message(given: Posting) -> pb.Posting:
    return pb.Posting(
        event_id=given.event_id_text,
        event_type=pb.EventType.Value(f"EVENT_TYPE_{given.event_type}"),
        merchant_id=given.merchant_id,
        order_id=given.order_id,
        asset=given.asset,
        amount_minor=given.amount_minor,
        tx_hash=given.tx_hash,
        effective_at=timestamp_of(given.effective_at),
        traceparent=given.traceparent,
    )


@pytest.fixture(scope="session")
def message() -> Callable[[Posting], pb.Posting]:
    """The message of a posting."""
    return _message


Condition = Callable[[], Awaitable[bool]]


async def _until(condition: Condition, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Running:
    """The whole service, and clients of it."""

    books: Books
    target: str
    stub: LedgerServiceStub
    peer: Peer
    nats: Client
    process: Process

    async def call(self, name: str, request: object) -> object:
        """An rpc as a caller with a token. Errors: Fault."""
        return await self.peer.call(getattr(self.stub, name), request, timeout=10)

    async def until(self, condition: Condition) -> None:
        """Waits until a condition holds, at most 30 seconds."""
        await _until(condition)


@pytest_asyncio.fixture
async def running(books: Books, nats_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    for name in list(os.environ):
        if name.startswith(("LEDGER_", "GRPC_TLS_")):
            monkeypatch.delenv(name)
    settings = Settings(
        environment="local",
        metrics_listen="127.0.0.1:0",
        grpc_listen="127.0.0.1:0",
        grpc_callers={"test": SecretStr(TOKEN)},
        database_url=SecretStr(books.url),
        nats_url=nats_url,
    )
    process = Process()
    server = await bootstrap.start(process, settings)
    target = f"127.0.0.1:{server.port}"
    peer = Peer(target, token=SecretStr(TOKEN))
    client = await nats.connect(nats_url)
    yield Running(books, target, LedgerServiceStub(peer.channel), peer, client, process)
    await client.close()
    await peer.close()
    process.stop()
    with suppress(grpc.aio.AioRpcError):
        await process.finish(seconds=0.1)


@pytest.fixture(scope="session")
def until() -> Callable[[Condition], Awaitable[None]]:
    """Waits until a condition holds, at most 30 seconds."""
    return _until


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A new seed for each run, shown when the test fails; `OSPAY_TEST_SEED=…` repeats one."""
    chosen = int(os.environ.get("OSPAY_TEST_SEED", secrets.randbelow(2**32)))
    print(f"OSPAY_TEST_SEED={chosen}")  # noqa: T201
    return chosen
