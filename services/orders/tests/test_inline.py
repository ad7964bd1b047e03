"""Claims that are verified inline, because the queue is full, by a verifier that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.conftest import Suite  # type: ignore[import-not-found]
from services.orders.tests.desk import CHAINS, Desk  # type: ignore[import-not-found]
from services.orders.tests.played import PlayedVerifier  # type: ignore[import-not-found]


class Hung(PlayedVerifier):  # type: ignore[misc]
    """One that takes calls and answers none, as in a process that is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def BatchVerify(self, request: verifier_pb2.BatchVerifyRequest, _: Any) -> verifier_pb2.BatchVerifyResponse:
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError("it hangs until the caller has gone")


@pytest.fixture
async def verifier() -> AsyncIterator[Hung]:
    played = Hung()
    await played.server.start()
    yield played
    await played.server.stop()


@pytest.fixture
def settings(verifier: Hung) -> dict[str, object]:
    return {"verifier_target": f"127.0.0.1:{verifier.server.port}", "chains_file": CHAINS, "claim_queue_max": 0}


async def test_claims_wait_for_it_once(suite: Suite, verifier: Hung) -> None:
    """What is claimed after it did not answer is queued without asking, and not refused."""
    desk = Desk(suite)
    await suite.merchant()
    for number in range(1, 5):
        await suite.create(f"ord_{number}")
    assert await desk.detect(1) == [("PENDING", True)]
    # From here on the sweeper asks for nothing.
    await desk.owner("UPDATE outbox SET next_attempt_at = 'infinity'")
    assert await desk.detect(2, 3, 4) == [("PENDING", True)] * 3
    assert verifier.asked == 1
