"""One typed error for every layer and across RPC.

`Fault` is raised where the fact is known, travels over gRPC as a rich status (google.rpc.ErrorInfo and BadRequest)
and is the same `Fault` again in the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What went wrong, by the names of gRPC's status codes."""

    INVALID = "INVALID_ARGUMENT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    EXISTS = "ALREADY_EXISTS"
    CONFLICT = "FAILED_PRECONDITION"
    EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True)
class Violation:
    """One field that is wrong: its path and a sentence for people."""

    field: str
    message: str


class Fault(Exception):
    """An error with a name.

    `reason` is a stable slug for programs, `detail` a sentence for people; neither holds a secret.
    """

    def __init__(
        self,
        kind: Kind,
        reason: str,
        detail: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.kind = kind
        self.reason = reason
        self.detail = detail
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)


def invalid(field: str, message: str) -> Fault:
    """The fault for one bad field."""
    return Fault(Kind.INVALID, "invalid_request", f"{field}: {message}", violations=[Violation(field, message)])
