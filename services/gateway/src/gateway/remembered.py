"""An answer that all callers share for a moment, so that asking often costs no more than asking once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """What `ask` answered, at most `seconds` ago. Callers that come while it is asked wait for the same answer."""

    def __init__(
        self, ask: Callable[[], Awaitable[T]], *, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._seconds = seconds
        self._clock = clock
        self._asking: asyncio.Task[T] | None = None
        self._until = 0.0

    async def get(self) -> T:
        """The answer, or what asking raised; an error is remembered as long."""
        if self._asking is None or (self._asking.done() and self._clock() >= self._until):
            self._until = self._clock() + self._seconds
            self._asking = asyncio.create_task(self._find())
            self._asking.add_done_callback(_retrieve)
        return await asyncio.shield(self._asking)

    async def _find(self) -> T:
        return await self._ask()


def _retrieve(task: asyncio.Task[T]) -> None:
    if not task.cancelled():
        task.exception()
