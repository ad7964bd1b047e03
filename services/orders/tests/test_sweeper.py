"""What the sweeper does where one of those that it delivers to hangs, or does not know what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from local.process import until
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.conftest import WALLET, Suite  # type: ignore[import-not-found]
from services.orders.tests.desk import CHAINS, Desk, report, tx  # type: ignore[import-not-found]
from services.orders.tests.played import PlayedLedger, PlayedVerifier  # type: ignore[import-not-found]

DUE = "UPDATE outbox SET next_attempt_at = now()"
OPEN = "SELECT count(*) FROM outbox WHERE subject = 'ospay.orders.v1.address_watched' AND dead_reason IS NULL"
DEAD = "SELECT count(*) FROM outbox WHERE dead_reason IS NOT NULL"
# Below the 10 s that a call to a ledger that hangs takes.
SOON = 6.0


@pytest.fixture
async def ledger() -> AsyncIterator[PlayedLedger]:
    played = PlayedLedger()
    await played.server.start()
    yield played
    played.answers.set()
    await played.server.stop()


@pytest.fixture
def settings(verifier: PlayedVerifier, ledger: PlayedLedger) -> dict[str, object]:
    peers = {"verifier_target": verifier, "ledger_target": ledger}
    targets = {name: f"127.0.0.1:{peer.server.port}" for name, peer in peers.items()}
    return {**targets, "chains_file": CHAINS}


async def test_a_ledger_that_hangs_holds_up_no_claim(
    suite: Suite, verifier: PlayedVerifier, ledger: PlayedLedger
) -> None:
    """While a call to it is under way, a claim that is due is verified."""
    desk = Desk(suite)
    await suite.merchant()
    await suite.create("ord_1")
    await suite.create("ord_2")
    ledger.answers.clear()
    await desk.pay("ord_1", 1)
    await desk.owner(DUE)
    await asyncio.wait_for(ledger.asked.wait(), SOON)
    final = verifier_pb2.Final(transfers=[report(WALLET, 2).transfer])
    verifier.verdicts = {tx(2): verifier_pb2.Verdict(final=final)}
    await desk.claim("ord_2", 2)
    await desk.owner(DUE)

    async def paid() -> bool:
        return await desk.state("ord_2") == "PAID"

    await until(paid, "the other order to be paid", SOON)


async def test_a_chain_that_the_verifier_does_not_know_yet_is_no_refusal(
    suite: Suite, verifier: PlayedVerifier
) -> None:
    """Watches on a chain that only orders is configured for hold up no others, and wait for the verifier's."""
    desk = Desk(suite)
    verifier.unknown = {"ETH"}
    await suite.merchant()

    async def only_unknown() -> bool:
        await desk.owner(DUE)
        return await desk.value(OPEN) == 1

    await until(only_unknown, "the wallet to be watched on the other chains")
    assert await desk.value(DEAD) == 0
    verifier.unknown = set()

    async def all_watched() -> bool:
        await desk.owner(DUE)
        return not await desk.value(OPEN)

    await until(all_watched, "the wallet to be watched on this one as well")
    assert {watch.address for watch in verifier.watches if watch.chain == "ETH"} == {WALLET}
