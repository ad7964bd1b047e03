"""Real gRPC: what the server and the channel do around every call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr

from kit.channel import Peer
from kit.errors import Fault, Kind, Violation
from kit.process import Process
from kit.server import Server, Service
from ospay.ledger.v1 import ledger_pb2, ledger_pb2_grpc

TOKEN = SecretStr("t" * 40)
EVENT = "01890a5d-ac96-774b-bcce-b302099a8057"


class Books(ledger_pb2_grpc.LedgerServiceServicer):
    """Answers with what the test has put here."""

    def __init__(self) -> None:
        self.raises: BaseException | None = None
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.finished = asyncio.Event()
        self.time_left: float | None = None

    async def GetBalances(self, request, context):  # gRPC's name
        self.begun.set()
        await self.go_on.wait()
        if self.raises:
            raise self.raises
        self.time_left = context.time_remaining()
        self.finished.set()
        return ledger_pb2.GetBalancesResponse(merchant_balance_minor=request.merchant_id)


@asynccontextmanager
async def serving(
    books: Books, token: SecretStr = TOKEN
) -> AsyncIterator[tuple[Peer, ledger_pb2_grpc.LedgerServiceStub]]:
    name = ledger_pb2.DESCRIPTOR.services_by_name["LedgerService"].full_name
    service = Service(name, ledger_pb2_grpc.add_LedgerServiceServicer_to_server, books)
    server = Server("127.0.0.1:0", callers={"test": TOKEN}, services=[service], tls=None)
    await server.start()
    peer = Peer(f"127.0.0.1:{server.port}", token=token)
    try:
        yield peer, ledger_pb2_grpc.LedgerServiceStub(peer.channel)
    finally:
        await peer.close()
        await server.stop()


def ask(merchant: str = "m") -> ledger_pb2.GetBalancesRequest:
    return ledger_pb2.GetBalancesRequest(merchant_id=merchant, asset="USDT")


async def test_a_known_caller_is_served() -> None:
    """A call with a known token reaches the handler."""
    async with serving(Books()) as (peer, stub):
        assert (await peer.call(stub.GetBalances, ask(), timeout=5)).merchant_balance_minor == "m"


async def test_an_unknown_caller_is_refused() -> None:
    """A call with another token ends as UNAUTHENTICATED, without reaching the handler."""
    books = Books()
    async with serving(books, SecretStr("x" * 40)) as (peer, stub):
        with pytest.raises(Fault) as caught:
            await peer.call(stub.GetBalances, ask(), timeout=5)
    assert (caught.value.kind, caught.value.reason) == (Kind.UNAUTHENTICATED, "invalid_token")
    assert not books.begun.is_set()


async def test_bad_fields_are_named() -> None:
    """A request that breaks its contract is refused with the field and the rule."""
    async with serving(Books()) as (peer, stub):
        with pytest.raises(Fault) as caught:
            await peer.call(stub.GetBalances, ask("no spaces"), timeout=5)
    assert caught.value.reason == "invalid_request"
    assert [item.field for item in caught.value.violations] == ["merchant_id"]


async def test_a_fault_arrives_as_it_was_raised() -> None:
    """Kind, reason, detail, metadata and violations survive the wire."""
    books = Books()
    books.raises = Fault(Kind.CONFLICT, "a_reason", "why", metadata={"k": "v"}, violations=[Violation("f", "m")])
    async with serving(books) as (peer, stub):
        with pytest.raises(Fault) as caught:
            await peer.call(stub.GetBalances, ask(), timeout=5)
    got = caught.value
    assert (got.kind, got.reason, got.detail, got.metadata, got.violations) == (
        Kind.CONFLICT,
        "a_reason",
        "why",
        {"k": "v"},
        (Violation("f", "m"),),
    )


async def test_an_unexpected_error_tells_nothing() -> None:
    """What was not foreseen becomes INTERNAL with an incident number and none of its text."""
    books = Books()
    books.raises = ValueError("secret")
    async with serving(books) as (peer, stub):
        with pytest.raises(Fault) as caught:
            await peer.call(stub.GetBalances, ask(), timeout=5)
    assert caught.value.kind == Kind.INTERNAL
    assert "secret" not in caught.value.detail


async def test_a_caller_that_goes_away_cuts_nothing_short() -> None:
    """A handler that has begun ends, although its caller has cancelled."""
    books = Books()
    books.go_on.clear()
    async with serving(books) as (peer, stub):
        call = asyncio.ensure_future(peer.call(stub.GetBalances, ask(), timeout=5))
        await asyncio.wait_for(books.begun.wait(), 5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        books.go_on.set()
        await asyncio.wait_for(books.finished.wait(), 5)


async def test_a_late_answer_is_unavailable() -> None:
    """A call past its deadline is a typed error, in time."""
    books = Books()
    books.go_on.clear()
    async with serving(books) as (peer, stub):
        with pytest.raises(Fault) as caught:
            await peer.call(stub.GetBalances, ask(), timeout=0.2)
        books.go_on.set()
    assert (caught.value.kind, caught.value.reason) == (Kind.DEADLINE, "unavailable")


async def test_the_deadline_reaches_the_callee() -> None:
    """The callee knows how much time its caller has left."""
    books = Books()
    async with serving(books) as (peer, stub):
        await peer.call(stub.GetBalances, ask(), timeout=7)
    assert books.time_left is not None
    # A second of play: the clocks that gRPC counts a deadline with differ by some milliseconds.
    assert 0 < books.time_left < 8


async def test_health_is_open_and_follows_its_probe() -> None:
    """A component's health is what its probe says, and asking needs no token."""
    process = Process()
    name = ledger_pb2.DESCRIPTOR.services_by_name["LedgerService"].full_name
    service = Service(name, ledger_pb2_grpc.add_LedgerServiceServicer_to_server, Books())
    server = Server("127.0.0.1:0", callers={"test": TOKEN}, services=[service], tls=None)
    probed = asyncio.Event()

    async def probe() -> None:
        probed.set()
        raise OSError("down")

    server.watch(process, "database", probe)
    await server.start()
    await asyncio.wait_for(probed.wait(), 5)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        live = await stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=5)
        ready = await stub.Check(health_pb2.HealthCheckRequest(service="database"), timeout=5)
    process.stop()
    await process.finish(5)
    await server.stop()
    assert live.status == health_pb2.HealthCheckResponse.SERVING
    assert ready.status == health_pb2.HealthCheckResponse.NOT_SERVING
