"""HTTP connections with the bounds that uvicorn has none of: slow or endless heads and bodies, too many at once."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httptools
import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway import problem

log = structlog.get_logger()

MAX_CONNECTIONS = 8192
MAX_HEAD_BYTES = 32_768
# Of a body that comes in chunks, what is none of it: sizes, extensions, trailers.
MAX_FRAMING_BYTES = 32_768
# What is taken of a body past its limit before the connection is cut, so that the 413 can be read first.
MAX_DISCARDED_BYTES = 1_048_576
HEAD_SECONDS = 10.0
BODY_SECONDS = 10.0
ANSWER_SECONDS = 30.0
KEEP_ALIVE_SECONDS = 30.0
# Keeps nothing.
TRAILERS: Any = deque(maxlen=0)


class Server(uvicorn.Server):
    """A server inside somebody else's event loop, which keeps its own signal handlers."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield

    async def cut_overdue(self) -> None:
        """Ends the connections that have used up their time. One look at all is cheaper than a timer for each."""
        now = time.monotonic()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection) and connection.overdue(now):
                connection.cut()


class OneWrite:
    """A transport that writes once what it is given in one turn of the event loop.

    uvicorn gives it the head and the body of an answer, and uvloop makes a system call and a packet of each. One in
    place of two: 0.86 of the gateway's CPU for a create.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Takes a piece."""
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def close(self) -> None:
        """Closes after the pieces."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces and not self._transport.is_closing():
            self._transport.write(b"".join(pieces))


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, bounded."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._body_bytes = 0
        # What was read after the read that the head ended in: the body and its framing.
        self._body_read = 0
        # Since when the head and the body are awaited; None where nothing is.
        self._head_since: float | None = None
        self._body_since: float | None = None
        self._request_since = 0.0
        self._idle_since = 0.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(OneWrite(transport))  # type: ignore[arg-type]  # as far as uvicorn uses it
        self._head_since = time.monotonic()
        if len(self.connections) > MAX_CONNECTIONS:
            self.cut()

    def data_received(self, data: bytes) -> None:
        if self._head_since is None:
            self._head_bytes = 0
            if self._body_since is None:
                self._head_since = time.monotonic()
            else:
                self._body_read = max(self._body_read, self._body_bytes) + len(data)
        self._head_bytes += len(data)
        self._parse(data)
        if self._head_since is not None:
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse_head()
        elif self._body_since is not None and self._body_read - self._body_bytes > MAX_FRAMING_BYTES:
            self.cut()

    def _parse(self, data: bytes | memoryview) -> None:
        try:
            while True:
                try:
                    return self.parser.feed_data(data)
                except httptools.HttpParserUpgrade as upgrade:
                    # A view: many of them in one read are not copied again and again.
                    data = memoryview(data)[upgrade.args[0] :]
                    self._ignore_upgrade()
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):  # the latter again: CONNECT
            msg = "Invalid HTTP request received."
            self.logger.warning(msg)
            self.send_400_response(msg)

    def _ignore_upgrade(self) -> None:
        """Begins the request anew without its Upgrade, which a server may ignore (RFC 9110, 7.8).

        The parser takes what follows such a head for another protocol, and then for the next request: a body would
        be answered as one.
        """
        fields = [b"%b: %b\r\n" % field for field in self.scope["headers"] if field[0] != b"upgrade"]
        version = self.parser.get_http_version().encode()
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (self.parser.get_method(), self.url, version, b"".join(fields))
        # A new one: after `Connection: close` the old one takes nothing more.
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.parser.feed_data(head)

    def _should_upgrade(self) -> bool:
        """Keeps uvicorn from answering before the request has begun anew."""
        return True

    def on_headers_complete(self) -> None:
        # What was read may hold a body too, or other requests: the head itself is measured only where that is large.
        if self._head_bytes > MAX_HEAD_BYTES:
            fields = sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
            if len(self.url) + fields > MAX_HEAD_BYTES:
                self._refuse_head()
                raise ValueError("the head is too large")  # ends the parsing; nothing more is said
        self._head_since = None
        self._body_bytes = 0
        self._body_read = 0
        self._request_since = time.monotonic()
        super().on_headers_complete()
        self._body_since = self._request_since
        # Trailers are no headers (RFC 9110, 6.5.1): whoever filters headers on the way here may have let them through.
        self.headers = TRAILERS

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > MAX_DISCARDED_BYTES and self.cycle.response_complete:
            self.cut()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._body_since = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        # As uvicorn does it, less its timer for each answer: who is idle for too long is seen by the look at all.
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since = time.monotonic()

    def overdue(self, now: float) -> bool:
        """Whether the client has been too slow to send, or to take its answer, or idle for too long."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.transport.is_closing():
            if now - self._request_since > ANSWER_SECONDS:
                return True
        elif self._head_since is not None:
            return now - self._head_since > HEAD_SECONDS
        elif self._body_since is None:
            return now - self._idle_since > KEEP_ALIVE_SECONDS
        return self._body_since is not None and now - self._body_since > BODY_SECONDS

    def cut(self) -> None:
        """Ends the connection without a word."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """For what is not HTTP."""
        self._refuse(400, "malformed_http", msg)

    def _refuse_head(self) -> None:
        self._refuse(431, "header_fields_too_large", "the request's head is too large")

    def _refuse(self, status: int, code: str, detail: str) -> None:
        if self.transport.is_closing():
            return
        if self._body_since is not None and self.cycle.response_started:
            self.transport.close()  # the request whose body it is has its answer
            return
        request_id = secrets.token_hex(16)
        body = problem.body(status, code, detail, instance="/", request_id=request_id)
        head = [
            STATUS_LINE[status],
            b"content-type: " + problem.CONTENT_TYPE + b"\r\n",
            f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n".encode(),
        ]
        self.transport.write(b"".join(head) + body)
        self.transport.close()
