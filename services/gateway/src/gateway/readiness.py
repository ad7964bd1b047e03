"""Asks every service which of its parts are up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.channel import Peer
from kit.errors import Fault

CHECK_SECONDS = 2.0
COMPONENTS: Mapping[str, Sequence[str]] = {
    "orders": ("", "database", "nats"),
    "ledger": ("", "database", "nats"),
    "verifier": ("", "database", "nats", "rpc"),
}


class Readiness:
    """Looks at all parts at once."""

    def __init__(self, peers: Mapping[str, Peer]) -> None:
        """`peers` by service name, those of COMPONENTS."""
        self._checks = [
            (
                f"{service}.{component}".rstrip("."),
                peers[service],
                health_pb2_grpc.HealthStub(peers[service].channel),
                component,
            )
            for service, components in COMPONENTS.items()
            for component in components
        ]

    async def look(self) -> dict[str, str]:
        """`up` or `down` by the part's name; what does not answer in 2 s is down."""
        states = await asyncio.gather(*(_state(peer, stub, component) for _, peer, stub, component in self._checks))
        return {"gateway": "up"} | {name: state for (name, *_), state in zip(self._checks, states, strict=True)}


async def _state(peer: Peer, stub: health_pb2_grpc.HealthStub, component: str) -> str:
    request = health_pb2.HealthCheckRequest(service=component)
    try:
        answer = await peer.call(stub.Check, request, timeout=CHECK_SECONDS)
    except Fault:
        return "down"
    return "up" if answer.status == health_pb2.HealthCheckResponse.SERVING else "down"
