"""The service as a process: it starts from its environment, stops when told to, and may be killed at any time."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr, ValidationError

from kit.channel import Peer
from kit.errors import Fault
from ledger.domain import Posting
from ledger.settings import Settings
from local.ports import free_port, listens
from ospay.ledger.v1 import ledger_pb2 as pb
from ospay.ledger.v1.ledger_pb2_grpc import LedgerServiceStub

if TYPE_CHECKING:
    from .conftest import Books

TOKEN = "s" * 40
Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


def environment(books: Books, nats_url: str, port: int) -> dict[str, str]:
    """All that the ledger needs to be told, and nothing of ours."""
    return {
        "PATH": os.environ["PATH"],
        "LEDGER_GRPC_LISTEN": f"127.0.0.1:{port}",
        "LEDGER_METRICS_LISTEN": f"127.0.0.1:{free_port()}",
        "LEDGER_GRPC_CALLERS": f"orders={TOKEN}",
        "LEDGER_DATABASE_URL": books.url,
        "NATS_URL": nats_url,
    }


@asynccontextmanager
async def ledger(env: dict[str, str], log: Path, until: Until) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m ledger`, listening; killed at the end if it still runs."""
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "ledger", env=env, stderr=file)
    try:
        port = int(env["LEDGER_GRPC_LISTEN"].rpartition(":")[2])
        await until(lambda: listens(port))
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_starts_and_stops(books: Books, nats_url: str, tmp_path: Path, until: Until) -> None:
    """SIGTERM ends it within its bounds, with status 0; its metrics name every outcome and rule from the start."""
    env = environment(books, nats_url, free_port())
    async with ledger(env, tmp_path / "log", until) as process:
        host, _, port = env["LEDGER_METRICS_LISTEN"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = (await asyncio.wait_for(reader.read(), 5)).decode()
        writer.close()
        await writer.wait_closed()
        for name in (
            'ledger_postings_total{outcome="POSTED"} 0.0',
            'ledger_rejected_events_total{reason="UNPARSEABLE"} 0.0',
            'ledger_invariant_violations{rule="entries_chain"} 0.0',
            "ledger_entries_posted_total 0.0",
        ):
            assert name in text
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0, (tmp_path / "log").read_text()


async def test_killed_under_load(
    books: Books,
    nats_url: str,
    tmp_path: Path,
    posting: Callable[..., Posting],
    message: Callable[[Posting], pb.Posting],
    seed: int,
    until: Until,
) -> None:
    """kill -9 in the middle of batches: what was acknowledged is booked, and asking again completes the rest."""
    rng = random.Random(seed)
    requests = [pb.BatchPostRequest(postings=[message(posting(1)) for _ in range(50)]) for _ in range(60)]
    acknowledged: list[str] = []
    port = free_port()
    peer = Peer(f"127.0.0.1:{port}", token=SecretStr(TOKEN))
    stub = LedgerServiceStub(peer.channel)

    async def post(request: pb.BatchPostRequest) -> None:
        answer = await peer.call(stub.BatchPost, request, timeout=10)
        acknowledged.extend(result.event_id for result in answer.results)

    async def completed(request: pb.BatchPostRequest) -> bool:
        try:
            await post(request)
        except Fault:  # the channel still backs off from the dead process
            return False
        return True

    async with ledger(environment(books, nats_url, port), tmp_path / "log", until) as process:
        calls = [asyncio.ensure_future(post(request)) for request in requests]
        enough = 50 * rng.randint(1, 20)

        async def some_acknowledged() -> bool:
            return len(acknowledged) >= enough

        await until(some_acknowledged)
        process.kill()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(None), Fault} >= {type(outcome) for outcome in outcomes}, f"seed {seed}"
    booked = {str(row["event_id"]) for row in await books.owner.fetch("SELECT event_id FROM events")}
    assert set(acknowledged) <= booked, f"seed {seed}"
    assert await books.broken() == [], f"seed {seed}"
    async with ledger(environment(books, nats_url, port), tmp_path / "log", until):
        for request in requests:
            await until(partial(completed, request))
    await peer.close()
    assert await books.owner.fetchval("SELECT count(*) FROM events") == 3000
    assert await books.broken() == [], f"seed {seed}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grpc_callers": "orders=short"}, "grpc_callers"),
        ({"grpc_callers": "orders=change-me-" + "x" * 40}, "grpc_callers"),
        ({"grpc_callers": "orders"}, "name=token"),
        ({"database_url": "postgresql://ledger:change-me@postgres:5432/ledger"}, "database_url"),
        ({"grpc_listen": "127.0.0.1"}, "host:port"),
    ],
)
def test_refuses_to_start_on_bad_settings(change: dict[str, str], message: str) -> None:
    """Default and short secrets and malformed addresses are named, never shown."""
    good = {
        "metrics_listen": "127.0.0.1:1",
        "grpc_listen": "127.0.0.1:2",
        "grpc_callers": f"orders={TOKEN}",
        "database_url": "postgresql://ledger:" + "p" * 40 + "@postgres:5432/ledger",
        "nats_url": "nats://127.0.0.1:4222",
    }
    assert Settings(**good).grpc_listen == "127.0.0.1:2"
    with pytest.raises(ValidationError) as caught:
        Settings(**{**good, **change})
    assert message in str(caught.value)
    assert "p" * 40 not in str(caught.value)
    assert "change-me" not in str(caught.value).replace("contains change-me", "")
