"""How long the disk keeps everybody waiting: one small sync after the other, beside what is measured."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAGE = bytes(8192)  # of PostgreSQL's log
PAUSE_SECONDS = 0.005


class Probe:
    """The syncs of a time: when each began and ended."""

    def __init__(self) -> None:
        self._syncs: list[tuple[float, float]] = []
        self._done = threading.Event()

    def sync_until_done(self, path: Path) -> None:
        """Writes the same page again and again, each time through to the disk."""
        with path.open("wb", buffering=0) as file:
            while not self._done.wait(PAUSE_SECONDS):
                began = time.perf_counter()
                os.pwrite(file.fileno(), PAGE, 0)
                os.fdatasync(file.fileno())
                self._syncs.append((began, time.perf_counter()))

    def stop(self) -> None:
        """Ends it after the sync that is under way."""
        self._done.set()

    def percentile(self, share: float) -> float:
        """Milliseconds until what came at any moment of this time would have been on disk, by the disk alone."""
        began, ended = self._syncs[0][0], self._syncs[-1][1]
        waits = [
            until * 1000 - moment
            for start, until in self._syncs
            for moment in range(math.ceil(start * 1000), math.ceil(until * 1000))
        ]
        rank = int((ended - began) * 1000 * (1 - share))
        return sorted(waits, reverse=True)[rank] if rank < len(waits) else 0.0


@contextmanager
def probed(folder: Path) -> Iterator[Probe]:
    """Probes the disk that a folder is on, in a thread, until the end of the block."""
    probe = Probe()
    thread = threading.Thread(target=probe.sync_until_done, args=(folder / "disk.probe",), name="disk")
    thread.start()
    try:
        yield probe
    finally:
        probe.stop()
        thread.join()
