"""Starts parts, watches them, restarts the dead with backoff, stops all."""

import asyncio
import time
from collections.abc import Callable

from local.process import Part, PartFailed, Process, wait_ready

FIRST_PAUSE = 0.2  # seconds before the first restart; doubled each time
LONGEST_PAUSE = 10.0
STEADY = 10.0  # seconds after which a part's earlier deaths are forgotten


class Supervisor:
    """Holds the running parts. `say` gets one line for people; `changed` is called when process ids change."""

    def __init__(self, say: Callable[[str], None], changed: Callable[[], None]) -> None:
        self._say = say
        self._changed = changed
        self._processes: dict[str, Process] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}

    @property
    def names(self) -> list[str]:
        return list(self._processes)

    def pids(self) -> dict[str, int]:
        """By part name, of those that run."""
        return {name: process.pid for name, process in self._processes.items() if process.exit_code is None}

    async def start(self, part: Part) -> None:
        """Returns when it is ready; PartFailed if it does not get there. From then on it is kept alive."""
        began = time.monotonic()
        await self._launch(part)
        self._say(f"[bold]{part.name:<12}[/] {part.address:<24} ready in {time.monotonic() - began:.2f} s")
        self._watchers[part.name] = asyncio.create_task(self._keep_alive(part))

    async def _launch(self, part: Part) -> None:
        await part.prepare()
        # Known before it is ready: to stop a half-started suite is to stop this one too.
        process = self._processes[part.name] = Process(part.command())
        self._changed()
        await wait_ready(part, process)

    async def _keep_alive(self, part: Part) -> None:
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            code = await self._processes[part.name].wait()
            self._changed()
            if time.monotonic() - began > STEADY:
                pause = FIRST_PAUSE
            self._say(f"[red]{part.name} died[/] ({_cause(code)}); restart in {pause:g} s")
            pause = await self._revive(part, pause)

    async def _revive(self, part: Part, pause: float) -> float:
        """Tries until it is ready; the pause before the next restart."""
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            try:
                await self._launch(part)
            except (PartFailed, OSError) as failure:
                what = str(failure).partition("\n")[0].rstrip(":")  # the log's end is in the log
                self._say(f"[red]{part.name} did not start[/]: {what}; again in {pause:g} s")
                await self._processes[part.name].stop()
            else:
                self._say(f"[green]{part.name} is back[/] as process {self._processes[part.name].pid}")
                return pause

    async def stop(self, names: list[str]) -> None:
        """Stops these together. They stay stopped."""
        watchers = [task for name in names if (task := self._watchers.pop(name, None))]
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        processes = [process for name in names if (process := self._processes.get(name))]
        await asyncio.gather(*(process.stop() for process in processes))
        self._changed()

    def kill_all(self) -> None:
        """The last word, when a stop itself has failed."""
        for process in self._processes.values():
            process.kill()


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
