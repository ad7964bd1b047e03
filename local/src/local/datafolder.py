"""The data folder: one runner at a time, what a crashed one left, secrets, and run.json."""

import fcntl
import json
import os
import secrets
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from local.places import remove
from local.settings import SettingsError

LEFTOVER_BOUND = 15.0  # seconds that processes of a crashed run have to go by themselves


class DataFolder:
    """`.ospay` or what OSPAY_DATA_DIR says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self._lock_file = path / "runner.lock"
        self._processes = path / "processes.json"
        self._secrets = path / "secrets.json"
        self.run_file = path / "run.json"
        self._lock: TextIO | None = None

    def open(self) -> None:
        """Takes the folder for this runner and ends what an earlier one left behind."""
        if self.path.exists() and not self._lock_file.exists() and any(self.path.iterdir()):
            raise SettingsError(f"{self.path} holds something else: set OSPAY_DATA_DIR to a new folder")
        self.logs.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        self.run_file.unlink(missing_ok=True)
        self._end_leftovers()

    def close(self) -> None:
        """Gives the folder free; nothing happens if it was never ours."""
        if self._lock is None:
            return
        self.run_file.unlink(missing_ok=True)
        self._processes.unlink(missing_ok=True)
        self._lock.close()

    def remove(self) -> None:
        """Deletes it all, if it is ours and nobody runs in it."""
        if not self.path.exists():
            return
        self.open()
        remove(self.path)
        self.close()

    def _take_lock(self) -> None:
        # Opened for appending: another runner's process id must not be wiped by looking.
        lock = self._lock_file.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = self._lock_file.read_text().strip()
            lock.close()
            raise SettingsError(f"the suite runs in {self.path} already, as process {owner}: stop it first") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def note_processes(self, pids: list[int]) -> None:
        """Remembers our children, so that the next runner can end them if this one cannot."""
        started = {str(pid): when for pid in pids if (when := _started(pid)) is not None}
        _write(self._processes, json.dumps(started))

    def _end_leftovers(self) -> None:
        """They got a signal when their runner died; who does not go in time is killed."""
        noted: dict[str, str] = json.loads(self._processes.read_text()) if self._processes.exists() else {}
        alive = {int(pid): started for pid, started in noted.items()}
        deadline = time.monotonic() + LEFTOVER_BOUND
        for number, give_up in ((signal.SIGTERM, False), (signal.SIGKILL, True)):
            alive = {pid: started for pid, started in alive.items() if _started(pid) == started}
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.killpg(pid, number)
            while any(_started(pid) == started for pid, started in alive.items()):
                if time.monotonic() > deadline:
                    if give_up:
                        raise SettingsError(f"processes of an earlier run do not end: {list(alive)}")
                    break
                time.sleep(0.02)
            deadline = time.monotonic() + LEFTOVER_BOUND
        self._processes.unlink(missing_ok=True)

    def secrets(self) -> dict[str, Any]:
        """What only this installation knows; made at the first run."""
        if not self._secrets.exists():
            self.save_secrets({})
        known: dict[str, Any] = json.loads(self._secrets.read_text())
        return known

    def save_secrets(self, known: Mapping[str, Any]) -> None:
        _write(self._secrets, json.dumps(known, indent=2))

    def write_run(self, content: Mapping[str, Any]) -> None:
        _write(self.run_file, json.dumps(content, indent=2))


def new_secret() -> str:
    """256 bits, in letters that need no quoting anywhere."""
    return secrets.token_hex(32)


def _write(file: Path, text: str) -> None:
    """Whole or not at all, and for the owner's eyes only."""
    partial = file.with_suffix(".new")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.replace(file)


def _started(pid: int) -> str | None:
    """When a living process began, in ticks since boot: tells it from a later one with the same id."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in brackets and may hold anything, so count from its end.
    state, *rest = stat.rpartition(")")[2].split()
    return None if state == "Z" else rest[18]
