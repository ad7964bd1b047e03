"""Calls over streams that are kept: a unary call costs its two ends more than a message of an open stream does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
from grpc_status import rpc_status

from kit import deadlines
from kit.channel import Peer
from kit.errors import Fault, Kind
from kit.status import from_status

Request = TypeVar("Request")
Response = TypeVar("Response")

# Shorter than the age at which servers ask to leave a connection, so that replicas share the load and are found.
MAX_AGE_SECONDS = 20.0
# What a stream may live at most: a deadline for the case that this end forgets it.
STREAM_SECONDS = 60.0
PAUSE_SECONDS = 1.0


@dataclass(slots=True)
class _Open:
    call: Any
    since: float


class Stream(Generic[Request, Response]):
    """One method of a peer, called over as many streams as there are calls at the same time.

    `unary` is the plain rpc that answers the same, and may be called twice for a request. It takes over when a stream
    breaks and for a second after that. A request that belongs to a trace says so in its field `traceparent`.
    """

    def __init__(
        self,
        peer: Peer,
        streaming: Callable[..., Any],
        unary: Callable[..., Awaitable[Response]],
        *,
        timeout: float,
    ) -> None:
        self._peer = peer
        self._streaming = streaming
        self._unary = unary
        self._timeout = timeout
        self._idle: list[_Open] = []
        self._pause_until = 0.0

    async def call(self, request: Request) -> Response:
        """One call of at most `timeout` seconds. Errors: Fault, the callee's own or `unavailable`."""
        now = time.monotonic()
        timeout = deadlines.shave(self._timeout)
        if now >= self._pause_until:
            response = await self._over_stream(request, timeout, now)
            if response is not None:
                return response
            self._pause_until = now + PAUSE_SECONDS
            timeout -= time.monotonic() - now
        return await self._peer.call(self._unary, request, timeout=timeout)

    async def _over_stream(self, request: Request, timeout: float, now: float) -> Response | None:
        """The answer; None when the stream is broken. Errors: Fault, the callee's own or `unavailable`."""
        stream = self._take(now)
        answered = False
        try:
            async with asyncio.timeout(timeout):
                await stream.call.write(request)
                response = await stream.call.read()
            answered = response is not grpc.aio.EOF
        except TimeoutError:
            raise Fault(Kind.DEADLINE, "unavailable", "no answer in time") from None
        except asyncio.InvalidStateError:
            return None  # it ended while it was idle
        except grpc.aio.AioRpcError as error:
            status = rpc_status.from_call(error)
            if status is None:
                return None
            fault = from_status(status)
            if fault.kind is Kind.UNAVAILABLE:
                return None  # the plain call is tried again, as it may be on another replica
            raise fault from None
        finally:
            if answered:
                self._idle.append(stream)
            else:
                stream.call.cancel()
        return response if answered else None

    def _take(self, now: float) -> _Open:
        while self._idle:
            stream = self._idle.pop()
            if now - stream.since < MAX_AGE_SECONDS and not stream.call.done():
                return stream
            stream.call.cancel()
        metadata = [*self._peer.metadata(), (deadlines.BATCH_TIMEOUT, f"{self._timeout:g}")]
        return _Open(self._streaming(timeout=STREAM_SECONDS, metadata=metadata), now)
