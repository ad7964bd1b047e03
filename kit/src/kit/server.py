"""One builder for every gRPC server of the suite."""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import protovalidate
import structlog
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from opentelemetry.trace import SpanKind, Status, StatusCode
from prometheus_client import Counter, Histogram
from pydantic import SecretStr

from kit import database, deadlines, telemetry
from kit.errors import Fault, Kind, Violation, invalid
from kit.process import Process
from kit.settings import Tls
from kit.status import to_status

log = structlog.get_logger()

MAX_SECONDS = 30.0
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_CONCURRENT_CALLS = 1000
STOP_SECONDS = 10.0
PROBE_SECONDS = 2.0
FIRST_PROBE_SECONDS = 0.1
PROBE_TIMEOUT_SECONDS = 4.0
NUMBER = re.compile(r"\d{1,6}(\.\d{1,6})?")
HEALTH_PREFIX = "/grpc.health.v1.Health/"

OPTIONS = [
    # A second server on a taken port must fail, not share it in silence.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # round_robin clients look a name up again only when a connection ends: so replicas are found in half a minute.
    ("grpc.max_connection_age_ms", 30_000),
    ("grpc.max_connection_age_grace_ms", 30_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
]

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic in the stubs only

CALLS = Counter("grpc_server_handled_total", "Calls answered", ["method", "code"])
SECONDS = Histogram("grpc_server_handling_seconds", "Time to answer", ["method"])


@dataclass(frozen=True)
class Service:
    """A generated service: its full name, the generated `add_…_to_server` and what implements it."""

    name: str
    add: Callable[[Any, grpc.aio.Server], None]
    servicer: object


class Server:
    """A gRPC server with authentication, validation, deadlines, rich errors, traces, health and reflection.

    Health is open to all, everything else wants `authorization: Bearer <token>` of a known caller. The health service
    "" is SERVING while the process serves; every probe given to `watch` is a health service of its own.
    """

    def __init__(
        self, listen: str, *, callers: Mapping[str, SecretStr], services: Sequence[Service], tls: Tls | None
    ) -> None:
        self._streams = _Streams()
        self._server = grpc.aio.server(
            interceptors=[_Gate(callers, self._streams)], options=OPTIONS, maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for service in services:
            service.add(service.servicer, self._server)
        names = [service.name for service in services]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        self.port = _bind(self._server, listen, tls)

    async def start(self) -> None:
        """Begins to serve."""
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Refuses new calls, finishes those that have begun."""
        await self._health.enter_graceful_shutdown()
        self._streams.stop()
        await self._server.stop(STOP_SECONDS)

    def watch(self, process: Process, component: str, probe: Callable[[], Awaitable[object]]) -> None:
        """Shows the health of `component` by asking it every 2 seconds, and more often until it is up at first."""

        async def watch() -> None:
            was_up = False
            while not process.stopping:
                is_up = await _answers(component, probe, quiet=not was_up)
                state = health_pb2.HealthCheckResponse.SERVING if is_up else health_pb2.HealthCheckResponse.NOT_SERVING
                await self._health.set(component, state)
                was_up = was_up or is_up
                await process.sleep(PROBE_SECONDS if was_up else FIRST_PROBE_SECONDS)

        process.start(f"watch {component}", watch())


async def _answers(component: str, probe: Callable[[], Awaitable[object]], *, quiet: bool) -> bool:
    try:
        await asyncio.wait_for(probe(), PROBE_TIMEOUT_SECONDS)
    except Exception as error:
        if not quiet:
            log.warning("component_down", component=component, error=repr(error))
        return False
    return True


def _bind(server: grpc.aio.Server, listen: str, tls: Tls | None) -> int:
    if tls is None:
        return server.add_insecure_port(listen)
    pair = (tls.key.read_bytes(), tls.cert.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], root_certificates=tls.ca.read_bytes(), require_client_auth=True)
    return server.add_secure_port(listen, credentials)


class _Gate(grpc.aio.ServerInterceptor):
    """What happens to every call before and after its handler."""

    def __init__(self, callers: Mapping[str, SecretStr], streams: _Streams) -> None:
        self._streams = streams
        self._callers = {name: token.get_secret_value().encode() for name, token in callers.items()}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None or method.startswith(HEALTH_PREFIX):
            return handler
        metadata = dict(handler_call_details.invocation_metadata)
        caller = self._caller(metadata.get("authorization", ""))
        if caller is None:
            return grpc.unary_unary_rpc_method_handler(_refuse)
        if handler.unary_unary is None:
            return self._streams.wrapped(method, caller, handler)
        call, parent = _Call(method, caller, handler.unary_unary), str(metadata.get("traceparent", ""))

        async def serve(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Message:
            return await call.answer(request, context, parent, context.time_remaining() or MAX_SECONDS)

        return grpc.unary_unary_rpc_method_handler(
            serve,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _caller(self, authorization: str | bytes) -> str | None:
        given = str(authorization).removeprefix("Bearer ").encode()
        matches = [name for name, token in self._callers.items() if hmac.compare_digest(token, given)]
        return matches[0] if matches else None


async def _refuse(_request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    fault = Fault(Kind.UNAUTHENTICATED, "invalid_token", "authorization: Bearer <token> of a known caller is needed")
    await context.abort_with_status(rpc_status.to_status(to_status(fault)))


def streamed(unary: Callable[..., Awaitable[Message]]) -> Any:
    """A stream's method that answers each message as `unary` would: `StreamThings = streamed(BatchThings)`.

    A message with a field `traceparent` brings its trace there.
    """

    async def stream(_servicer: object, _requests: object, _context: object) -> None:
        raise AssertionError("the server answers, see _Streams")

    stream.unary = unary  # type: ignore[attr-defined]  # read by _Streams
    return stream


class _Streams:
    """The open streams of a server. Each is read, answered and read again, and ends between two batches."""

    def __init__(self) -> None:
        self._stopping = False
        self._idle: set[asyncio.Future[None]] = set()

    def stop(self) -> None:
        """Ends the streams that wait for a batch now, the others after their answer."""
        self._stopping = True
        for waiting in self._idle:
            _wake(waiting)

    def wrapped(self, method: str, caller: str, handler: Handler) -> Handler:
        """The handler of a stream made by `streamed`; reflection, the only other one, as it is."""
        unary = getattr(handler.stream_stream, "unary", None)
        if unary is None:
            return handler
        servicer = handler.stream_stream.__self__  # type: ignore[union-attr]  # a method of it
        call = _Call(method, caller, partial(unary, servicer))

        async def serve(_requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            seconds = await _batch_timeout(context)
            while (request := await self._next(context)) is not None:
                await context.write(await call.answer(request, context, getattr(request, "traceparent", ""), seconds))

        return grpc.stream_stream_rpc_method_handler(
            serve,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    async def _next(self, context: grpc.aio.ServicerContext[Any, Any]) -> Message | None:
        """The next batch; None when there is none, or the server stops."""
        if self._stopping:
            return None
        waiting = asyncio.get_running_loop().create_future()
        reading = asyncio.ensure_future(context.read())
        reading.add_done_callback(lambda _: _wake(waiting))
        self._idle.add(waiting)
        try:
            await waiting
        finally:
            self._idle.discard(waiting)
            if not reading.done():
                reading.cancel()
        if not reading.done():
            return None
        request = reading.result()
        return None if request is grpc.aio.EOF else request


async def _batch_timeout(context: grpc.aio.ServicerContext[Any, Any]) -> float:
    """Seconds for each batch of a stream, as its caller wants it. Ends the call when that is no number."""
    given = str(dict(context.invocation_metadata() or ()).get(deadlines.BATCH_TIMEOUT, MAX_SECONDS))
    if not NUMBER.fullmatch(given):
        fault = invalid(deadlines.BATCH_TIMEOUT, "must be seconds, like 2.5")
        await context.abort_with_status(rpc_status.to_status(to_status(fault)))
    return float(given)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


@dataclass(frozen=True)
class _Call:
    """A handler with everything around it."""

    method: str
    caller: str
    handler: Callable[..., Awaitable[Message]]

    async def answer(
        self, request: Message, context: grpc.aio.ServicerContext[Any, Any], parent: str, seconds: float
    ) -> Message:
        """The answer within so many seconds; a fault ends the call. `parent` is a W3C traceparent, empty for none."""
        deadlines.start(min(seconds, MAX_SECONDS))
        with (
            SECONDS.labels(self.method).time(),
            telemetry.span(self.method.lstrip("/"), parent=parent, kind=SpanKind.SERVER) as current,
        ):
            current.set_attribute("ospay.caller", self.caller)
            # A caller that goes away must not cut a commit in two: what has begun is finished.
            outcome = await asyncio.shield(asyncio.ensure_future(_outcome(self.method, request, context, self.handler)))
            code = outcome.kind.value if isinstance(outcome, Fault) else "OK"
            CALLS.labels(self.method, code).inc()
            if isinstance(outcome, Fault):
                current.set_status(Status(StatusCode.ERROR, outcome.reason))
                await context.abort_with_status(rpc_status.to_status(to_status(outcome)))
            assert not isinstance(outcome, Fault), "abort_with_status raises"
            return outcome


async def _outcome(
    method: str, request: Message, context: object, handler: Callable[..., Awaitable[Message]]
) -> Message | Fault:
    try:
        check(request)
        async with asyncio.timeout(MAX_SECONDS):
            return await handler(request, context)
    except Fault as fault:
        return fault
    except database.UNAVAILABLE as error:
        log.warning("database_unavailable", method=method, error=repr(error))
        return Fault(Kind.UNAVAILABLE, "unavailable", "the database does not answer; try again")
    except Exception as error:
        incident = secrets.token_hex(8)
        log.error("unexpected", method=method, incident=incident, exc_info=error)
        return Fault(Kind.INTERNAL, "internal", f"unexpected error, incident {incident}")


def check(message: Message) -> None:
    """Raises the fault that names every field which breaks the rules of its contract."""
    found = protovalidate.collect_violations(message)
    if found:
        violations = [Violation(_path(item.proto.field), item.proto.message) for item in found]
        detail = "; ".join(f"{item.field}: {item.message}" for item in violations[:5])
        raise Fault(Kind.INVALID, "invalid_request", detail, violations=violations)


def _path(path: Any) -> str:
    if path is None:
        return ""
    parts = []
    for element in path.elements:
        subscript = element.subscript
        index = f"[{subscript.value}]" if subscript is not None else ""
        parts.append(f"{element.field_name}{index}")
    return ".".join(parts)
