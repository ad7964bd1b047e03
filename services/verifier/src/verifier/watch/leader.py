"""One process at a time scans a chain: who holds PostgreSQL's advisory lock of it, on a connection of its own.

The lock only says who is at it; that two are never at it at once is what the term of the cursor is for.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress

import asyncpg
import structlog

from kit.database import SERVER_SETTINGS, UNAVAILABLE
from kit.process import Process
from verifier.domain import ChainFailure, StoreUnavailable
from verifier.metrics import LEADER, WATCHED
from verifier.watch.scanner import Scanner
from verifier.watch.store.cursors import Fenced

log = structlog.get_logger()

# A leader that stands still (stopped, cut off) loses its session, and so the lock, when the server has heard nothing of
# it for so long; with the standby's next try a new one leads within ten seconds.
IDLE_SESSION_SECONDS = 5
KEEP_ALIVE_SECONDS = 1.0
STANDBY_SECONDS = 1.0
ANSWER_SECONDS = 3.0
# A leader whose passes have not got at the chain for so long leaves the lead, for its database may be there and its way
# to the chain not. Longer than a call may take and than an endpoint that wants fewer calls is mostly left alone, so
# that what all replicas meet does not move the lead at each hiccup.
BLIND_SECONDS = 15.0
# How long it keeps out of the way then: every stand-by tries in this time, also one whose try takes `ANSWER_SECONDS`.
BLIND_PAUSE_SECONDS = 5.0


class Blind(Exception):
    """This process does not get at the chain; another one may."""


class Lock:
    """The lock of one chain. It is lost with its session."""

    def __init__(self, url: str, chain_id: int) -> None:
        self._url = url
        self._chain_id = chain_id
        self._session: asyncpg.Connection | None = None

    async def take(self) -> bool:
        """Whether it is held now. Errors: those of an unavailable database."""
        if self._session is None or self._session.is_closed():
            self._session = await asyncpg.connect(
                self._url,
                timeout=ANSWER_SECONDS,
                command_timeout=ANSWER_SECONDS,
                server_settings={
                    **SERVER_SETTINGS,
                    "application_name": "verifier-scanner",
                    "idle_session_timeout": str(IDLE_SESSION_SECONDS * 1000),
                },
            )
        return bool(await self._session.fetchval("SELECT pg_try_advisory_lock($1)", self._chain_id))

    async def keep(self) -> None:
        """Keeps the session from being ended, for ever. Errors: those of a database that is away."""
        while self._session is not None:
            await asyncio.sleep(KEEP_ALIVE_SECONDS)
            await self._session.execute("SELECT 1")

    def release(self) -> None:
        """Gives the lock back; the server does so when the connection is closed."""
        if self._session is not None:
            self._session.terminate()
            self._session = None


async def follow(scanner: Scanner, lock: Lock, chain: str, tick: float, process: Process) -> None:
    """Scans while the lock can be had and the chain is seen, stands by else, until the process stops."""
    LEADER.labels(chain).set(0)
    try:
        while not process.stopping:
            await process.sleep(await _try(scanner, lock, chain, tick, process))
    finally:
        lock.release()


async def _try(scanner: Scanner, lock: Lock, chain: str, tick: float, process: Process) -> float:
    """Leads if nobody else does; in how many seconds to try again."""
    pause = STANDBY_SECONDS
    try:
        if not await lock.take():
            return pause
        log.info("scanner_leads", chain=chain)
        LEADER.labels(chain).set(1)
        await _lead(scanner, lock, chain, tick, process)
    except Fenced:
        log.warning("scanner_fenced", chain=chain)
    except Blind:
        log.warning("scanner_blind", chain=chain)
        pause = BLIND_PAUSE_SECONDS
    except (StoreUnavailable, *UNAVAILABLE) as error:
        log.warning("scanner_interrupted", chain=chain, error=repr(error))
    except Exception as error:
        # From here on what this process remembers may be wrong: the next term begins with what is stored.
        log.error("unexpected", chain=chain, exc_info=error)
    finally:
        LEADER.labels(chain).set(0)
        WATCHED.labels(chain).set(0)
    lock.release()
    return pause


async def _lead(scanner: Scanner, lock: Lock, chain: str, tick: float, process: Process) -> None:
    """Scans until the lock is lost, something fails, or the process stops: every commit leaves all in order."""
    tasks = [asyncio.ensure_future(work) for work in (lock.keep(), _scan(scanner, chain, tick), process.wait())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


async def _scan(scanner: Scanner, chain: str, tick: float) -> None:
    await scanner.begin()
    failing, blind_since = "", math.inf
    while True:
        began = time.monotonic()
        more = False
        try:
            more = await scanner.look()
            failing = ""
        except (ChainFailure, TimeoutError) as failure:
            if failing != str(failure):  # once, and not at every look until it ends
                log.warning("scan_failed", chain=chain, error=str(failure))
            failing = str(failure)
        blind_since = math.inf if scanner.looked_at >= began else min(blind_since, began)
        if time.monotonic() - blind_since > BLIND_SECONDS:
            raise Blind
        await asyncio.sleep(0 if more else max(0.0, began + tick - time.monotonic()))
