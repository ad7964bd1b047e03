"""The doorbell on a real NATS: what is delivered, what comes again, what a wiped server costs."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kit.bus import Bus
from kit.errors import Fault, Kind
from kit.process import Process
from local.nats import Nats
from local.ports import free_port
from local.process import running

SUBJECT = "kittest.v1.rung"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[Bus, Process]]:
    process = Process()
    bus = Bus(url, name="test", streams={"KITTEST": "kittest.v1.>"})
    bus.start(process)
    try:
        yield bus, process
    finally:
        process.stop()
        await process.finish(5)


async def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in a library
            await asyncio.sleep(0.02)


async def published(bus: Bus, payload: bytes) -> None:
    """Publishes until it is taken, as whoever has a row to try again from."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await bus.publish(SUBJECT, payload)
            except Fault as fault:
                if fault.kind is not Kind.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.05)


async def test_messages_arrive_in_batches_and_once(nats_url: str) -> None:
    """What is published after the consumer exists arrives, and an acknowledged message does not come again."""
    got: list[bytes] = []

    async def handle(payloads: list[bytes]) -> None:
        got.extend(payloads)

    async with connected(nats_url) as (bus, process):
        process.start("consume", bus.consume(stream="KITTEST", subject=SUBJECT, durable="d", handle=handle))
        await _flows(bus, got, b"probe")
        sent = [secrets.token_bytes(8) for _ in range(50)]
        for payload in sent:
            await published(bus, payload)
        await eventually(lambda: set(sent) <= set(got))
    assert [item for item in got if item != b"probe"] == sent


async def test_a_failed_batch_comes_again(nats_url: str) -> None:
    """A handler that raises gets the same messages again; what has succeeded is not lost."""
    calls: list[list[bytes]] = []

    async def handle(payloads: list[bytes]) -> None:
        calls.append(payloads)
        if len(calls) == 1:
            raise OSError("not now")

    async with connected(nats_url) as (bus, process):
        process.start("consume", bus.consume(stream="KITTEST", subject=SUBJECT, durable="d", handle=handle))

        async def heard() -> None:
            while not calls:
                await published(bus, b"x")
                await asyncio.sleep(0.05)

        await asyncio.wait_for(heard(), 20)
        await eventually(lambda: len(calls) >= 2)
    assert calls[1][0] == b"x"


async def test_a_wiped_server_is_made_whole(tmp_path: Path) -> None:
    """NATS killed and its files deleted: streams and consumers are made again, and messages flow."""
    folder, port = tmp_path / "nats", free_port()
    folder.mkdir()
    got: list[bytes] = []

    async def handle(payloads: list[bytes]) -> None:
        got.extend(payloads)

    server = Nats(folder, port, tmp_path / "nats.log")
    async with running(server):
        pass
    async with connected(server.url) as (bus, process):
        process.start("consume", bus.consume(stream="KITTEST", subject=SUBJECT, durable="d", handle=handle))
        async with running(Nats(folder, port, tmp_path / "nats.log")):
            await _flows(bus, got, b"before")
        with pytest.raises(Fault):
            await bus.publish(SUBJECT, b"down")
        shutil.rmtree(folder)
        folder.mkdir()
        async with running(Nats(folder, port, tmp_path / "nats.log")):
            await _flows(bus, got, b"after")
    assert got[0] == b"before"
    assert b"down" not in got


async def _flows(bus: Bus, got: list[bytes], payload: bytes) -> None:
    """Publishes until it arrives: a message published before the consumer exists is for nobody."""
    async with asyncio.timeout(30):
        while payload not in got:
            await published(bus, payload)
            await asyncio.sleep(0.05)


def _is_stopped(pid: int) -> bool:
    """Whether none of its threads runs on: one may answer after the signal was sent."""
    states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


async def test_a_server_that_hung_for_seconds_is_used_again(tmp_path: Path) -> None:
    """Health is asked meanwhile, and finds no answer; when there is one the connection is as it was."""
    got: list[bytes] = []

    async def handle(payloads: list[bytes]) -> None:
        got.extend(payloads)

    server = Nats(tmp_path, free_port(), tmp_path / "nats.log")
    async with running(server) as child, connected(server.url) as (bus, process):
        process.start("consume", bus.consume(stream="KITTEST", subject=SUBJECT, durable="d", handle=handle))
        await _flows(bus, got, b"before")
        os.kill(child.pid, signal.SIGSTOP)
        try:
            await eventually(lambda: _is_stopped(child.pid))
            with pytest.raises(Fault):
                await bus.ping()
        finally:
            os.kill(child.pid, signal.SIGCONT)
        await _flows(bus, got, b"after")
        assert bus._client.stats["reconnects"] == 0


async def test_a_server_without_streams_is_not_well(tmp_path: Path) -> None:
    """It answers, but nothing can be published."""

    class WithoutStreams(Nats):
        async def prepare(self) -> None:
            await super().prepare()
            (tmp_path / "nats.conf").write_text(json.dumps({"listen": self.address}))

    server = WithoutStreams(tmp_path, free_port(), tmp_path / "nats.log")
    async with running(server), connected(server.url) as (bus, _):
        await eventually(lambda: bus._client.is_connected and bus._jetstream is not None)
        with pytest.raises(Fault):
            await bus.ping()


async def _fill(bus: Bus) -> None:
    for _ in range(100):
        await bus.publish(SUBJECT, bytes(100_000))


async def test_a_server_whose_disk_is_full_is_not_well(tmp_path: Path) -> None:
    """NATS then takes no message until it is started anew, and still answers."""

    async def handle(payloads: list[bytes]) -> None:
        raise OSError("away: what is published stays")

    server = Nats(tmp_path, free_port(), tmp_path / "nats.log")
    async with running(server) as child, connected(server.url) as (bus, process):
        process.start("consume", bus.consume(stream="KITTEST", subject=SUBJECT, durable="d", handle=handle))
        await published(bus, b"before")
        await bus.ping()
        _, hard = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (500_000, hard))
        with pytest.raises(Fault):
            await _fill(bus)
        with pytest.raises(Fault):
            await bus.ping()


async def test_what_is_published_to_ask_for_health_is_not_kept(nats_url: str) -> None:
    """Nobody consumes it."""

    async def handle(payloads: list[bytes]) -> None:
        raise AssertionError("nothing was published for it")

    async with connected(nats_url) as (bus, process):
        process.start("consume", bus.consume(stream="KITTEST", subject=SUBJECT, durable="none", handle=handle))
        await eventually(lambda: bus._connected.is_set())
        await bus.ping()
        assert bus._jetstream is not None
        state = (await bus._jetstream.stream_info("KITTEST")).state
        assert state.messages == 0
