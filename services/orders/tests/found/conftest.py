"""A merchant whose orders have addresses of their own."""

from __future__ import annotations

import pytest

from services.orders.tests.conftest import Suite  # type: ignore[import-not-found]
from services.orders.tests.desk import CHAINS, Desk, xpub_merchant  # type: ignore[import-not-found]
from services.orders.tests.played import PlayedVerifier  # type: ignore[import-not-found]


@pytest.fixture
def settings(verifier: PlayedVerifier) -> dict[str, object]:
    return {"verifier_target": f"127.0.0.1:{verifier.server.port}", "chains_file": CHAINS}


@pytest.fixture
async def desk(suite: Suite) -> Desk:
    await xpub_merchant(suite)
    return Desk(suite)
