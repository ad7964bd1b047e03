"""wrk, where it is installed: the requests of `load.py` at half of its CPU, which is CPU that the suite then has."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROGRAM = shutil.which("wrk")
SCRIPT = Path(__file__).with_name("requests.lua")


@dataclass(frozen=True)
class Load:
    """What a load did: good answers, seconds, latencies in milliseconds."""

    good: int
    seconds: float
    p50: float
    p99: float

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return self.good / self.seconds


async def wrk(url: str, requests: Iterable[bytes], *, connections: int, seconds: float, again: bool) -> Load:
    """Sends requests until they or the time run out, then cuts off what is under way; they do not run out with `again`.

    Errors: AssertionError: a bad answer.
    """
    assert PROGRAM is not None, "wrk is installed"
    with tempfile.NamedTemporaryFile("wb", suffix=".requests") as file:
        file.writelines(b"%d\n%b" % (len(request), request) for request in requests)
        file.flush()
        command = [PROGRAM, "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "20s", "-s", str(SCRIPT)]
        command += [url, "--", file.name, *(["again"] if again else [])]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output = (await asyncio.wait_for(process.communicate(), seconds + 60))[0].decode()
    told = json.loads(output.splitlines()[-1])
    assert told["bad"] == 0, output
    return Load(told["requests"], told["microseconds"] / 1e6, told["p50"], told["p99"])
