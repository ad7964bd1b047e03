"""Transfers that the verifier finds on a wallet that orders share: they pay where it is plain, and are held else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ospay.orders.v1 import orders_pb2
from services.orders.tests.conftest import WALLET  # type: ignore[import-not-found]
from services.orders.tests.desk import (  # type: ignore[import-not-found]
    FIVE,
    GONE,
    PAYER,
    REVERSED,
    SEEN,
    Desk,
    expire_by_hand,
    report,
    tx,
    xpub_merchant,
)
from services.orders.tests.shared_wallet.scene import OTHER, final  # type: ignore[import-not-found]


async def test_the_one_order_that_fits_is_paid(desk: Desk) -> None:
    """With no claim: seen it shows on the order, final it pays; an order of another amount is left alone."""
    await desk.suite.create("ord_1")
    await desk.suite.create("ord_2", amount_minor=6_000_000)
    await desk.find(report(WALLET, state=SEEN))
    assert [await desk.state("ord_1"), await desk.state("ord_2")] == ["CONFIRMING", "PENDING"]
    await desk.find(report(WALLET, version=2))
    assert [await desk.state("ord_1"), await desk.state("ord_2")] == ["PAID", "PENDING"]
    assert await desk.payments() == [("CREDITED", FIVE, "")]
    assert await desk.booked() == {"ORDER_PAID": FIVE}
    await desk.check()


async def test_what_fits_two_orders_is_a_question(desk: Desk) -> None:
    """Two open orders of one amount: neither is paid nor CONFIRMING, the money is in suspense, and a claim decides."""
    await desk.suite.create("ord_1")
    await desk.suite.create("ord_2")
    await desk.find(report(WALLET, state=SEEN))
    assert [await desk.state("ord_1"), await desk.state("ord_2")] == ["PENDING", "PENDING"]
    await desk.find(report(WALLET, version=2))
    assert await desk.suspense() == [("ambiguous", "OPEN", FIVE)]
    claim = await desk.claim("ord_2")
    await desk.apply(final(claim))
    assert [await desk.state("ord_1"), await desk.state("ord_2")] == ["PENDING", "PAID"]
    assert await desk.suspense() == [("ambiguous", "ALLOCATED", FIVE)]
    assert await desk.booked() == {"SUSPENSE_RECEIVED": FIVE, "SUSPENSE_RELEASED": FIVE, "ORDER_PAID": FIVE}
    await desk.check()


async def test_what_fits_no_order_is_held_for_its_merchant(desk: Desk) -> None:
    """More, less, another asset, another chain, too early: in suspense with no order, booked for the merchant."""
    await desk.suite.create("ord_1")
    await desk.find(
        report(WALLET, 1, FIVE + 1),
        report(WALLET, 2, FIVE - 1),
        report(WALLET, 3, asset="USDC"),
        report(WALLET, 4, chain="ETH", chain_id=1),
        report(WALLET, 5, block_number=100),
    )
    assert await desk.state() == "PENDING"
    assert sorted(await desk.suspense()) == sorted(
        ("unattributed", "OPEN", amount) for amount in (FIVE + 1, FIVE - 1, FIVE, FIVE, FIVE)
    )
    assert {posting.order_id for posting in await desk.postings()} == {""}
    await desk.check()


async def test_the_named_payer_decides(desk: Desk) -> None:
    """Of two orders of one amount the one that names the sender is paid."""
    await desk.suite.create("ord_1", customer_wallet_address=OTHER)
    await desk.suite.create("ord_2", customer_wallet_address=PAYER)
    await desk.find(report(WALLET))
    assert [await desk.state("ord_1"), await desk.state("ord_2")] == ["PENDING", "PAID"]


async def test_an_order_that_expired_just_now_may_have_been_meant(desk: Desk) -> None:
    """Beside an order that expired less than a day ago the open one is not the only one; a day later it is."""
    await desk.suite.create("ord_1")
    await desk.suite.create("ord_2")
    await expire_by_hand(desk, "ord_1")
    await desk.expire()
    await desk.find(report(WALLET, 1))
    assert (await desk.state("ord_2"), await desk.suspense()) == ("PENDING", [("ambiguous", "OPEN", FIVE)])
    await desk.owner(
        """
        UPDATE orders SET created_at = now() - interval '26 hours', expires_at = now() - interval '25 hours'
        WHERE id = 'ord_1'
        """
    )
    await desk.find(report(WALLET, 2))
    assert await desk.state("ord_2") == "PAID"
    await desk.check()


async def test_money_for_the_only_order_that_expired_is_late(desk: Desk) -> None:
    """With no other order in question the money is late for that one, which shows it."""
    await desk.suite.create("ord_1")
    await expire_by_hand(desk, "ord_1")
    await desk.expire()
    await desk.find(report(WALLET))
    assert (await desk.state(), (await desk.suite.get()).late_minor) == ("EXPIRED", FIVE)
    assert await desk.payments() == [("HELD", 0, "late")]
    await desk.suite.create("ord_2")
    claim = await desk.claim("ord_2")
    await desk.apply(final(claim))
    assert await desk.state("ord_2") == "PAID"
    await desk.check()


async def test_merchants_with_one_wallet_are_one_question(desk: Desk) -> None:
    """Two merchants registered one wallet: the order that fits decides; if none does, who registered first has it."""
    await desk.suite.merchant("mrc_0")
    await desk.suite.create("ord_1", merchant_id="mrc_0")
    await desk.find(report(WALLET, 1))
    assert await desk.state("ord_1", "mrc_0") == "PAID"
    await desk.find(report(WALLET, 2))
    assert (await desk.suspense("mrc_1"), await desk.suspense("mrc_0")) == ([("unattributed", "OPEN", FIVE)], [])
    await desk.suite.create("ord_2", merchant_id="mrc_0")
    await desk.apply(final(await desk.claim("ord_2", 2, "mrc_0"), 2))
    assert await desk.state("ord_2", "mrc_0") == "PAID"
    assert await desk.suspense("mrc_1") == [("unattributed", "ALLOCATED", FIVE)]
    assert await desk.value("SELECT order_id FROM suspense") is None
    merchants = {(posting.event_type, posting.merchant_id) for posting in await desk.postings()}
    assert merchants == {(1, "mrc_0"), (3, "mrc_1"), (4, "mrc_1")}
    await desk.check()


async def test_a_sighting_that_is_taken_back_frees_its_order(desk: Desk) -> None:
    """Gone before it was final: the order that it confirmed is PENDING, and pays with another transfer."""
    await desk.suite.create("ord_1")
    await desk.find(report(WALLET, state=SEEN))
    await desk.find(report(WALLET, state=GONE, version=2))
    assert (await desk.state(), await desk.payments()) == ("PENDING", [("DROPPED", 0, "")])
    await desk.find(report(WALLET, 2))
    assert await desk.state() == "PAID"


async def test_a_reversed_payment_is_taken_back_from_its_order(desk: Desk) -> None:
    """Past finality: the order shows it, and no claim can use the transfer again when it comes back."""
    await desk.suite.create("ord_1")
    await desk.find(report(WALLET))
    await desk.find(report(WALLET, state=REVERSED, version=2))
    assert (await desk.suite.get()).reversed_minor == FIVE
    await desk.suite.create("ord_2")
    await desk.find(report(WALLET, version=3))
    assert await desk.suspense() == [("reappeared", "OPEN", FIVE)]
    await desk.apply(final(await desk.claim("ord_2")))
    assert (await desk.suite.get("ord_2")).last_claim.reason == "already_used"
    await desk.check()


async def test_what_is_in_suspense_and_taken_back_leaves_it(desk: Desk) -> None:
    """An unattributed transfer that the chain takes back is released, and nothing is open."""
    await desk.find(report(WALLET))
    await desk.find(report(WALLET, state=REVERSED, version=2))
    assert await desk.suspense() == [("unattributed", "REVERSED", FIVE)]
    assert await desk.booked() == {"SUSPENSE_RECEIVED": FIVE, "SUSPENSE_RELEASED": FIVE}
    await desk.check()


async def test_late_money_of_before_is_booked_and_not_counted_again(desk: Desk) -> None:
    """What was recorded as late before suspense was kept comes into it when the watcher finds it, and adds nothing."""
    await desk.suite.create("ord_1")
    await expire_by_hand(desk, "ord_1")
    await desk.owner("UPDATE orders SET late_minor = 5000000, state = 'EXPIRED'")
    await desk.owner(
        """
        INSERT INTO late_payments (chain_id, tx_hash, log_index, order_id, merchant_id, amount_base, amount_minor,
                                   sender, block_number, block_hash, block_time)
        VALUES (56, $1, 0, 'ord_1', 'mrc_1', 5000000, 5000000, '', 1, '', now())
        """,
        tx(1),
    )
    await desk.find(report(WALLET))
    assert (await desk.suite.get()).late_minor == FIVE
    assert await desk.suspense() == [("late", "OPEN", FIVE)]


async def test_open_orders_of_one_amount_cost_one_look(desk: Desk) -> None:
    """Hundreds of open orders of one amount: ambiguous, whichever of them are looked at."""
    requests = [
        orders_pb2.CreateOrderRequest(merchant_id="mrc_1", order_id=f"o{number}", asset="USDT", amount_minor=FIVE)
        for number in range(300)
    ]
    batch = orders_pb2.BatchCreateOrdersRequest(requests=requests)
    await desk.suite.peer.call(desk.suite.orders.BatchCreateOrders, batch, timeout=10)
    await desk.find(report(WALLET))
    assert await desk.suspense() == [("ambiguous", "OPEN", FIVE)]


async def test_a_report_from_before_the_registration_waits_for_nobody(desk: Desk) -> None:
    """A transfer that is older than every order is in suspense, not somebody's payment."""
    await desk.suite.create("ord_1")
    old = datetime.now(UTC) - timedelta(days=2)
    await desk.find(report(WALLET, block_number=5, block_time=old))
    assert (await desk.state(), await desk.suspense()) == ("PENDING", [("unattributed", "OPEN", FIVE)])


async def test_what_a_merchant_collects_pays_no_order(desk: Desk) -> None:
    """An own address is emptied into a wallet, found or claimed: the wallet's order of that amount stays open."""
    await xpub_merchant(desk.suite, "mrc_2")
    own = (await desk.suite.create("own", merchant_id="mrc_2")).order.deposit_address
    await desk.suite.create("ord_1")
    await desk.suite.create("ord_2", amount_minor=6_000_000)
    await desk.find(report(WALLET, 1, state=SEEN, sender=own))
    claim = await desk.claim("ord_2", 2)
    await desk.apply(final(claim, 2, amount_minor=6_000_000, sender=own))
    await desk.find(report(WALLET, 1, version=2, sender=own), report(WALLET, 2, 6_000_000, sender=own))
    assert [await desk.state("ord_1"), await desk.state("ord_2")] == ["PENDING", "PENDING"]
    assert await desk.suspense() == [("internal", "OPEN", FIVE), ("internal", "OPEN", 6_000_000)]
    assert await desk.value("SELECT reason FROM claims WHERE id = $1", claim) == "internal"
    await desk.check()
