"""When an endpoint is left alone, method by method."""

from __future__ import annotations

import time
from collections.abc import Callable

from verifier.domain import ChainFailure

# What fails is left alone for a while that doubles from the first to the second; longer only if the failure says so.
FIRST_PAUSE_SECONDS = 0.25
LAST_PAUSE_SECONDS = 2.0


class Breaker:
    """Closed lets calls through; open refuses them for a pause; half-open, after it, lets one through to try.

    What ends with `succeed` closes it, with `fail` opens it; one that was only cancelled ends with `abandon`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._failure: ChainFailure | None = None
        self._until = 0.0
        self._trying = False

    @property
    def closed(self) -> bool:
        """Whether the newest call succeeded."""
        return self._failure is None

    def check(self) -> None:
        """Raises what opened it while calls are refused."""
        if self._failure is not None and (self._trying or self._clock() < self._until):
            raise self._failure.with_traceback(None)  # one object raised often would gather every traceback

    def enter(self) -> None:
        """A call goes through; only after `check`."""
        self._trying = self._failure is not None

    def succeed(self) -> None:
        """The call was answered."""
        self._failures = 0
        self._failure = None
        self._trying = False

    def fail(self, failure: ChainFailure) -> None:
        """The call was not answered, or refused."""
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 10), LAST_PAUSE_SECONDS)
        self._failures += 1
        self._until = self._clock() + max(pause, failure.pause)
        self._failure = failure
        self._trying = False

    def abandon(self) -> None:
        """Nobody knows: the next call may try."""
        self._trying = False
