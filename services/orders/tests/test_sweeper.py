"""What the sweeper does where one of those that it delivers to hangs, is away, or does not know what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from chains import Registry
from kit.bus import Bus
from kit.channel import Peer
from kit.database import Database
from kit.process import Process
from local.process import until
from local.testing import MakeDatabase
from orders.domain import Debt
from orders.doorbell import Doorbell
from orders.messages import Reader, watch_debt
from orders.peers import Ledger, Verifier
from orders.store import outbox
from orders.sweeper import LIMIT, Sweeper
from orders.watching import Watching
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.conftest import WALLET, Suite  # type: ignore[import-not-found]
from services.orders.tests.desk import CHAINS, LATER, Desk, report, tx  # type: ignore[import-not-found]
from services.orders.tests.played import TOKEN, PlayedLedger, PlayedVerifier  # type: ignore[import-not-found]

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


async def test_a_claim_that_the_verifier_fails_at_holds_up_no_other(suite: Suite, verifier: PlayedVerifier) -> None:
    """The others of its batch are verified; it is no refusal, stays open, and is asked for again."""
    desk = Desk(suite)
    await suite.merchant()
    for number in (1, 2, 3):
        await suite.create(f"ord_{number}")
        await desk.claim(f"ord_{number}", number)
    final = {number: verifier_pb2.Final(transfers=[report(WALLET, number).transfer]) for number in (1, 2, 3)}
    verifier.verdicts = {tx(number): verifier_pb2.Verdict(final=final[number]) for number in (1, 3)}  # a KeyError at 2
    await desk.owner(DUE)

    async def are_paid(*numbers: int) -> bool:
        return {await desk.state(f"ord_{number}") for number in numbers} == {"PAID"}

    await until(lambda: are_paid(1, 3), "the others to be paid")
    assert (await desk.state("ord_2"), await desk.value(DEAD)) == ("PENDING", 0)
    verifier.verdicts[tx(2)] = verifier_pb2.Verdict(final=final[2])
    await desk.owner(DUE)
    await until(lambda: are_paid(2), "the claim to be asked for again")


class Once:
    """A process that begins nothing by itself."""

    def __init__(self) -> None:
        self.works: dict[str, Callable[[], Awaitable[object]]] = {}

    def every(self, _: float, name: str, work: Callable[[], Awaitable[object]]) -> None:
        self.works[name] = work


async def test_a_pass_ends_where_the_other_side_is_away(database: MakeDatabase, verifier: PlayedVerifier) -> None:
    """Each row that is taken is written: of a long backlog only one batch is, until the other side is back."""
    made = await database("orders")
    own = await Database.open(made.url, application="test", size=2)
    peer, process, reader = Peer(f"127.0.0.1:{verifier.server.port}", token=TOKEN), Process(), Reader(Registry({}))
    asked = Verifier(peer, reader)
    doorbell = Doorbell(Bus("nats://127.0.0.1:1", name="none", streams={}), process)
    sweeper, once = Sweeper(own, doorbell, Watching(own, asked, process), asked, Ledger(peer), LATER), Once()
    sweeper.start(once, 1.0)  # type: ignore[arg-type]
    async with own.transaction() as connection:
        owed = [watch_of(number) for number in range(2 * LIMIT + 1)]
        await outbox.insert(connection, owed, timedelta(0))
    verifier.is_up = False
    await once.works["sweep to watcher"]()
    async with own.connection() as connection:
        assert await connection.fetchval("SELECT sum(attempts) FROM outbox") == LIMIT
    verifier.is_up = True
    await once.works["sweep to watcher"]()
    assert len(verifier.watches) == LIMIT + 1
    await peer.close()
    await own.close()


def watch_of(number: int) -> Debt:
    """An address to watch."""
    address, now = f"0x{number:040x}", datetime.now(UTC)
    return watch_debt(UUID(int=number), "mrc_1", "BSC", address, from_block=None, from_time=now, until=None)
