"""What the services hold in memory while they work."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from bench.figures import Figures
from local.background import RunningSuite
from local.settings import SERVICES

LOOK_SECONDS = 0.25
PAGE = os.sysconf("SC_PAGE_SIZE")
MEGABYTE = 1_000_000


@asynccontextmanager
async def watched(suite: RunningSuite, figures: Figures) -> AsyncIterator[None]:
    """Notes the largest resident size that a process of each service reaches meanwhile, in MB."""
    peaks = dict.fromkeys(SERVICES, 0.0)
    looking = asyncio.create_task(_look(suite, peaks))
    try:
        yield
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
    for service, peak in peaks.items():
        figures.note(f"MB resident, {service}", peak)
    figures.note("memory", max(peaks.values()))


async def _look(suite: RunningSuite, peaks: dict[str, float]) -> None:
    while True:
        for service in SERVICES:
            for pid in suite.pids(service):
                peaks[service] = max(peaks[service], _resident(pid))
        await asyncio.sleep(LOOK_SECONDS)


def _resident(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / MEGABYTE
    except FileNotFoundError:  # it has ended
        return 0.0
