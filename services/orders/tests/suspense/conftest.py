"""A merchant with a wallet and one with addresses for each order."""

from __future__ import annotations

import pytest

from services.orders.tests.conftest import Suite  # type: ignore[import-not-found]
from services.orders.tests.desk import CHAINS, xpub_merchant  # type: ignore[import-not-found]
from services.orders.tests.played import PlayedVerifier  # type: ignore[import-not-found]
from services.orders.tests.suspense.operator import Operator  # type: ignore[import-not-found]


@pytest.fixture
def settings(verifier: PlayedVerifier) -> dict[str, object]:
    return {"verifier_target": f"127.0.0.1:{verifier.server.port}", "chains_file": CHAINS}


@pytest.fixture
async def desk(suite: Suite) -> Operator:
    """A merchant with a wallet (mrc_1), one with addresses for each order (mrc_2)."""
    await suite.merchant()
    await xpub_merchant(suite, "mrc_2")
    return Operator(suite)
