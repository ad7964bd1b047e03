"""Child processes: each in a process group of its own, none outlives us, every wait has a bound."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

LAUNCHER = Path(__file__).with_name("launch.py")
READY_BOUND = 30.0  # seconds until a part must be ready; alone it takes two, on a busy machine many
STOP_BOUND = 10.0  # seconds a part has to finish what it has begun before it is killed
POLL = 0.01  # seconds between two looks at a part that is starting


class PartFailed(Exception):
    """A part did not start, in words that a person can act on."""


@dataclass(frozen=True)
class Command:
    """What to run. `user` is an account to drop to; only root can."""

    argv: Sequence[str | Path]
    log: Path
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path | None = None
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGTERM


def launched(argv: Sequence[str | Path], user: str | None, death_signal: signal.Signals) -> list[str]:
    launcher = [sys.executable, "-I", "-S", LAUNCHER, os.getpid(), int(death_signal), user or "-"]
    return [str(word) for word in [*launcher, *argv]]


class Part(Protocol):
    """One process of the suite, however it is made."""

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> str: ...

    async def prepare(self) -> None:
        """Makes its files; done again after a crash."""

    def command(self) -> Command: ...

    async def ready(self, pid: int) -> bool:
        """One look, no waiting. `pid` is the process that must be ready, and not another in its place."""


class Process:
    """A running command. Not tied to an event loop, so that tests may start and stop it in different ones."""

    def __init__(self, command: Command) -> None:
        self.command = command
        command.log.parent.mkdir(parents=True, exist_ok=True)
        with command.log.open("ab") as log:
            self._popen = subprocess.Popen(  # noqa: S603  our own commands
                launched(command.argv, command.user, command.death_signal),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(command.env),
                cwd=command.cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    async def wait(self) -> int:
        while (code := self._popen.poll()) is None:
            await _exit_of(self.pid)
        return code

    async def stop(self, bound: float = STOP_BOUND) -> int:
        """Asks, waits, then kills; also what the process left behind in its group."""
        if self.exit_code is None:
            self._popen.send_signal(self.command.stop_signal)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), bound)
        self.kill()
        return await self.wait()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


async def _exit_of(pid: int) -> None:
    """Returns when this child of ours, not yet reaped, has exited."""
    loop = asyncio.get_running_loop()
    exited = loop.create_future()
    descriptor = os.pidfd_open(pid)

    def on_exit() -> None:
        loop.remove_reader(descriptor)
        if not exited.done():
            exited.set_result(None)

    loop.add_reader(descriptor, on_exit)
    try:
        await exited
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def log_tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


async def until(condition: Callable[[], Awaitable[bool]], what: str, bound: float = READY_BOUND) -> None:
    """Waits for a condition; the bound makes a part that hangs an error and not a riddle."""
    deadline = time.monotonic() + bound
    while not await condition():
        if time.monotonic() > deadline:
            raise PartFailed(f"waited {bound:g} s for {what}")
        await asyncio.sleep(POLL)


async def wait_ready(part: Part, process: Process, bound: float = READY_BOUND) -> None:
    async def ready_or_dead() -> bool:
        if process.exit_code is not None:
            log = process.command.log
            raise PartFailed(f"{part.name} exited with {process.exit_code}; the end of {log}:\n{log_tail(log)}")
        return await part.ready(process.pid)

    await until(ready_or_dead, f"{part.name} to be ready (its log: {process.command.log})", bound)


@asynccontextmanager
async def running(part: Part) -> AsyncIterator[Process]:
    """The part, started and ready; stopped at exit."""
    await part.prepare()
    process = Process(part.command())
    try:
        await wait_ready(part, process)
        yield process
    finally:
        await process.stop()


async def run_once(
    argv: Sequence[str | Path], env: Mapping[str, str] | None = None, user: str | None = None, bound: float = 60.0
) -> str:
    """A command that ends by itself; its output, or an error that shows it. Never through a shell."""
    child = await asyncio.create_subprocess_exec(
        *launched(argv, user, signal.SIGKILL),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(env or {})},
    )
    try:
        output, _ = await asyncio.wait_for(child.communicate(), bound)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    text = output.decode(errors="replace")
    if child.returncode != 0:
        raise PartFailed(f"{Path(argv[0]).name} exited with {child.returncode}:\n{text.strip()}")
    return text
