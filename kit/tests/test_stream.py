"""Batches over a stream that is kept, on real gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr

from kit.channel import Peer
from kit.errors import Fault, Kind
from kit.server import Server, Service, streamed
from kit.stream import Stream
from ospay.verifier.v1 import verifier_pb2, verifier_pb2_grpc

TOKEN = SecretStr("t" * 40)


class Heads(verifier_pb2_grpc.VerifierServiceServicer):
    """Counts what it is asked; waits or raises when a test says so."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.raises: Exception | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.begun = asyncio.Event()
        self.finished = 0

    async def GetHead(self, request, context):  # gRPC's name
        self.asked.append(request.chain)
        self.begun.set()
        await self.go_on.wait()
        self.finished += 1
        if self.raises:
            raise self.raises
        return verifier_pb2.GetHeadResponse(block_number=len(self.asked))

    StreamHeads = streamed(GetHead)


class Counted:
    """A method of a stub that counts its calls."""

    def __init__(self, method) -> None:
        self._method = method
        self.calls = 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self._method(*args, **kwargs)


class Ends:
    """Both ends of a channel."""

    def __init__(self, heads: Heads, peer: Peer, timeout: float) -> None:
        self.heads, self.peer = heads, peer
        stub = verifier_pb2_grpc.VerifierServiceStub(peer.channel)
        self.opened, self.unary = Counted(stub.StreamHeads), Counted(stub.GetHead)
        self.stream = Stream(peer, self.opened, self.unary, timeout=timeout)

    async def ask(self, chain: str = "BSC") -> int:
        return (await self.stream.call(verifier_pb2.GetHeadRequest(chain=chain))).block_number


async def refuses(peer: Peer) -> None:
    """Returns when the server takes nothing new."""
    check = health_pb2_grpc.HealthStub(peer.channel).Check
    async with asyncio.timeout(5):
        with suppress(grpc.aio.AioRpcError):
            status = health_pb2.HealthCheckResponse.SERVING
            while status == health_pb2.HealthCheckResponse.SERVING:
                status = (await check(health_pb2.HealthCheckRequest())).status


async def serve(heads: Heads, port: int = 0) -> Server:
    name = verifier_pb2.DESCRIPTOR.services_by_name["VerifierService"].full_name
    service = Service(name, verifier_pb2_grpc.add_VerifierServiceServicer_to_server, heads)
    server = Server(f"127.0.0.1:{port}", callers={"test": TOKEN}, services=[service], tls=None)
    await server.start()
    return server


@asynccontextmanager
async def ends(timeout: float = 5.0, token: SecretStr = TOKEN) -> AsyncIterator[tuple[Ends, Server]]:
    heads = Heads()
    server = await serve(heads)
    peer = Peer(f"127.0.0.1:{server.port}", token=token)
    try:
        yield Ends(heads, peer, timeout), server
    finally:
        await peer.close()
        await server.stop()


async def test_one_stream_carries_many_calls() -> None:
    """Calls one after the other share a stream; calls at once have one each, and no more are opened later."""
    async with ends() as (far, _):
        assert [await far.ask() for _ in range(3)] == [1, 2, 3]
        assert (far.opened.calls, far.unary.calls) == (1, 0)
        for _ in range(2):
            assert len(set(await asyncio.gather(*(far.ask() for _ in range(4))))) == 4
        assert (far.opened.calls, far.unary.calls) == (4, 0)


async def test_a_stranger_opens_no_stream() -> None:
    """Another token is refused before anything is asked."""
    async with ends(token=SecretStr("x" * 40)) as (far, _):
        with pytest.raises(Fault) as caught:
            await far.ask()
        assert (caught.value.kind, far.heads.asked) == (Kind.UNAUTHENTICATED, [])


@pytest.mark.parametrize("given", ["nan", "-1", "soon", ""])
async def test_a_time_that_is_none_is_refused(given: str) -> None:
    """The time for a batch is a number of seconds; anything else ends the stream with the name of what is wrong."""
    async with ends() as (far, _):
        stub = verifier_pb2_grpc.VerifierServiceStub(far.peer.channel)
        call = stub.StreamHeads(timeout=5, metadata=[*far.peer.metadata(), ("batch-timeout", given)])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert (caught.value.code(), far.heads.asked) == (grpc.StatusCode.INVALID_ARGUMENT, [])
        assert "batch-timeout" in (caught.value.details() or "")


async def test_rules_hold_on_a_stream() -> None:
    """A message that breaks the rules of its contract is refused with its fields, as in a plain call."""
    async with ends() as (far, _):
        with pytest.raises(Fault) as caught:
            await far.ask("no chain")
        assert (caught.value.kind, [item.field for item in caught.value.violations]) == (Kind.INVALID, ["chain"])
        assert await far.ask() == 1


async def test_a_fault_ends_the_stream_and_no_more() -> None:
    """The callee's own fault arrives as it is, and the next call is answered."""
    async with ends() as (far, _):
        far.heads.raises = Fault(Kind.CONFLICT, "no", "not now", metadata={"a": "b"})
        with pytest.raises(Fault) as caught:
            await far.ask()
        assert (caught.value.reason, caught.value.metadata) == ("no", {"a": "b"})
        far.heads.raises = None
        assert await far.ask() == 2


async def test_a_caller_that_goes_away_cuts_nothing() -> None:
    """What has begun is finished; the stream of the one that left is not used for another's answer."""
    async with ends() as (far, _):
        far.heads.go_on.clear()
        leaving = asyncio.create_task(far.ask())
        await far.heads.begun.wait()
        leaving.cancel()
        await asyncio.wait([leaving])
        far.heads.go_on.set()
        assert await far.ask() == 2
        assert far.heads.finished == 2


async def test_a_slow_answer_is_not_waited_for() -> None:
    """After its time a call ends; its late answer is nobody's."""
    async with ends(timeout=0.3) as (far, _):
        await far.ask()
        far.heads.go_on.clear()
        with pytest.raises(Fault) as caught:
            await far.ask()
        assert (caught.value.kind, caught.value.reason) == (Kind.DEADLINE, "unavailable")
        far.heads.go_on.set()
        assert await far.ask() == 3


async def test_a_server_that_comes_back_is_found() -> None:
    """While it is away calls end as unavailable; then they are answered, over a stream again after a moment."""
    async with ends() as (far, server):
        await far.ask()
        await server.stop()
        with pytest.raises(Fault) as caught:
            await far.ask()
        assert (caught.value.kind, caught.value.reason) == (Kind.UNAVAILABLE, "unavailable")
        again = await serve(far.heads, server.port)
        try:
            async with asyncio.timeout(30):
                while far.opened.calls < 3:
                    with suppress(Fault):
                        await far.ask()
                    await asyncio.sleep(0.05)
            assert await far.ask() == len(far.heads.asked)
        finally:
            await again.stop()


async def test_a_server_stops_between_batches() -> None:
    """Idle streams hold up no stop; a batch that has begun is answered first."""
    async with ends() as (far, server):
        await asyncio.gather(*(far.ask() for _ in range(3)))
        far.heads.go_on.clear()
        far.heads.begun.clear()
        asking = asyncio.create_task(far.ask())
        await far.heads.begun.wait()
        began = time.monotonic()
        stopping = asyncio.create_task(server.stop())
        await refuses(far.peer)
        far.heads.go_on.set()
        assert await asking == 4
        await stopping
        assert time.monotonic() - began < 5
