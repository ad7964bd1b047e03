"""As many requests as a server answers: by wrk where that is installed, by load.py elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from bench.load import load
from bench.wrk import PROGRAM, Load, wrk

GENERATOR = "wrk" if PROGRAM else "load.py"


def slack(connections: int) -> int:
    """How many requests may have been done though nobody saw the answer: wrk cuts off what is under way at its end."""
    return connections if PROGRAM else 0


async def drive(
    url: str, requests: Iterable[bytes], *, connections: int, seconds: float, good: int, again: bool = False
) -> Load:
    """Sends the requests until they or the time run out; with `again` from the first one on, so that they do not.

    Errors: AssertionError: an answer of another status than `good`. wrk tells only that it is below 400.
    """
    if PROGRAM:
        return await wrk(url, requests, connections=connections, seconds=seconds, again=again)
    sent = itertools.cycle(requests) if again else requests
    result = await load(url, sent, connections=connections, seconds=seconds)
    assert set(result.statuses) == {good}, result.statuses
    return Load(result.statuses[good], result.seconds, result.percentile(0.5), result.percentile(0.99))
