"""What is seen before it is final, and what is told more than once or at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from orders.domain import Outcome, Verdict
from ospay.orders.v1 import orders_pb2
from services.orders.tests.desk import (  # type: ignore[import-not-found]
    FINAL,
    FIVE,
    GONE,
    PAYER,
    SEEN,
    Desk,
    report,
    transfer,
    tx,
)
from services.orders.tests.found.scene import MINUTES, order  # type: ignore[import-not-found]
from services.orders.tests.played import PlayedVerifier  # type: ignore[import-not-found]


async def test_a_sighting_shows_at_once_and_goes_again(desk: Desk, verifier: PlayedVerifier) -> None:
    """Seen: CONFIRMING with the block it waits for and the confirmations of now. Gone: PENDING, and a trail."""
    address = await order(desk)
    await desk.find(report(address, state=SEEN, head=103))
    verifier.head = 108
    shown = await desk.suite.get()
    assert await desk.state() == "CONFIRMING"
    expected = orders_pb2.Confirming(tx_hash=tx(1), amount_minor=FIVE, block_number=101, confirmations=8)
    assert shown.confirming == expected
    assert (await desk.suite.create()).order.confirming == expected
    listed = orders_pb2.ListOrdersRequest(merchant_id="mrc_1")
    page = await desk.suite.peer.call(desk.suite.orders.ListOrders, listed, timeout=5)
    assert [item.confirming for item in page.orders] == [expected]
    await desk.find(report(address, state=GONE, version=2))
    assert (await desk.state(), (await desk.suite.get()).HasField("confirming")) == ("PENDING", False)
    assert await desk.payments() == [("DROPPED", 0, "")]


async def test_without_a_head_the_last_look_is_told(desk: Desk, verifier: PlayedVerifier) -> None:
    """A verifier that does not answer costs a reader a moment, and the confirmations are those of the report."""
    address = await order(desk)
    await desk.find(report(address, state=SEEN, head=103))
    await verifier.server.stop()
    assert (await desk.suite.get()).confirming.confirmations == 3


async def test_a_transfer_that_moves_before_it_is_final_is_followed(desk: Desk) -> None:
    """Dropped from one block and mined in another: CONFIRMING for the new one, paid once, the old one on the trail."""
    address = await order(desk)
    moved = {"block_hash": tx(98), "block_number": 104, "log_index": 7}
    await desk.find(report(address, state=SEEN))
    await desk.find(report(address, state=SEEN, **moved), report(address, state=GONE, version=2))
    assert (await desk.state(), (await desk.suite.get()).confirming.block_number) == ("CONFIRMING", 104)
    await desk.find(report(address, state=FINAL, version=2, **moved))
    assert await desk.payments() == [("DROPPED", 0, ""), ("CREDITED", FIVE, "")]
    await desk.check()


async def test_an_older_word_changes_nothing(desk: Desk) -> None:
    """Reports out of order: what is newest counts, whatever comes after it."""
    address = await order(desk)
    await desk.find(report(address, state=GONE, version=4))
    await desk.find(report(address, state=SEEN, version=3), report(address, state=FINAL, version=2))
    assert (await desk.state(), await desk.booked()) == ("PENDING", {})
    await desk.find(report(address, state=FINAL, version=5))
    await desk.find(report(address, state=SEEN, version=4), report(address, state=GONE, version=3))
    assert await desk.state() == "PAID"


async def test_an_order_does_not_expire_while_a_transfer_confirms(desk: Desk) -> None:
    """Past its time an order with a transfer that is not final waits for it; one that is dropped holds nothing up."""
    addresses = [await order(desk, name) for name in ("ord_1", "ord_2")]
    await desk.find(*(report(address, number, state=SEEN) for number, address in enumerate(addresses, 1)))
    await desk.find(report(addresses[1], 2, state=GONE, version=2))
    await desk.owner(
        "UPDATE orders SET created_at = now() - interval '2 hours', expires_at = now() - interval '1 second'"
    )
    await desk.expire()
    assert [await desk.state("ord_1"), await desk.state("ord_2")] == ["CONFIRMING", "EXPIRED"]
    in_time = {"block_time": datetime.now(UTC) - MINUTES}
    await desk.find(report(addresses[0], 1, version=2, **in_time), report(addresses[1], 3, **in_time))
    assert [await desk.state("ord_1"), await desk.state("ord_2")] == ["PAID", "EXPIRED"]
    assert await desk.suspense() == [("late", "OPEN", FIVE)]
    await desk.check()


async def test_the_same_report_at_once_pays_once(desk: Desk) -> None:
    """Delivered many times, at once and later, alone and with others: one payment, one debt."""
    address = await order(desk)
    one = report(address)
    await asyncio.gather(*(desk.find(one, one) for _ in range(8)))
    assert [item.version for item in await desk.find(one)] == [1]
    assert await desk.value("SELECT count(*) FROM payments") == 1
    assert await desk.booked() == {"ORDER_PAID": FIVE}


async def test_parts_at_once_pay_once(desk: Desk) -> None:
    """Ten parts of an order reported by several replicas at once: the sum is credited, the rest is surplus."""
    address = await order(desk)
    parts = [report(address, number, 1_000_000, block_number=100 + number) for number in range(1, 11)]
    await asyncio.gather(*(desk.find(*parts[start : start + 4]) for start in (0, 2, 4, 6)), desk.find(*parts[::-1]))
    paid = await desk.suite.get()
    assert (await desk.state(), paid.received_minor, paid.surplus_minor) == ("PAID", FIVE, FIVE)
    await desk.check()


async def test_batches_of_many_orders_do_not_deadlock(desk: Desk) -> None:
    """Reports on the same orders in different batches and orders, with claims on them between: each is paid once."""
    names = [f"many_{number}" for number in range(12)]
    reports, verdicts = [], []
    for number, name in enumerate(names, 1):
        address = await order(desk, name)
        reports.append(report(address, number))
        moved = transfer(number, sender=PAYER)
        verdicts.append(Verdict(await desk.claim(name, number), Outcome.FINAL, transfers=(moved,)))
    await asyncio.gather(
        desk.find(*reports),
        desk.find(*reports[::-1]),
        desk.apply(*verdicts[::-1]),
        desk.find(*reports[6:], *reports[:6]),
        desk.apply(*verdicts),
    )
    assert [await desk.state(name) for name in names] == ["PAID"] * 12
    assert await desk.booked() == {"ORDER_PAID": 12 * FIVE}
    assert await desk.value("SELECT count(*) FROM claims WHERE state = 'ACCEPTED'") == 12
    await desk.check()
