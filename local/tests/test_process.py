"""Children: stopped in time, never left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local.process import Command, PartFailed, Process, run_once, until

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
PARENT = """
import sys, time
from pathlib import Path
from local.process import Command, Process
folder = Path(sys.argv[1])
child = Process(Command(argv=["sleep", "60"], log=folder / "child.log"))
(folder / "pid.new").write_text(str(child.pid))
(folder / "pid.new").rename(folder / "pid")
time.sleep(60)
"""


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # The init process of a container may not reap: a zombie is gone too.
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] == "Z"


async def test_stop_asks_first_and_kills_in_the_end(tmp_path):
    log = tmp_path / "log"
    process = Process(Command(argv=[sys.executable, "-c", STUBBORN], log=log))

    async def up():
        return "up" in log.read_text()

    await until(up, "the child")
    assert await process.stop(bound=0.1) == -signal.SIGKILL
    polite = Process(Command(argv=["sleep", "60"], log=log))
    assert await polite.stop() == -signal.SIGTERM


async def test_a_child_dies_with_a_parent_that_is_killed(tmp_path):
    parent = subprocess.Popen(  # noqa: ASYNC220  quick, and must outlive this loop
        [sys.executable, "-c", PARENT, str(tmp_path)]
    )

    async def started():
        return (tmp_path / "pid").exists()

    await until(started, "the parent's child")
    child = int((tmp_path / "pid").read_text())
    assert not gone(child)
    parent.kill()
    parent.wait()

    async def child_is_gone():
        return gone(child)

    await until(child_is_gone, "the child to die")


async def test_waiting_from_two_places(tmp_path):
    process = Process(Command(argv=["true"], log=tmp_path / "log"))
    assert await asyncio.gather(process.wait(), process.wait()) == [0, 0]


async def test_run_once_shows_what_went_wrong():
    assert await run_once(["echo", "fine"]) == "fine\n"
    with pytest.raises(PartFailed, match="ls exited with"):
        await run_once(["ls", "/nowhere/at/all"])
