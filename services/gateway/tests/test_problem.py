"""Errors of the services as a merchant sees them."""

from __future__ import annotations

import json

import pytest

from gateway import problem
from gateway.downstream import LIST_NAMES, ORDER_NAMES, translate
from kit.errors import Fault, Kind, Violation


@pytest.mark.parametrize(
    ("kind", "reason", "status"),
    [
        (Kind.INVALID, "invalid_request", 400),
        (Kind.UNAUTHENTICATED, "invalid_api_key", 401),
        (Kind.FORBIDDEN, "wrong_merchant", 403),
        (Kind.NOT_FOUND, "order_not_found", 404),
        (Kind.EXISTS, "merchant_exists", 409),
        (Kind.CONFLICT, "order_not_refundable", 409),
        (Kind.CONFLICT, "ambiguous_order_id", 409),
        (Kind.INVALID, "ambiguous_payer", 400),
        (Kind.CONFLICT, "idempotency_mismatch", 422),
        (Kind.CONFLICT, "refund_exceeds_received", 422),
        (Kind.EXHAUSTED, "too_many_claims", 429),
        (Kind.DEADLINE, "unavailable", 503),
        (Kind.INTERNAL, "internal", 500),
    ],
)
def test_status_of_a_fault(kind: Kind, reason: str, status: int) -> None:
    """Each kind has its status; a reason may have one of its own."""
    assert status == problem.status_of(Fault(kind, reason, ""))


def test_every_kind_has_a_status() -> None:
    """No kind of fault is left without."""
    assert all(400 <= problem.status_of(Fault(kind, "x", "")) < 600 for kind in Kind)


def test_members_of_a_problem() -> None:
    """Exactly those of the contract; `errors` with 400."""
    fault = Fault(Kind.INVALID, "invalid_request", "id: bad", violations=[Violation("id", "bad")])
    assert json.loads(problem.body_of(fault, instance="/orders", request_id="r1")) == {
        "type": "urn:ospay:problem:invalid_request",
        "title": "Invalid request",
        "status": 400,
        "detail": "id: bad",
        "instance": "/orders",
        "code": "invalid_request",
        "request_id": "r1",
        "errors": [{"field": "id", "message": "bad"}],
    }


def test_order_status_is_told() -> None:
    """A refused refund says where the order stands; `status` itself is the HTTP status."""
    fault = Fault(Kind.CONFLICT, "order_not_refundable", "", metadata={"status": "SETTLED"})
    told = json.loads(problem.body_of(fault, instance="/", request_id="r1"))
    assert (told["status"], told["order_status"]) == (409, "SETTLED")
    assert "errors" not in told


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after(status: int) -> None:
    """Who is told to come again is told when."""
    assert problem.headers_of(status) == ((b"retry-after", b"1"),)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(Kind.UNAUTHENTICATED, "invalid_token", "authorization is needed"),
        Fault(Kind.FORBIDDEN, "not_allowed", "caller gateway may not"),
        Fault(Kind.EXHAUSTED, "resource_exhausted", "Concurrent RPC limit exceeded!"),
        Fault(Kind.INTERNAL, "internal", "Received RST_STREAM with error code 2"),
        Fault(Kind.INTERNAL, "cancelled", "CANCELLED"),
        Fault(Kind.UNIMPLEMENTED, "unimplemented", "Method not found!"),
        Fault(Kind.UNAVAILABLE, "unavailable", "failed to connect to ipv4:192.0.2.7:50051"),
        Fault(Kind.DEADLINE, "unavailable", "Deadline Exceeded"),
    ],
)
def test_trouble_inside_the_house_stays_there(fault: Fault) -> None:
    """What no merchant can do anything about is a 503 that names no address, caller or token."""
    told = translate(fault, {})
    assert (problem.status_of(told), told.reason) == (503, "unavailable")
    assert fault.detail not in told.detail


@pytest.mark.parametrize(
    "fault",
    [
        Fault(Kind.UNAUTHENTICATED, "invalid_api_key", "no"),
        Fault(Kind.EXHAUSTED, "too_many_claims", "later"),
        Fault(Kind.UNAVAILABLE, "busy", "later"),
        Fault(Kind.CONFLICT, "idempotency_mismatch", "other body"),
    ],
)
def test_errors_meant_for_the_merchant_pass(fault: Fault) -> None:
    """The services' own words about a request are kept."""
    assert fault is translate(fault, ORDER_NAMES)


def test_fields_are_called_as_in_json() -> None:
    """The contract's names are turned into those that the merchant sent."""
    fault = Fault(
        Kind.INVALID, "invalid_request", "…", violations=[Violation("order_id", "a"), Violation("metadata_json", "b")]
    )
    told = translate(fault, ORDER_NAMES)
    assert (Violation("id", "a"), Violation("metadata", "b")) == told.violations
    assert told.detail == "id: a; metadata: b"
    assert translate(Fault(Kind.INVALID, "invalid_cursor", "no"), LIST_NAMES).violations[0].field == "cursor"
