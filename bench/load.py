"""A small HTTP load generator: keep-alive connections, one request at a time on each, nothing parsed but the status."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Result:
    """What a load did: answers by status, seconds from first request to last answer, latencies in seconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return sum(self.statuses.values()) / self.seconds

    def percentile(self, share: float) -> float:
        """Latency in milliseconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the last is answered."""

    def __init__(self, requests: Iterator[bytes], result: Result, deadline: float) -> None:
        self._requests = requests
        self._result = result
        self._deadline = deadline
        self._buffer = b""
        self._sent = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        start = self._buffer.lower().find(b"content-length:", 0, head)
        length = int(self._buffer[start + 15 : self._buffer.find(b"\r\n", start)])
        if len(self._buffer) < head + 4 + length:
            return
        self._result.statuses[int(self._buffer[9:12])] += 1
        self._result.latencies.append(time.perf_counter() - self._sent)
        self._buffer = self._buffer[head + 4 + length :]
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the gateway closed the connection"))

    def _next(self) -> None:
        request = next(self._requests, None) if time.perf_counter() < self._deadline else None
        if request is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)  # type: ignore[attr-defined]  # a stream transport


async def load(url: str, requests: Iterator[bytes], *, connections: int, seconds: float) -> Result:
    """Sends requests until they or the time run out."""
    parts = urlsplit(url)
    result = Result()
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    made = [
        await loop.create_connection(
            lambda: _Connection(requests, result, started + seconds), parts.hostname, parts.port
        )
        for _ in range(connections)
    ]
    await asyncio.wait_for(asyncio.gather(*(protocol.done for _, protocol in made)), seconds + 60)
    result.seconds = time.perf_counter() - started
    return result


def http(method: str, path: str, key: str | None, body: bytes = b"") -> bytes:
    """One request as bytes."""
    head = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if key:
        head.append(f"X-API-Key: {key}")
    if body:
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body
