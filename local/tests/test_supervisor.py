"""The supervisor with stand-ins: restarts, backoff, and an end that leaves nothing."""

import os
import signal
import sys

import pytest

from local.ports import free_port, listens
from local.process import Command, PartFailed, until
from local.supervisor import Supervisor

SERVE = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"


class StandIn:
    """A part that listens, or that fails at its first starts."""

    def __init__(self, folder, name="part", failures=0):
        self.name = name
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._log = folder / f"{name}.log"
        self._failures = failures
        self.starts = 0

    async def prepare(self):
        self.starts += 1

    def command(self):
        if self.starts > 1 and self.starts <= 1 + self._failures:
            return Command(argv=["false"], log=self._log)
        return Command(argv=[sys.executable, "-c", SERVE, str(self.port)], log=self._log)

    async def ready(self, pid=None):
        return await listens(self.port)


@pytest.fixture
def said():
    return []


@pytest.fixture
async def supervisor(said):
    supervisor = Supervisor(said.append, lambda: None)
    yield supervisor
    await supervisor.stop(supervisor.names)
    assert supervisor.pids() == {}


async def test_a_dead_part_is_restarted_and_that_is_said(supervisor, tmp_path, said):
    part = StandIn(tmp_path, failures=1)
    await supervisor.start(part)
    before = supervisor.pids()["part"]
    os.kill(before, signal.SIGKILL)

    async def back():
        return supervisor.pids().get("part", before) != before and await part.ready()

    await until(back, "the restart")

    async def told():
        return any("is back" in line for line in said)

    await until(told, "the message")
    assert part.starts == 3
    assert any("died" in line and "signal 9" in line for line in said)
    assert any("exited with 1" in line for line in said)


async def test_a_part_that_never_was_ready_is_an_error(supervisor, tmp_path):
    part = StandIn(tmp_path, failures=1)
    part.starts = 1
    with pytest.raises(PartFailed, match="part exited with 1"):
        await supervisor.start(part)


async def test_a_stopped_part_stays_stopped(supervisor, tmp_path):
    parts = [StandIn(tmp_path, name) for name in ("one", "two")]
    for part in parts:
        await supervisor.start(part)
    await supervisor.stop(["one"])
    assert list(supervisor.pids()) == ["two"]
    assert parts[0].starts == 1
    assert not await parts[0].ready()
