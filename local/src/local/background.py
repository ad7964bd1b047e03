"""Starts the suite as a user does, in a process of its own, and reads what it says of itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_SECONDS = 90.0
STOP_SECONDS = 30.0
PARTS = ("gateway", "orders", "verifier", "ledger", "postgres", "nats", "anvil")


class RunningSuite:
    """A suite that runs; `run` is its run.json, read anew each time because restarts change it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def run(self) -> dict[str, Any]:
        """What run.json says now."""
        found: dict[str, Any] = json.loads((self.folder / "run.json").read_text())
        return found

    def pids(self, part: str) -> list[int]:
        """The processes of a part; empty while it is down."""
        found: list[int] = self.run["pids"].get(part, [])
        return found

    def kill(self, part: str, number: int = 0) -> int:
        """kill -9 of one process of a part; returns its pid."""
        pid = self.pids(part)[number]
        os.kill(pid, signal.SIGKILL)
        return pid

    def tail(self) -> str:
        """The last lines of every log, for a failure's report."""
        logs = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-15:]) for log in logs)


@contextmanager
def run_suite(folder: Path, environment: Mapping[str, str]) -> Iterator[RunningSuite]:
    """`python -m local run` on free ports with its state below `folder`; stopped by SIGTERM."""
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "state"
    ports = {f"OSPAY_PORT_{part.upper()}": "0" for part in PARTS}
    given = {"OSPAY_DATA_DIR": str(state), "OSPAY_BLOCK_TIME": "0", **ports, **environment}
    with (folder / "runner.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "local", "run"], env={**os.environ, **given}, stdout=log, stderr=subprocess.STDOUT
        )
    suite = RunningSuite(state)
    try:
        wait_until(lambda: _is_ready(process, suite), START_SECONDS, "the suite to be ready")
        yield suite
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def _is_ready(process: subprocess.Popen[bytes], suite: RunningSuite) -> bool:
    if process.poll() is not None:
        raise AssertionError(f"the runner ended:\n{(suite.folder.parent / 'runner.log').read_text()}\n{suite.tail()}")
    return (suite.folder / "run.json").exists()


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Asks until the condition holds; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
