"""What /dbhealth is made of, where no service answers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from pydantic import SecretStr

from gateway.readiness import COMPONENTS, Readiness
from gateway.schemas.answers import ChainStatus
from kit.channel import Peer
from kit.errors import Fault, Kind
from local.ports import free_port


@pytest_asyncio.fixture
async def nobody() -> AsyncIterator[dict[str, Peer]]:
    """Services at addresses where nobody listens."""
    peers = {name: Peer(f"127.0.0.1:{free_port()}", token=SecretStr("t")) for name in COMPONENTS}
    yield peers
    for peer in peers.values():
        await peer.close()


def chain(name: str, status: str) -> ChainStatus:
    """A chain that is served so."""
    return ChainStatus(name, 1, status, 0, 0)


async def test_chains_are_parts(nobody) -> None:
    """Each by its name, and none of them says more than up, degraded or down."""

    async def list_chains() -> list[ChainStatus]:
        return [chain("BSC", "ok"), chain("BASE", "degraded"), chain("POLYGON", "unavailable")]

    parts = await Readiness(nobody, list_chains).look()
    assert {"chain.BSC": "up", "chain.BASE": "degraded", "chain.POLYGON": "down"} == {
        name: state for name, state in parts.items() if name.startswith("chain.")
    }
    assert {"gateway"} == {name for name, state in parts.items() if state == "up"} - {"chain.BSC"}


async def test_without_the_verifier_nothing_is_said_of_chains(nobody) -> None:
    """The verifier itself is what is down."""

    async def list_chains() -> list[ChainStatus]:
        raise Fault(Kind.UNAVAILABLE, "unavailable", "")

    parts = await Readiness(nobody, list_chains).look()
    assert parts["verifier"] == "down"
    assert [] == [name for name in parts if name.startswith("chain.")]
