"""How the gateway asks the services, and what it makes of their errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import structlog
from pydantic import SecretStr

from gateway.coalescer import Coalescer
from gateway.keys import KeyCache
from gateway.remembered import Remembered
from gateway.schemas.answers import ChainStatus
from gateway.schemas.fields import PartState
from kit.channel import Peer
from kit.errors import Fault, Kind, Violation
from ospay.ledger.v1 import ledger_pb2_grpc
from ospay.orders.v1 import orders_pb2, orders_pb2_grpc

log = structlog.get_logger()

Response = TypeVar("Response")

RPC_SECONDS = 5.0
UNAVAILABLE = "a part of the system does not answer; try again"
# How the fields of requests are called in JSON, where that differs.
ORDER_NAMES = {"order_id": "id", "metadata_json": "metadata"}
LIST_NAMES = {"page_size": "limit", "page_token": "cursor", "state": "status"}
MERCHANT_NAMES = {"merchant_id": "id"}
_FIELD_BY_REASON = {"invalid_cursor": "cursor"}


@dataclass(frozen=True, slots=True)
class Creation:
    """An order to create and the trace that asked for it."""

    request: orders_pb2.CreateOrderRequest
    traceparent: str


@dataclass(frozen=True)
class Services:
    """What the handlers work with."""

    orders_peer: Peer
    orders: orders_pb2_grpc.OrderServiceAsyncStub
    merchants: orders_pb2_grpc.MerchantServiceAsyncStub
    ledger_peer: Peer
    ledger: ledger_pb2_grpc.LedgerServiceAsyncStub
    creates: Coalescer[Creation, orders_pb2.CreateOrderResponse]
    reads: Coalescer[orders_pb2.GetOrderRequest, orders_pb2.Order]
    claims: Coalescer[orders_pb2.DetectPaymentRequest, orders_pb2.DetectPaymentResponse]
    keys: KeyCache
    admin_key: SecretStr
    totals: Remembered[orders_pb2.GetTotalsResponse]
    chains: Remembered[list[ChainStatus]]
    readiness: Remembered[dict[str, PartState]]
    openapi: bytes


async def ask(
    peer: Peer,
    method: Callable[..., Awaitable[Response]],
    request: object,
    *,
    timeout: float = RPC_SECONDS,
    names: Mapping[str, str] | None = None,
) -> Response:
    """One call. `names` translates field names of the contract to those of JSON. Errors: Fault, fit for a merchant."""
    try:
        return await peer.call(method, request, timeout=timeout)
    except Fault as fault:
        raise translate(fault, names or {}) from None


def translate(fault: Fault, names: Mapping[str, str]) -> Fault:
    """The fault as a merchant may see it: in JSON's field names, without what is inside the house."""
    if fault.kind in (Kind.UNAVAILABLE, Kind.DEADLINE) and fault.reason == "unavailable":
        log.warning("service_unavailable", detail=fault.detail)
        return Fault(Kind.UNAVAILABLE, "unavailable", UNAVAILABLE)
    if _is_our_trouble(fault):
        log.error("refused_by_service", kind=fault.kind.value, reason=fault.reason, detail=fault.detail)
        return Fault(Kind.UNAVAILABLE, "unavailable", UNAVAILABLE)
    if fault.kind is Kind.INVALID:
        found = fault.violations or (Violation(_FIELD_BY_REASON.get(fault.reason, "body"), fault.detail),)
        violations = [Violation(names.get(item.field, item.field), item.message) for item in found]
        detail = "; ".join(f"{item.field}: {item.message}" for item in violations)
        return Fault(fault.kind, fault.reason, detail, violations=violations)
    return fault


def _is_our_trouble(fault: Fault) -> bool:
    """Errors of the call between us and the service, which no merchant can do anything about."""
    if fault.kind in (Kind.UNAUTHENTICATED, Kind.FORBIDDEN):
        return fault.reason != "invalid_api_key"
    if fault.kind is Kind.EXHAUSTED:
        return fault.reason == "resource_exhausted"  # gRPC's own: the server has too many calls
    if fault.kind is Kind.INTERNAL:
        return "incident" not in fault.detail  # gRPC's own: a connection that was reset, a call that was cancelled
    return fault.kind is Kind.UNIMPLEMENTED  # a service of another version, in the middle of an upgrade
