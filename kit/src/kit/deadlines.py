"""The time that is left, handed down from the call that we serve to the calls that we make."""

from __future__ import annotations

import time
from contextvars import ContextVar

from kit.errors import Fault, Kind

# What a hop keeps for itself, so that it can still answer when the one behind it runs out of time.
MARGIN_SECONDS = 0.05
# Metadata of a stream: seconds for one of its batches.
BATCH_TIMEOUT = "batch-timeout"

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def start(seconds: float) -> None:
    """Sets the deadline of the current task to `seconds` from now, on the monotonic clock."""
    _deadline.set(time.monotonic() + seconds)


def shave(timeout: float) -> float:
    """The smaller of `timeout` and what is left less the margin, in seconds; a Fault when nothing is left."""
    deadline = _deadline.get()
    if deadline is None:
        return timeout
    left = deadline - time.monotonic() - MARGIN_SECONDS
    if left <= 0:
        raise Fault(Kind.DEADLINE, "unavailable", "no time left for this request")
    return min(timeout, left)
