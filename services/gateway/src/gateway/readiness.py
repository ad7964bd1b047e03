"""Asks every service which of its parts are up, and the verifier how its chains are served."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.schemas.answers import ChainStatus
from gateway.schemas.fields import ChainHealth, PartState
from kit.channel import Peer
from kit.errors import Fault

CHECK_SECONDS = 2.0
COMPONENTS: Mapping[str, Sequence[str]] = {
    "orders": ("", "database", "nats"),
    "ledger": ("", "database", "nats"),
    "verifier": ("", "database", "nats", "rpc"),
}
_STATE_BY_HEALTH: Mapping[ChainHealth, PartState] = {"ok": "up", "degraded": "degraded", "unavailable": "down"}

ListChains = Callable[[], Awaitable[Sequence[ChainStatus]]]


class Readiness:
    """Looks at all parts at once."""

    def __init__(self, peers: Mapping[str, Peer], list_chains: ListChains) -> None:
        """`peers` by service name, those of COMPONENTS."""
        self._list_chains = list_chains
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

    async def look(self) -> dict[str, PartState]:
        """The state by the part's name; what does not answer in 2 s is down."""
        checks = (_state(peer, stub, component) for _, peer, stub, component in self._checks)
        states, chains = await asyncio.gather(asyncio.gather(*checks), self._chains())
        services = {name: state for (name, *_), state in zip(self._checks, states, strict=True)}
        return {"gateway": "up", **services, **chains}

    async def _chains(self) -> dict[str, PartState]:
        try:
            chains = await self._list_chains()
        except Fault:
            return {}  # the verifier itself is shown as down
        return {f"chain.{chain.chain}": _STATE_BY_HEALTH[chain.status] for chain in chains}


async def _state(peer: Peer, stub: health_pb2_grpc.HealthStub, component: str) -> PartState:
    request = health_pb2.HealthCheckRequest(service=component)
    try:
        answer = await peer.call(stub.Check, request, timeout=CHECK_SECONDS)
    except Fault:
        return "down"
    return "up" if answer.status == health_pb2.HealthCheckResponse.SERVING else "down"
