"""How a service runs: one event loop, stopped by a signal, ended by the first background task that fails."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress

import structlog
import uvloop
from prometheus_client import Counter, start_http_server

from kit import telemetry

log = structlog.get_logger()

# Most objects that live after start-up live for ever: collecting young garbage more rarely, and never the frozen
# start-up heap, is worth a sixth of the throughput of creates.
GC_THRESHOLD = 50_000

LOOPS_FAILED = Counter("process_loops_failed_total", "Rounds of a loop that failed and are tried again", ["loop"])


class Process:
    """The background tasks and the resources of a service, closed in the reverse order of their opening."""

    def __init__(self) -> None:
        self.resources = AsyncExitStack()
        # What takes work in is closed first, so that the tasks can finish what came in.
        self.drains = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None

    @property
    def stopping(self) -> bool:
        """True once the service was told to stop: loops end after what they have begun."""
        return self._stopping.is_set()

    def stop(self, failure: BaseException | None = None) -> None:
        """Asks the service to stop; with a failure it exits with status 1."""
        self._failure = self._failure or failure
        self._stopping.set()

    def start(self, name: str, work: Coroutine[object, object, None]) -> None:
        """Runs a task in the background until it ends; if it raises, the whole service stops."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def every(self, seconds: float, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """Runs `work` again and again with a pause between; a failure is logged and tried again."""
        self.start(name, self._repeat(seconds, name, work))

    async def sleep(self, seconds: float) -> None:
        """Sleeps, or returns at once when the service is to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def first(self, work: Coroutine[object, object, object]) -> None:
        """Waits for `work`, or returns at once when the service is to stop."""
        waits = [asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def wait(self) -> None:
        """Returns when the service is to stop."""
        await self._stopping.wait()

    async def finish(self, seconds: float) -> None:
        """Closes what takes work in, lets the tasks end, cancels those that do not, closes the resources."""
        self._stopping.set()  # a start that failed has told nobody yet
        await self.drains.aclose()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                log.warning("task_cancelled", task=task.get_name())
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.resources.aclose()
        if self._failure is not None:
            raise self._failure

    async def _repeat(self, seconds: float, name: str, work: Callable[[], Awaitable[object]]) -> None:
        while not self.stopping:
            try:
                await work()
            except Exception as error:
                LOOPS_FAILED.labels(name).inc()
                log.warning("loop_failed", loop=name, error=repr(error))
            await self.sleep(seconds)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", task=task.get_name(), error=repr(error))
            self.stop(error)


def run(service: str, *, log_level: str, metrics_listen: str, start: Callable[[Process], Awaitable[None]]) -> None:
    """Runs a service until SIGTERM or SIGINT. `start` opens everything and returns when the service is ready."""
    telemetry.configure(service, log_level)
    try:
        uvloop.run(_main(service, metrics_listen, start))
    except Exception as error:
        log.error("exited", error=repr(error), exc_info=error)
        sys.exit(1)
    finally:
        telemetry.shutdown()


async def _main(service: str, metrics_listen: str, start: Callable[[Process], Awaitable[None]]) -> None:
    process = Process()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stop)
    host, _, port = metrics_listen.rpartition(":")
    metrics, thread = start_http_server(int(port), host)
    try:
        await start(process)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 100)
        log.info("ready", service=service)
        await process.wait()
        log.info("stopping", service=service)
    finally:
        try:
            await process.finish(seconds=15)
        finally:
            metrics.shutdown()
            metrics.server_close()
            thread.join(1)
