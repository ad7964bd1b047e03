"""A merchant with a wallet and one order."""

from __future__ import annotations

import pytest

from services.orders.tests.conftest import Suite  # type: ignore[import-not-found]
from services.orders.tests.desk import Desk  # type: ignore[import-not-found]


@pytest.fixture
async def desk(suite: Suite) -> Desk:
    await suite.merchant()
    await suite.create()
    return Desk(suite)
