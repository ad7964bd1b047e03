"""A small HTTP load generator: keep-alive connections, one request at a time on each, nothing parsed but the status."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from urllib.parse import urlsplit

END_SECONDS = 60.0  # for what is under way when the time is over
# What is due within one tick goes together. To sleep until each request is due takes a whole core from what is
# measured: so short a timer comes at once, and the loop only turns.
TICK_SECONDS = 0.001


@dataclass
class Result:
    """What a load did: latencies in seconds by status, seconds from first request to last answer."""

    latencies: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    seconds: float = 0.0

    @property
    def statuses(self) -> Counter[int]:
        """Answers by status."""
        return Counter({status: len(found) for status, found in self.latencies.items()})

    def percentile(self, share: float, status: int | None = None) -> float:
        """Latency in milliseconds of all answers, or of those with a status."""
        ordered = sorted(chain(*self.latencies.values()) if status is None else self.latencies[status])
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


class _Connection(asyncio.Protocol):
    """Tells the status of each answer, and when its request was due."""

    def __init__(
        self, answered: Callable[[_Connection, int, float], None], lost: Callable[[Exception | None], None]
    ) -> None:
        self._answered = answered
        self._lost = lost
        self._buffer = b""
        self._due = 0.0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        start = self._buffer.lower().find(b"content-length:", 0, head)
        length = int(self._buffer[start + 15 : self._buffer.find(b"\r\n", start)])
        if len(self._buffer) < head + 4 + length:
            return
        status = int(self._buffer[9:12])
        self._buffer = self._buffer[head + 4 + length :]
        self._answered(self, status, self._due)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(exc)

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self.transport.write(request)


Item = tuple[bytes, float]


class Client:
    """Connections to one server. One load at a time."""

    def __init__(self) -> None:
        self._connections: list[_Connection] = []
        self._idle: deque[_Connection] = deque()
        self._closing = False
        self._begin(lambda: None, is_last=False)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, connections: int) -> AsyncIterator[Client]:
        """Connects; closes at exit."""
        client, parts, loop = cls(), urlsplit(url), asyncio.get_running_loop()
        assert parts.hostname, url
        assert parts.port, url
        for _ in range(connections):
            _, made = await loop.create_connection(
                lambda: _Connection(client._answered, client._lost), parts.hostname, parts.port
            )
            client._connections.append(made)
        client._idle.extend(client._connections)
        try:
            yield client
        finally:
            client._closing = True
            for connection in client._connections:
                connection.transport.close()

    async def answered(self, requests: Iterator[bytes], seconds: float) -> Result:
        """Sends the next request on each connection as soon as the last is answered, until they or the time run out."""
        started = time.perf_counter()

        def source() -> Item | None:
            now = time.perf_counter()
            request = next(requests, None) if now < started + seconds else None
            return None if request is None else (request, now)

        with _undisturbed():
            result = self._begin(source, is_last=True)
            ready = list(self._idle)
            self._idle.clear()
            for connection in ready:
                self._feed(connection)
            await asyncio.wait_for(self._done, seconds + END_SECONDS)
        result.seconds = time.perf_counter() - started
        return result

    async def paced(self, requests: Iterator[bytes], rate: float, seconds: float) -> Result:
        """Sends `rate` requests per second, whatever the answers; latencies run from when each was due.

        A request that finds no free connection waits for one, and its latency runs.
        """
        backlog: deque[Item] = deque()
        started = time.perf_counter()
        with _undisturbed():
            result = self._begin(lambda: backlog.popleft() if backlog else None, is_last=False)
            for number in range(int(rate * seconds)):
                due = started + number / rate
                while time.perf_counter() < due:  # noqa: ASYNC110  a clock is what it waits for
                    await asyncio.sleep(TICK_SECONDS)
                backlog.append((next(requests), due))
                if self._idle:
                    self._feed(self._idle.popleft())
            self._is_last = True
            self._end()
            await asyncio.wait_for(self._done, END_SECONDS)
        result.seconds = time.perf_counter() - started
        return result

    def _begin(self, source: Callable[[], Item | None], *, is_last: bool) -> Result:
        """`source` gives what is to be sent now; with `is_last`, None means that there will be no more."""
        self._source = source
        self._is_last = is_last
        self._result = Result()
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        return self._result

    def _answered(self, connection: _Connection, status: int, due: float) -> None:
        self._result.latencies[status].append(time.perf_counter() - due)
        self._feed(connection)

    def _feed(self, connection: _Connection) -> None:
        item = self._source()
        if item is not None:
            connection.send(*item)
            return
        self._idle.append(connection)
        self._end()

    def _end(self) -> None:
        if self._is_last and len(self._idle) == len(self._connections) and not self._done.done():
            self._done.set_result(None)

    def _lost(self, error: Exception | None) -> None:
        if not self._closing and not self._done.done():
            self._done.set_exception(error or ConnectionError("the server closed the connection"))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A collection of garbage here would look like a slow answer there."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def load(url: str, requests: Iterable[bytes], *, connections: int, seconds: float) -> Result:
    """Sends requests until they or the time run out."""
    async with Client.open(url, connections) as client:
        return await client.answered(iter(requests), seconds)


async def send_all(url: str, requests: list[bytes], *, connections: int, good: int) -> Result:
    """Sends each request once. Errors: AssertionError unless all are answered with the status `good`."""
    result = await load(url, requests, connections=min(connections, len(requests)), seconds=END_SECONDS)
    assert result.statuses == Counter({good: len(requests)}), result.statuses
    return result


def http(method: str, path: str, key: str | None, body: bytes = b"") -> bytes:
    """One request as bytes."""
    head = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if key:
        head.append(f"X-API-Key: {key}")
    if body:
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body
