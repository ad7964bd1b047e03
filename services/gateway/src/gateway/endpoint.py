"""Everything around a handler: who asks, what is asked, errors, request id, trace, metrics and the log line."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence
from typing import Any

import structlog
from opentelemetry.trace import Span, Status, StatusCode
from prometheus_client import Histogram
from starlette.types import Receive, Scope, Send

from gateway import problem
from gateway.access_log import AccessLog
from gateway.downstream import Services
from gateway.exchange import Answer, Call, ClientGone
from gateway.operation import Access, Operation
from gateway.problem import HttpFault
from gateway.strict import JsonReader, QueryReader
from kit import deadlines, telemetry
from kit.errors import Fault, Kind

log = structlog.get_logger()

REQUEST_SECONDS = 20.0
MAX_REQUESTS = 4096
# The key of a request whose body comes slower than that is looked at again: it may have been revoked meanwhile.
SLOW_BODY_SECONDS = 1.0
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

SECONDS = Histogram("http_server_request_seconds", "Time to answer", ["method", "route", "status"])


class Gate:
    """What all endpoints share: the services behind them, the log, and a bound on requests under way."""

    def __init__(self, services: Services, access_log: AccessLog) -> None:
        self.services = services
        self.access_log = access_log
        self.under_way = 0
        self._admin_digest = _digest(services.admin_key.get_secret_value())

    async def let_in(self, call: Call, access: Access) -> None:
        """Sets the call's merchant. Errors: UNAUTHENTICATED; UNAVAILABLE."""
        if access is Access.PUBLIC:
            return
        if access is Access.ADMIN:
            self._let_admin_in(call)
            return
        key = call.header(b"x-api-key")
        if key is not None:
            call.merchant_id = await self.services.keys.merchant(key)
        elif access is Access.KEY:
            raise Fault(Kind.UNAUTHENTICATED, "missing_api_key", "X-API-Key is needed")

    def _let_admin_in(self, call: Call) -> None:
        key = call.header(b"x-admin-key")
        if key is None:
            raise Fault(Kind.UNAUTHENTICATED, "missing_admin_key", "X-Admin-Key is needed")
        # Digests: their comparison takes the same time whatever the length of what was given.
        if not hmac.compare_digest(_digest(key), self._admin_digest):
            raise Fault(Kind.UNAUTHENTICATED, "invalid_admin_key", "X-Admin-Key is wrong")


class Endpoint:
    """The operations of one path, as an ASGI application. Without operations it is the path that is not there."""

    def __init__(self, gate: Gate, path: str, operations: Sequence[Operation]) -> None:
        self._gate = gate
        self._path = path or "unknown"
        self._bound = {operation.method: _Bound(operation) for operation in operations}
        if "GET" in self._bound:
            self._bound["HEAD"] = self._bound["GET"]
        self._allow = ((b"allow", ", ".join(sorted([*self._bound, "OPTIONS"])).encode()),)
        self._seconds: dict[tuple[str, int], Histogram] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        began = time.perf_counter()
        call = Call(scope, receive)
        method = scope["method"] if scope["method"] in KNOWN_METHODS else "other"
        structlog.contextvars.bind_contextvars(request_id=call.request_id)
        deadlines.start(REQUEST_SECONDS)
        self._gate.under_way += 1
        try:
            with telemetry.entry(f"{method} {self._path}", call.traceparent) as current:
                answer = await self._answer(call, method)
                if current.is_recording():
                    _describe(current, method, self._path, answer.status)
            await _send(answer, call.request_id, send)
        finally:
            self._gate.under_way -= 1
        seconds = time.perf_counter() - began
        self._observe(method, answer.status, seconds)
        self._gate.access_log.add(
            request_id=call.request_id,
            method=method,
            route=self._path,
            status=answer.status,
            seconds=seconds,
            merchant_id=call.merchant_id,
            span=current.get_span_context(),
        )

    async def _answer(self, call: Call, method: str) -> Answer:
        try:
            return await self._handle(call, method)
        except Fault as fault:
            return _from_fault(fault, call)
        except HttpFault as fault:
            return _from_http_fault(fault, call)
        except ClientGone:
            return Answer(499, b"")
        except Exception as error:
            log.error("unexpected", route=self._path, exc_info=error)
            return _from_fault(Fault(Kind.INTERNAL, "internal", ""), call)

    async def _handle(self, call: Call, method: str) -> Answer:
        if self._gate.under_way > MAX_REQUESTS:
            raise Fault(Kind.UNAVAILABLE, "overloaded", "too many requests are under way; try again")
        bound = self._bound.get(method)
        if bound is None:
            return self._without_operation(method)
        await self._gate.let_in(call, bound.access)
        let_in_at = time.monotonic()
        given = await bound.read(call)
        if time.monotonic() - let_in_at > SLOW_BODY_SECONDS:
            await self._gate.let_in(call, bound.access)
        return await bound.handler(self._gate.services, call, given)

    def _without_operation(self, method: str) -> Answer:
        if not self._bound:
            raise HttpFault(404, "path_not_found", "there is nothing at this path")
        if method == "OPTIONS":
            return Answer(204, b"", self._allow)
        raise HttpFault(405, "method_not_allowed", "this path does not know this method", self._allow)

    def _observe(self, method: str, status: int, seconds: float) -> None:
        histogram = self._seconds.get((method, status))
        if histogram is None:
            histogram = self._seconds[method, status] = SECONDS.labels(method, self._path, status)
        histogram.observe(seconds)


class _Bound:
    """An operation with the reader of what it is given."""

    def __init__(self, operation: Operation) -> None:
        self.access = operation.access
        self.handler = operation.handler
        self._query = QueryReader(operation.given) if operation.method == "GET" else None
        self._body = JsonReader(operation.given)

    async def read(self, call: Call) -> Any:
        if self._query is not None:
            return self._query.read(call.scope["query_string"], call.scope.get("path_params", {}))
        if call.scope["query_string"]:
            raise Fault(Kind.INVALID, "invalid_request", "this path takes no query parameters")
        return self._body.read(await call.body())


def _from_fault(fault: Fault, call: Call) -> Answer:
    if fault.kind is Kind.INTERNAL:
        log.error("internal", detail=fault.detail)
        fault = Fault(Kind.INTERNAL, "internal", f"unexpected error, incident {call.request_id}")
    status = problem.status_of(fault)
    body = problem.body_of(fault, instance=call.instance, request_id=call.request_id)
    return Answer(status, body, problem.headers_of(status), problem.CONTENT_TYPE)


def _from_http_fault(fault: HttpFault, call: Call) -> Answer:
    body = problem.body(fault.status, fault.code, fault.detail, instance=call.instance, request_id=call.request_id)
    return Answer(fault.status, body, fault.headers, problem.CONTENT_TYPE)


async def _send(answer: Answer, request_id: str, send: Send) -> None:
    headers = [(b"x-request-id", request_id.encode()), (b"cache-control", b"no-store"), *answer.headers]
    if answer.status != 204:
        headers.append((b"content-type", answer.content_type))
        headers.append((b"content-length", str(len(answer.body)).encode()))
        headers.append((b"x-content-type-options", b"nosniff"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _describe(span: Span, method: str, route: str, status: int) -> None:
    span.set_attribute("http.request.method", method)
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
