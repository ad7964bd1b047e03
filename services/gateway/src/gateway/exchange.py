"""One request and its answer, as the handlers see them."""

from __future__ import annotations

import random
import re
from typing import NamedTuple

import msgspec
from starlette.types import Receive, Scope

from gateway.problem import HttpFault

MAX_BODY_BYTES = 65_536

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
_JSON_TYPE = re.compile(rb'application/json[ \t]*(;[ \t]*charset[ \t]*=[ \t]*"?utf-8"?[ \t]*)?', re.IGNORECASE)
_encode = msgspec.json.Encoder().encode

Headers = tuple[tuple[bytes, bytes], ...]


class Answer(NamedTuple):
    """What goes back."""

    status: int
    body: bytes
    headers: Headers = ()
    content_type: bytes = b"application/json"


REPLAYED: Headers = ((b"idempotent-replayed", b"true"),)


def json_answer(status: int, value: msgspec.Struct, headers: Headers = ()) -> Answer:
    """An answer with a JSON body."""
    return Answer(status, _encode(value), headers)


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


def new_request_id() -> str:
    """Names a request; no secret, so no system call for it."""
    return f"{random.getrandbits(128):032x}"


class Call:
    """A request. `merchant_id` is the merchant whose key came with it, empty where none did."""

    __slots__ = ("_receive", "headers", "merchant_id", "request_id", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self._receive = receive
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"")
        self.request_id = given.decode() if _REQUEST_ID.fullmatch(given) else new_request_id()
        self.merchant_id = ""

    @property
    def instance(self) -> str:
        """The path as it came, percent-encoded."""
        raw: bytes = self.scope["raw_path"]
        return raw.decode("ascii", "replace")

    @property
    def traceparent(self) -> str:
        """The W3C trace context that came with it; may be empty or nonsense."""
        return self.headers.get(b"traceparent", b"").decode("latin-1")

    def header(self, name: bytes) -> str | None:
        """A header's value; `name` in lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def body(self) -> bytes:
        """The whole JSON body. Errors: HttpFault 415, 413; ClientGone."""
        content_type = self.headers.get(b"content-type", b"")
        if content_type != b"application/json" and not _JSON_TYPE.fullmatch(content_type.strip()):
            raise HttpFault(415, "unsupported_media_type", "Content-Type must be application/json in UTF-8")
        if self.headers.get(b"content-encoding", b"identity") != b"identity":
            raise HttpFault(415, "unsupported_media_type", "Content-Encoding is not supported")
        # httptools lets no malformed or negative length through.
        if int(self.headers.get(b"content-length", b"0")) > MAX_BODY_BYTES:
            raise _too_large()
        return await self._read()

    async def _read(self) -> bytes:
        body: bytes = b""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            body += message.get("body", b"")
            if len(body) > MAX_BODY_BYTES:
                raise _too_large()
            if not message.get("more_body", False):
                return body


def _too_large() -> HttpFault:
    return HttpFault(413, "payload_too_large", f"the body must not be larger than {MAX_BODY_BYTES} bytes")
