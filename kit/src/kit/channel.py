"""How one service calls another: token, trace, shaved deadline, typed error."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
from opentelemetry.trace import SpanKind, Status, StatusCode
from pydantic import SecretStr

from kit import deadlines, telemetry
from kit.settings import Tls
from kit.status import from_rpc_error

Response = TypeVar("Response")

# Every rpc of the suite is idempotent, so gRPC itself may try again when a replica goes away.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
OPTIONS = [
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
]


class Peer:
    """A service that is called. Give `channel` to a generated stub and make calls through `call`."""

    def __init__(self, target: str, *, token: SecretStr, tls: Tls | None = None) -> None:
        self._authorization = f"Bearer {token.get_secret_value()}"
        self.channel = _open(target, tls)

    async def call(self, method: Callable[..., Awaitable[Response]], request: object, *, timeout: float) -> Response:
        """One call with a deadline of at most `timeout` seconds. Errors: Fault, the callee's own or `unavailable`."""
        name = getattr(method, "_method", b"rpc")
        title = name.decode().lstrip("/") if isinstance(name, bytes) else str(name).lstrip("/")
        with telemetry.span(title, kind=SpanKind.CLIENT) as current:
            metadata = self.metadata()
            if parent := telemetry.traceparent(current):
                metadata.append(("traceparent", parent))
            try:
                return await method(request, timeout=deadlines.shave(timeout), metadata=metadata)
            except grpc.aio.AioRpcError as error:
                fault = from_rpc_error(error)
                current.set_status(Status(StatusCode.ERROR, fault.reason))
                raise fault from None

    def metadata(self) -> list[tuple[str, str]]:
        """What every call shows."""
        return [("authorization", self._authorization)]

    async def close(self) -> None:
        """Ends the connection."""
        await self.channel.close()


def _open(target: str, tls: Tls | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(target, options=OPTIONS)
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.key.read_bytes(), tls.cert.read_bytes())
    return grpc.aio.secure_channel(target, credentials, options=OPTIONS)
