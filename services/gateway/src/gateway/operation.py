"""What an operation of the API is: the one description that requests are checked by and documented from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from gateway.downstream import Services
from gateway.exchange import Answer, Call
from gateway.schemas.given import Nothing

# The third argument is the operation's own `given` struct.
Handler = Callable[[Services, Call, Any], Awaitable[Answer]]


class Access(Enum):
    """Who may call."""

    PUBLIC = "public"
    KEY = "key"
    OPTIONAL_KEY = "optional key"
    ADMIN = "admin"


@dataclass(frozen=True)
class Success:
    """An answer that is no error."""

    status: int
    description: str
    body: type[msgspec.Struct] | None
    example: dict[str, Any] | None = None
    replayed: bool = False
    media_type: str = "application/json"


@dataclass(frozen=True)
class Operation:
    """One method of one path. `given` is the body of a POST, the query and path parameters of a GET.

    `errors` are the codes beyond those that follow from `access` and `given`, by HTTP status.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    success: tuple[Success, ...]
    access: Access = Access.PUBLIC
    given: type[msgspec.Struct] = Nothing
    errors: tuple[tuple[int, str], ...] = ()
    example: dict[str, Any] | None = None
