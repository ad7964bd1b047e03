"""When orders expire: their time is over, and the verifier has found all that was paid in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY

from chains import Registry
from kit.channel import Peer
from kit.server import Server
from local.process import until
from orders import expiry
from orders.domain import Due
from orders.expiry import Expiry
from orders.messages import Reader, span_of, tokens
from orders.peers import Verifier
from orders.workflow import orders as workflow
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.conftest import WALLET, Suite  # type: ignore[import-not-found]
from services.orders.tests.desk import (  # type: ignore[import-not-found]
    CHAINS,
    SEEN,
    Desk,
    expire_by_hand,
    report,
    xpub_merchant,
)
from services.orders.tests.played import HEAD, TOKEN, PlayedVerifier  # type: ignore[import-not-found]

NOT_SERVED = verifier_pb2.SPAN_STATE_NOT_SERVED
NOT_WATCHED = verifier_pb2.SPAN_STATE_NOT_WATCHED
CHAIN_BEHIND = verifier_pb2.SPAN_STATE_CHAIN_BEHIND
ADDRESS_BEHIND = verifier_pb2.SPAN_STATE_ADDRESS_BEHIND


@pytest.fixture
def settings(verifier: PlayedVerifier) -> dict[str, object]:
    return {"verifier_target": f"127.0.0.1:{verifier.server.port}", "chains_file": CHAINS, "watch_period": 86400}


@pytest.fixture
async def desk(suite: Suite) -> Desk:
    await suite.merchant()
    return Desk(suite)


async def due(desk: Desk, order_id: str, **fields: object) -> None:
    """An order that is past its time."""
    await desk.suite.create(order_id, **fields)
    await expire_by_hand(desk, order_id)


async def expired(desk: Desk, *order_ids: str) -> None:
    """Waits until these have expired."""

    async def all_expired() -> bool:
        return [await desk.state(order_id) for order_id in order_ids] == ["EXPIRED"] * len(order_ids)

    await until(all_expired, "the orders to expire")


async def test_an_order_expires_when_its_time_was_looked_through(desk: Desk, verifier: PlayedVerifier) -> None:
    """One on a chain that is behind stays, one on another expires, and so does the first when its chain is no more."""
    verifier.span_states = {"ETH": CHAIN_BEHIND}
    await due(desk, "behind", chain="ETH")
    await due(desk, "done")
    await expired(desk, "done")
    assert await desk.state("behind") == "PENDING"
    verifier.span_states = {}
    await expired(desk, "behind")


async def test_it_asks_for_the_orders_time_and_a_margin(desk: Desk, verifier: PlayedVerifier) -> None:
    """On its address, from a little before it was made until a little after its time."""
    await due(desk, "ord_1")
    await expired(desk, "ord_1")
    order = await desk.suite.get("ord_1")
    span = verifier.checked[-1]
    assert (span.chain, span.address, span.asset) == ("BSC", WALLET, "USDT")
    assert span.from_time.ToDatetime() == order.created_at.ToDatetime() - timedelta(seconds=15)
    assert span.until.ToDatetime() == order.expires_at.ToDatetime() + expiry.MARGIN


def test_an_asset_that_is_configured_no_more_is_not_waited_for() -> None:
    """It is named only while it is configured here: nobody will look for it, and its orders would never expire."""
    configured, now = tokens(Registry.load(CHAINS)), datetime.now(UTC)
    for asset, named in (("USDC", "USDC"), ("DAI", "")):
        due = Due("ord_1", "mrc_1", "BSC", asset, WALLET, is_own=False, created_block=1, created_at=now, expires_at=now)
        assert span_of(due, configured, expiry.MARGIN).asset == named


async def test_within_the_margin_nothing_is_asked(
    desk: Desk, verifier: PlayedVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor for an order that has time left: a round with nothing to expire costs no call."""
    monkeypatch.setattr(expiry, "MARGIN", timedelta(hours=2))
    await desk.suite.create("open")
    await due(desk, "just_over")
    peer = Peer(f"127.0.0.1:{verifier.server.port}", token=TOKEN)
    registry = Registry.load(CHAINS)
    await Expiry(desk.suite.database, registry, Verifier(peer, Reader(registry)), timedelta(0)).expire()
    await peer.close()
    assert verifier.checked == []
    monkeypatch.setattr(expiry, "MARGIN", timedelta(minutes=30))
    await expired(desk, "just_over")
    assert await desk.state("open") == "PENDING"


async def test_while_the_verifier_is_away_nothing_expires(desk: Desk, verifier: PlayedVerifier) -> None:
    """What is due stays, shows in the gauge, and expires when the verifier is back."""
    verifier.is_up = False
    await due(desk, "ord_1")

    async def shown() -> bool:
        return (REGISTRY.get_sample_value("orders_expiry_overdue_seconds") or 0) > 3600

    await until(shown, "the time that it is overdue to be shown")
    assert await desk.state("ord_1") == "PENDING"
    verifier.is_up = True
    await expired(desk, "ord_1")

    async def over() -> bool:
        return REGISTRY.get_sample_value("orders_expiry_overdue_seconds") == 0

    await until(over, "nothing to be overdue")


async def test_what_cannot_be_written_is_overdue(desk: Desk) -> None:
    """A pass that fails shows how long the orders that it was at are past their time, and not what was before it."""
    await desk.owner("ALTER TABLE orders ADD CONSTRAINT no_expiry CHECK (state <> 'EXPIRED') NOT VALID")
    await due(desk, "ord_1")

    async def shown() -> bool:
        return (REGISTRY.get_sample_value("orders_expiry_overdue_seconds") or 0) > 3600

    await until(shown, "the time that it is overdue to be shown")
    await desk.owner("ALTER TABLE orders DROP CONSTRAINT no_expiry")
    await expired(desk, "ord_1")


async def test_where_nobody_looks_the_clock_decides(desk: Desk, verifier: PlayedVerifier) -> None:
    """On a chain that is not served nothing can be waited for."""
    verifier.span_states = {"ETH": NOT_SERVED, "BSC": CHAIN_BEHIND}
    await due(desk, "eth", chain="ETH")
    await due(desk, "bsc")
    await expired(desk, "eth")
    assert await desk.state("bsc") == "PENDING"


async def test_beside_a_verifier_of_before_the_clock_decides(desk: Desk, verifier: PlayedVerifier) -> None:
    """One that does not know the question leaves everything as it was."""
    verifier.span_states = {"BSC": CHAIN_BEHIND}
    await due(desk, "ord_1")
    before = Server("127.0.0.1:0", callers={"orders": TOKEN}, services=[], tls=None)
    await before.start()
    peer = Peer(f"127.0.0.1:{before.port}", token=TOKEN)
    registry = Registry.load(CHAINS)
    await Expiry(desk.suite.database, registry, Verifier(peer, Reader(registry)), timedelta(0)).expire()
    await peer.close()
    await before.stop()
    assert await desk.state("ord_1") == "EXPIRED"


async def test_an_address_that_is_not_known_is_told_again(desk: Desk, verifier: PlayedVerifier) -> None:
    """After a restore of the verifier: a wallet for ever, an order's own address for its time, and both orders stay."""
    await xpub_merchant(desk.suite, "mrc_2")
    verifier.span_states = {"ETH": NOT_WATCHED}
    own = (await desk.suite.create("own", merchant_id="mrc_2", chain="ETH")).order.deposit_address
    await desk.suite.create("shared", chain="ETH")
    for order_id in ("own", "shared"):
        await expire_by_hand(desk, order_id)

    def told() -> dict[str, verifier_pb2.Watch]:
        ours = {watch.address: watch for watch in verifier.watches if watch.chain == "ETH"}
        return {address: watch for address, watch in ours.items() if watch.from_time.ToDatetime(UTC) < an_hour_ago}

    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)

    async def both() -> bool:
        return told().keys() == {own, WALLET}

    await until(both, "both addresses to be watched")
    over = (await desk.suite.get("own", "mrc_2")).expires_at.ToDatetime(UTC) + timedelta(days=1)
    assert (told()[own].from_block, told()[own].until.ToDatetime(UTC)) == (HEAD, over)
    assert (told()[WALLET].from_block, told()[WALLET].HasField("until")) == (0, False)
    assert [await desk.state("own", "mrc_2"), await desk.state("shared")] == ["PENDING"] * 2


async def test_those_that_wait_keep_no_other_from_expiring(
    desk: Desk, verifier: PlayedVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait, and however long: on their chain, for their own address, or for a transfer that confirms."""
    monkeypatch.setattr(expiry, "LIMIT", 2)
    await xpub_merchant(desk.suite, "mrc_2")
    verifier.span_states = {"ETH": CHAIN_BEHIND}
    for number in range(5):
        await due(desk, f"eth_{number}", chain="ETH")
        made = await desk.suite.create(f"own_{number}", merchant_id="mrc_2")
        verifier.span_states[made.order.deposit_address] = ADDRESS_BEHIND
        await expire_by_hand(desk, f"own_{number}")
    confirming = (await desk.suite.create("seen", merchant_id="mrc_2")).order.deposit_address
    await desk.find(report(confirming, state=SEEN))
    await expire_by_hand(desk, "seen")
    await due(desk, "last")
    await expired(desk, "last")
    assert [await desk.state(f"eth_{number}") for number in range(5)] == ["PENDING"] * 5
    assert [await desk.state(f"own_{number}", "mrc_2") for number in range(5)] == ["PENDING"] * 5
    assert await desk.state("seen", "mrc_2") == "CONFIRMING"


async def test_what_is_found_while_it_is_asked_about_does_not_expire(desk: Desk, verifier: PlayedVerifier) -> None:
    """An order that was due when the verifier was asked, and has a transfer that confirms when it answers, stays."""
    verifier.span_states = {"BSC": CHAIN_BEHIND}
    await due(desk, "ord_1")
    (order,) = await workflow.due(desk.suite.database, expiry.MARGIN, [], None, 100)
    await desk.find(report(WALLET, state=SEEN, block_time=order.expires_at - timedelta(minutes=1)))
    await workflow.expire(desk.suite.database, [order.key])
    assert await desk.state("ord_1") == "CONFIRMING"
