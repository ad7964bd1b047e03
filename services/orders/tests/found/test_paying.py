"""Transfers that the verifier finds on the addresses of orders' own pay them, on a real database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest

from kit.errors import Fault
from local.process import until
from ospay.orders.v1 import orders_pb2
from services.orders.tests.conftest import Suite  # type: ignore[import-not-found]
from services.orders.tests.desk import (  # type: ignore[import-not-found]
    FIVE,
    PAYER,
    Desk,
    expire_by_hand,
    report,
    tx,
    xpub_merchant,
)
from services.orders.tests.found.scene import MINUTES, order, refund  # type: ignore[import-not-found]


async def test_a_final_transfer_pays_with_no_claim(desk: Desk) -> None:
    """An exact transfer to the order's own address pays it, is listed, and is booked once."""
    address = await order(desk)
    await desk.find(report(address))
    paid = await desk.suite.get()
    assert (await desk.state(), paid.received_minor, paid.tx_hash) == ("PAID", FIVE, tx(1))
    assert await desk.payments() == [("CREDITED", FIVE, "")]
    assert await desk.booked() == {"ORDER_PAID": FIVE}
    assert await desk.suspense() == []
    await desk.check()


async def test_partial_payments_add_up(desk: Desk) -> None:
    """What is too little is held in suspense and shown as received; the rest pays the order with all of it."""
    address = await order(desk)
    await desk.find(report(address, 1, 2_000_000))
    assert (await desk.state(), (await desk.suite.get()).received_minor) == ("PENDING", 2_000_000)
    assert await desk.payments() == [("HELD", 0, "underpaid")]
    await desk.find(report(address, 2, 3_000_000, block_number=102))
    paid = await desk.suite.get()
    assert (await desk.state(), paid.received_minor, paid.tx_hash) == ("PAID", FIVE, tx(2))
    assert await desk.payments() == [("CREDITED", 2_000_000, ""), ("CREDITED", 3_000_000, "")]
    assert await desk.suspense() == [("underpaid", "ALLOCATED", 2_000_000)]
    booked = {"SUSPENSE_RECEIVED": 2_000_000, "SUSPENSE_RELEASED": 2_000_000, "ORDER_PAID": FIVE}
    assert await desk.booked() == booked
    await desk.check()


async def test_a_list_of_payments_is_of_one_moment(desk: Desk) -> None:
    """What is decided between the looks of a list is in it as a whole or not at all."""
    address = await order(desk)
    await desk.find(report(address, 1, 2_000_000))
    owner = await asyncpg.connect(desk.suite.owner_url)
    try:
        for table in ("suspense", "sightings"):
            await owner.execute(f"CREATE TEMP TABLE kept_{table} AS TABLE {table}; DELETE FROM {table}")
        async with owner.transaction():
            await owner.execute("LOCK TABLE sightings")
            listing = asyncio.create_task(desk.payments())
            await until(lambda: _is_waiting(owner), "the list to wait for the sightings")
            for table in ("suspense", "sightings"):
                await owner.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE kept_{table}")
        assert await listing == []
    finally:
        await owner.close()
    assert await desk.payments() == [("HELD", 0, "underpaid")]


async def _is_waiting(owner: asyncpg.Connection) -> bool:
    sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'sightings'::regclass"
    return bool(await owner.fetchval(sql))


async def test_parts_in_one_batch_add_up(desk: Desk) -> None:
    """Parts that are reported together are decided in the order of the chain, in one commit."""
    address = await order(desk)
    await desk.find(report(address, 2, 3_000_000, block_number=103), report(address, 1, 2_000_000))
    assert (await desk.state(), (await desk.suite.get()).tx_hash) == ("PAID", tx(2))
    await desk.check()


async def test_what_is_held_is_not_refundable(desk: Desk) -> None:
    """With a part of its money an order is not paid: nothing is refundable, and when it expires the part stays held."""
    address = await order(desk)
    await desk.find(report(address, 1, 2_000_000))
    with pytest.raises(Fault) as caught:
        await refund(desk)
    assert (caught.value.reason, caught.value.metadata) == ("order_not_refundable", {"status": "PENDING"})
    await expire_by_hand(desk, "ord_1")
    await desk.expire()
    assert (await desk.state(), await desk.suspense()) == ("EXPIRED", [("underpaid", "OPEN", 2_000_000)])
    await desk.check()


@pytest.mark.parametrize("policy", [orders_pb2.SURPLUS_POLICY_SUSPENSE, orders_pb2.SURPLUS_POLICY_CREDIT])
async def test_the_surplus_goes_where_the_merchant_says(suite: Suite, policy: orders_pb2.SurplusPolicy) -> None:
    """Eight for an order of five: PAID, with three in suspense or credited and refundable as well."""
    await xpub_merchant(suite, surplus_policy=policy)
    desk = Desk(suite)
    address = await order(desk)
    await desk.find(report(address, 1, 8_000_000))
    paid = await suite.get()
    assert (await desk.state(), paid.surplus_minor) == ("PAID", 3_000_000)
    if policy == orders_pb2.SURPLUS_POLICY_CREDIT:
        assert (paid.received_minor, await desk.suspense()) == (8_000_000, [])
        assert (await refund(desk)).amount_minor == 8_000_000
    else:
        assert (paid.received_minor, await desk.suspense()) == (FIVE, [("surplus", "OPEN", 3_000_000)])
        assert await desk.payments() == [("CREDITED", FIVE, "surplus")]
        assert (await refund(desk)).amount_minor == FIVE
    await desk.check()


async def test_the_tolerance_is_the_merchants(suite: Suite) -> None:
    """With a tolerance of a cent an order is paid by a cent less, and received is what came."""
    await xpub_merchant(suite, underpayment_tolerance_minor=10_000)
    desk = Desk(suite)
    address = await order(desk)
    await desk.find(report(address, 1, FIVE - 10_000))
    assert (await desk.state(), (await suite.get()).received_minor) == ("PAID", FIVE - 10_000)
    await desk.check()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"asset": "USDC"}, "wrong_asset"),
        ({"sender": "0x90F79bf6EB2c4f870365E785982E1f101E93b906"}, "payer_mismatch"),
        ({"block_time": datetime.now(UTC) + 45 * MINUTES}, "late"),
        ({"block_number": 100}, "unattributed"),
    ],
)
async def test_what_does_not_count_is_held_with_a_reason(desk: Desk, fields: dict[str, object], reason: str) -> None:
    """Another asset, another sender, too late, too early: in suspense of its merchant and booked in its own asset."""
    address = await order(desk, customer_wallet_address=PAYER)
    await desk.find(report(address, 1, **fields))
    assert (await desk.state(), (await desk.suite.get()).received_minor) == ("PENDING", 0)
    assert await desk.suspense() == [(reason, "OPEN", FIVE)]
    assert await desk.payments() == [("HELD", 0, reason)]
    (posting,) = await desk.postings()
    assert (posting.order_id, posting.asset) == ("ord_1", fields.get("asset", "USDT"))
    assert (await desk.suite.get()).late_minor == (FIVE if reason == "late" else 0)
    await desk.check()


async def test_money_for_a_closed_order_is_held(desk: Desk) -> None:
    """In time for an order that was refunded meanwhile: it closes nothing anew."""
    address = await order(desk)
    await desk.find(report(address))
    await refund(desk)
    await desk.find(report(address, 2))
    assert (await desk.state(), await desk.suspense()) == ("REFUNDED", [("order_closed", "OPEN", FIVE)])
    await desk.check()


@pytest.mark.parametrize(("base", "minor"), [(5, 0), (2**256 - 1, -1)])
async def test_what_cannot_be_booked_is_recorded(desk: Desk, base: int, minor: int) -> None:
    """Less than a minor unit, or 2^256-1: it has a row, is listed, and moves nothing."""
    address = await order(desk)
    await desk.find(report(address, 1, minor, amount_base=base))
    assert await desk.payments() == [("HELD", 0, "")]
    assert await desk.value("SELECT amount_base FROM sightings") == base
    assert (await desk.booked(), await desk.state()) == ({}, "PENDING")


async def test_money_for_nobody_is_recorded(desk: Desk) -> None:
    """A report on an address that is nobody's here has a row, moves nothing, and can be confirmed."""
    done = await desk.find(report("0x90F79bf6EB2c4f870365E785982E1f101E93b906"))
    assert [item.version for item in done] == [1]
    assert await desk.value("SELECT count(*) FROM sightings WHERE merchant_id IS NULL") == 1
    assert await desk.booked() == {}


async def test_only_the_owner_lists_an_orders_transfers(desk: Desk) -> None:
    """Another merchant's order has no transfers to list: it is not there."""
    await xpub_merchant(desk.suite, "mrc_2", account=1)
    address = await order(desk)
    await desk.find(report(address))
    with pytest.raises(Fault) as caught:
        await desk.payments("ord_1", "mrc_2")
    assert caught.value.reason == "order_not_found"
