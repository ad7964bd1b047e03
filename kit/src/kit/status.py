"""`Fault` ↔ google.rpc.Status, the form in which errors cross a wire."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from kit.errors import Fault, Kind, Violation

DOMAIN = "ospay"


def to_status(fault: Fault) -> status_pb2.Status:
    """The rich status of a fault: ErrorInfo always, BadRequest where fields are named."""
    details = [_pack(error_details_pb2.ErrorInfo(reason=fault.reason, domain=DOMAIN, metadata=fault.metadata))]
    if fault.violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=item.field, description=item.message)
            for item in fault.violations
        ]
        details.append(_pack(error_details_pb2.BadRequest(field_violations=fields)))
    return status_pb2.Status(code=code_pb2.Code.Value(fault.kind.value), message=fault.detail, details=details)


def from_status(status: status_pb2.Status) -> Fault:
    """The fault that `to_status` was given; a status from elsewhere gets its code's name as the reason."""
    name = code_pb2.Code.Name(status.code)
    kind = _kind(name)
    reason, metadata, violations = name.lower(), {}, []
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Is(bad.DESCRIPTOR):
            detail.Unpack(bad)
            violations = [Violation(item.field, item.description) for item in bad.field_violations]
    return Fault(kind, reason, status.message, metadata=metadata, violations=violations)


def from_rpc_error(error: grpc.aio.AioRpcError) -> Fault:
    """The fault behind a failed call."""
    status = rpc_status.from_call(error)
    if status is not None:
        return from_status(status)
    code = error.code()
    kind = _kind(code.name)
    reason = "unavailable" if kind in (Kind.UNAVAILABLE, Kind.DEADLINE) else code.name.lower()
    return Fault(kind, reason, error.details() or code.name)


def _kind(name: str) -> Kind:
    return Kind(name) if name in Kind.__members__.values() else Kind.INTERNAL


def _pack(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
