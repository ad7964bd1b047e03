"""The whole suite as `make run` starts it, and what a test needs to act as merchant, customer and operator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from local.background import RunningSuite, run_suite
from tests.shop import Shop, open_shop


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """One suite for all tests that do it no harm: mines only on demand, settles late, two replicas of orders."""
    environment = {"ORDERS_SETTLEMENT_DELAY": "3600", "OSPAY_REPLICAS_ORDERS": "2"}
    with run_suite(tmp_path_factory.mktemp("suite"), environment) as running:
        yield running


@pytest.fixture
async def shop(suite: RunningSuite) -> AsyncIterator[Shop]:
    """A merchant of this test alone."""
    async with open_shop(suite) as opened:
        yield opened
