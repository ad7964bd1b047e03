"""Orders whose time ends while nobody looks at the chain."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from local.background import RunningSuite, run_suite
from tests.shop import FIVE, eventually, new_xpub, open_shop

TIME_TO_PAY = 5


@pytest.fixture
def halted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite whose verifier is halted for a while."""
    with run_suite(tmp_path_factory.mktemp("halted"), {"ORDERS_SETTLEMENT_DELAY": "3600"}) as running:
        yield running


async def test_what_was_paid_in_time_while_the_verifier_was_away_is_paid(halted: RunningSuite) -> None:
    """An order that was paid in its time is PAID when the verifier is back, long after its time; the other EXPIRED."""
    async with open_shop(halted, xpub=new_xpub()) as shop:
        paid = await shop.create(expires_in_seconds=TIME_TO_PAY)
        unpaid = await shop.create(expires_in_seconds=TIME_TO_PAY)
        made = time.monotonic()
        pids = halted.pids("verifier")
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            await shop.give(paid)

            async def long_over() -> bool | None:
                return True if time.monotonic() > made + TIME_TO_PAY + 5 else None

            await eventually(long_over, 30, "both orders to be past their time")
            assert [(await shop.order(order))["status"] for order in (paid, unpaid)] == ["PENDING"] * 2
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        await shop.chain.finalize()
        found = await shop.reaches(paid, "PAID", 60)
        assert (found["received_minor"], found["late_minor"]) == (FIVE, 0)
        await shop.reaches(unpaid, "EXPIRED", 60)
        await shop.booked(FIVE, suspense_minor=0)
