"""Which addresses the verifier is told to watch, and what it reports of them, over real gRPC and NATS."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, timedelta

import nats
import pytest

from orders.rewatch import rewatch
from orders.workflow import debts, suspense
from orders.workflow import watches as workflow
from orders.workflow.watches import watch_missing
from ospay.orders.v1 import orders_pb2
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.conftest import WALLET, Suite  # type: ignore[import-not-found]
from services.orders.tests.desk import (  # type: ignore[import-not-found]
    CHAINS,
    FIVE,
    REVERSED,
    SEEN,
    Desk,
    report,
    tx,
    xpub_merchant,
)
from services.orders.tests.played import HEAD, PlayedVerifier  # type: ignore[import-not-found]

YEAR = timedelta(days=365)
WATCHED = "SELECT count(*) FROM outbox WHERE subject = 'ospay.orders.v1.address_watched'"


@pytest.fixture
def settings(verifier: PlayedVerifier) -> dict[str, object]:
    return {"verifier_target": f"127.0.0.1:{verifier.server.port}", "chains_file": CHAINS, "watch_period": 86400}


@pytest.fixture
def desk(suite: Suite) -> Desk:
    return Desk(suite)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 20
    while not await holds():
        assert time.monotonic() < deadline, "waited 20 s"
        await asyncio.sleep(0.02)


async def closed(desk: Desk) -> None:
    async def no_debt() -> bool:
        return await desk.value(WATCHED) == 0

    await until(no_debt)


async def test_an_orders_own_address_is_watched_from_its_creation(desk: Desk, verifier: PlayedVerifier) -> None:
    """On its chain, from the height that it was made at, until a while after it expires; then the debt is closed."""
    await xpub_merchant(desk.suite)
    order = (await desk.suite.create(chain="ETH")).order
    await closed(desk)
    (watch,) = verifier.watches
    assert (watch.chain, watch.address, watch.from_block) == ("ETH", order.deposit_address, HEAD)
    assert watch.from_time == order.created_at
    assert watch.until.ToDatetime(UTC) == order.expires_at.ToDatetime(UTC) + timedelta(days=1)


async def test_a_wallet_is_watched_on_every_chain_for_ever(desk: Desk, verifier: PlayedVerifier) -> None:
    """At registration, once; an order at a wallet has nothing to be watched."""
    await desk.suite.merchant()
    await closed(desk)
    assert sorted((watch.chain, watch.address, watch.from_block) for watch in verifier.watches) == [
        ("BSC", WALLET, 0),
        ("ETH", WALLET, 0),
    ]
    assert not any(watch.HasField("until") for watch in verifier.watches)
    await desk.suite.merchant()
    await desk.suite.create()
    assert (await desk.value(WATCHED), len(verifier.watches)) == (0, 2)


async def test_merchants_from_before_are_watched_as_well(desk: Desk, verifier: PlayedVerifier) -> None:
    """A wallet from before watching began, or from before a chain came, is found once, from its registration on."""
    await desk.owner("INSERT INTO wallet_watches (merchant_id, chain) VALUES ('old', 'BSC')")
    await desk.owner(
        "INSERT INTO merchants (id, name, wallet, created_at) VALUES ('old', 'Old', $1, '2026-01-01')", WALLET
    )
    found = await asyncio.gather(
        *(watch_missing(desk.suite.database, ["BSC", "ETH"], timedelta(hours=1)) for _ in range(4))
    )
    here = [verifier_pb2.Watch.FromString(debt.payload) for some in found for debt in some]

    async def known() -> bool:
        return bool(here or verifier.watches)  # the service looks as well when it starts, and may have been first

    await until(known)
    (watch,) = [*here, *verifier.watches]
    assert (watch.chain, watch.address, watch.from_time.ToDatetime().year) == ("ETH", WALLET, 2026)
    assert await watch_missing(desk.suite.database, ["BSC", "ETH"], timedelta(hours=1)) == []


async def test_a_verifier_that_lost_its_watches_is_told_all_again(
    desk: Desk, verifier: PlayedVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every wallet on every chain and every address that is still watched, by pages, as they were told at first."""
    monkeypatch.setattr(workflow, "LIMIT", 2)
    for number in range(3):
        await desk.suite.merchant(f"mrc_{number + 2}")
    await xpub_merchant(desk.suite)
    for number in range(5):
        await desk.suite.create(f"ord_{number}")
    await closed(desk)
    await desk.owner(
        "UPDATE orders SET created_at = now() - $1::interval, expires_at = now() - $1::interval / 2 WHERE id = 'ord_4'",
        YEAR,
    )
    old = (await desk.suite.get("ord_4")).deposit_address

    def told() -> list[tuple[object, ...]]:
        return sorted(
            (watch.chain, watch.address, watch.from_block, watch.from_time.ToNanoseconds(), watch.until.ToNanoseconds())
            for watch in verifier.watches
            if watch.address != old
        )

    before = told()
    verifier.watches = []
    assert await rewatch(desk.suite.settings) == len(before) == 10
    await closed(desk)
    assert (told(), len(verifier.watches)) == (before, 10)


async def test_what_the_verifier_did_not_take_is_delivered_later(desk: Desk, verifier: PlayedVerifier) -> None:
    """With the verifier away nobody waits, the debts stay, are no matter of money, and come home when it is back."""
    verifier.is_up = False
    await xpub_merchant(desk.suite)
    order = (await desk.suite.create()).order
    assert await desk.value(WATCHED) == 1
    counts = orders_pb2.GetOrderCountsRequest(merchant_id="mrc_1", asset="USDT")
    answer = await desk.suite.peer.call(desk.suite.orders.GetOrderCounts, counts, timeout=5)
    assert answer.in_flight_count == 0
    assert await debts.queued_claims(desk.suite.database, 10) == 0
    verifier.is_up = True
    await desk.owner("UPDATE outbox SET next_attempt_at = now()")
    await closed(desk)
    assert order.deposit_address in [watch.address for watch in verifier.watches]


async def test_reports_are_pulled_applied_and_confirmed(desk: Desk, verifier: PlayedVerifier) -> None:
    """With no broker: what is found is taken over gRPC, pays, and is confirmed in the version that was told."""
    await xpub_merchant(desk.suite)
    address = (await desk.suite.create()).order.deposit_address
    verifier.reports = [report(address, version=3)]

    async def confirmed() -> bool:
        return bool(verifier.confirmed)

    await until(confirmed)
    assert (await desk.state(), [version for _, version in verifier.confirmed]) == ("PAID", [3])
    assert verifier.reports == []


async def test_a_crash_before_the_confirmation_doubles_nothing(desk: Desk, verifier: PlayedVerifier) -> None:
    """Applied, committed, and gone before it was confirmed: told again, it is confirmed and changes nothing."""
    await xpub_merchant(desk.suite)
    address = (await desk.suite.create()).order.deposit_address
    told = [report(address, 1, 2_000_000), report(address, 2, 8_000_000, block_number=102)]
    await desk.find(*told)
    before = (await desk.suite.get(), sorted(await desk.suspense()), await desk.booked())
    verifier.reports = list(told)

    async def confirmed() -> bool:
        return len(verifier.confirmed) == 2

    await until(confirmed)
    assert (await desk.suite.get(), sorted(await desk.suspense()), await desk.booked()) == before
    await desk.check()


async def test_a_published_report_is_applied_at_once(desk: Desk, verifier: PlayedVerifier, nats_url: str) -> None:
    """Over NATS: applied and confirmed; what is no message is a dead letter, what a newer version tells is left."""
    await xpub_merchant(desk.suite)
    address = (await desk.suite.create()).order.deposit_address
    client = await nats.connect(nats_url)
    try:
        stream = client.jetstream()
        unknown = report(address, 5)
        unknown.state = 99  # type: ignore[assignment]
        for payload in (
            b"\xff\xff",
            verifier_pb2.TakeReportsResponse(reports=[report(address, state=SEEN)]).SerializeToString(),
            verifier_pb2.TakeReportsResponse(reports=[unknown, report(address, version=2)]).SerializeToString(),
        ):
            await stream.publish("ospay.verifier.v1.transfers", payload)

        async def paid() -> bool:
            return await desk.state() == "PAID" and len(verifier.confirmed) >= 1

        await until(paid)
    finally:
        await client.close()
    assert await desk.value("SELECT count(*) FROM dead_letters") == 1


async def test_a_report_that_cannot_be_applied_holds_up_no_other(desk: Desk, verifier: PlayedVerifier) -> None:
    """Two amounts that together pass 63 bits on one order: the second stays unconfirmed, everything else is applied."""
    await xpub_merchant(desk.suite)
    addresses = [(await desk.suite.create(f"ord_{number}")).order.deposit_address for number in range(3)]
    huge = {"amount_minor": 2**63 - 1, "sender": WALLET}
    verifier.reports = [report(addresses[0], 1, block_number=101)]
    verifier.reports += [report(addresses[1], number, block_number=100 + number, **huge) for number in (2, 3)]
    verifier.reports += [report(addresses[2], 4, block_number=104)]

    async def confirmed() -> bool:
        return len(verifier.confirmed) == 3

    await until(confirmed)
    assert [item.transfer.tx_hash for item in verifier.reports] == [tx(3)]
    assert [await desk.state(f"ord_{number}") for number in range(3)] == ["PAID"] * 3


async def test_a_reversal_is_counted_and_shown(desk: Desk) -> None:
    """What waits for the operator has a gauge: open items, and PAID orders with something taken back."""
    await xpub_merchant(desk.suite)
    address = (await desk.suite.create()).order.deposit_address
    await desk.find(report(address, 1, FIVE), report(address, 2, 1, block_number=102))
    await desk.find(report(address, 1, FIVE, REVERSED, version=2))
    assert await suspense.waiting(desk.suite.database) == (1, 1)
