"""Errors as RFC 9457 problem details."""

from __future__ import annotations

from typing import get_args

import msgspec

from gateway.schemas.answers import FieldError, Problem
from gateway.schemas.fields import OrderStatus, PartState
from kit.errors import Fault, Kind

CONTENT_TYPE = b"application/problem+json"
RETRY_AFTER_SECONDS = 1

_STATUS_BY_KIND = {
    Kind.INVALID: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.EXISTS: 409,
    Kind.CONFLICT: 409,
    Kind.EXHAUSTED: 429,
    Kind.UNIMPLEMENTED: 503,
    Kind.UNAVAILABLE: 503,
    Kind.DEADLINE: 503,
    Kind.INTERNAL: 500,
}
# A well-formed request that this order can never satisfy, rather than a state that may change.
_STATUS_BY_REASON = {"idempotency_mismatch": 422, "refund_exceeds_received": 422}
_ORDER_STATUSES: dict[str, OrderStatus] = {name: name for name in get_args(OrderStatus)}
_encode = msgspec.json.Encoder().encode

Headers = tuple[tuple[bytes, bytes], ...]


class HttpFault(Exception):
    """An error that only HTTP knows: method, path, media type, size."""

    def __init__(self, status: int, code: str, detail: str, headers: Headers = ()) -> None:
        super().__init__(f"{code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers


def status_of(fault: Fault) -> int:
    """The HTTP status of a fault."""
    return _STATUS_BY_REASON.get(fault.reason) or _STATUS_BY_KIND[fault.kind]


def headers_of(status: int) -> Headers:
    """What a status obliges to say."""
    if status in (429, 503):
        return ((b"retry-after", str(RETRY_AFTER_SECONDS).encode()),)
    if status == 401:
        return ((b"www-authenticate", b'ApiKey realm="ospay"'),)
    return ()


def body(status: int, code: str, detail: str, *, instance: str, request_id: str) -> bytes:
    """A problem without extra members."""
    return _encode(_problem(status, code, detail, instance, request_id))


def body_of(fault: Fault, *, instance: str, request_id: str) -> bytes:
    """The problem behind a fault."""
    status = status_of(fault)
    problem = _problem(status, fault.reason, fault.detail, instance, request_id)
    if status == 400:
        problem.errors = [FieldError(item.field or "body", item.message) for item in fault.violations]
    order_status = _ORDER_STATUSES.get(fault.metadata.get("status", ""))
    if order_status is not None:
        problem.order_status = order_status
    return _encode(problem)


def not_ready(parts: dict[str, PartState], *, instance: str, request_id: str) -> bytes:
    """The problem of a system with a part that is down."""
    down = ", ".join(name for name, state in parts.items() if state == "down")
    problem = _problem(503, "not_ready", f"down: {down}", instance, request_id)
    return _encode(msgspec.structs.replace(problem, parts=parts))


def _problem(status: int, code: str, detail: str, instance: str, request_id: str) -> Problem:
    return Problem(
        type=f"urn:ospay:problem:{code}",
        title=code.replace("_", " ").capitalize(),
        status=status,
        detail=detail,
        instance=instance,
        code=code,
        request_id=request_id,
    )
