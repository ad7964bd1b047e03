"""Parts of a transfer that are held: they can be completed, and hold up no report."""

from __future__ import annotations

import pytest

from orders.domain import Outcome, Verdict
from ospay.orders.v1 import orders_pb2
from services.orders.tests.conftest import WALLET  # type: ignore[import-not-found]
from services.orders.tests.desk import FIVE, PAYER, REVERSED, report, transfer  # type: ignore[import-not-found]
from services.orders.tests.suspense.operator import Operator, address  # type: ignore[import-not-found]


@pytest.mark.parametrize("by_claim", [False, True])
async def test_a_part_of_a_transfer_that_paid_another_order_is_completed(desk: Operator, by_claim: bool) -> None:
    """A surplus is allocated to an order as a part of it: when the rest comes, found or claimed, both pay it."""
    paid, own = await address(desk, "ord_1"), await address(desk, "ord_2")
    await desk.find(report(paid, 1, 8_000_000))
    (surplus,) = await desk.items()
    await desk.allocate(surplus.suspense_id, "ord_2")
    if by_claim:
        rest = transfer(2, 2_000_000, sender=PAYER)
        await desk.apply(Verdict(await desk.claim("ord_2", 2, "mrc_2"), Outcome.FINAL, transfers=(rest,)))
    else:
        await desk.find(report(own, 2, 2_000_000))
    assert (await desk.state("ord_2", "mrc_2"), await desk.suspense("mrc_2")) == (
        "PAID",
        [("underpaid", "ALLOCATED", 3_000_000)],
    )
    assert await desk.booked() == {
        "ORDER_PAID": 2 * FIVE,
        "SUSPENSE_RECEIVED": 3_000_000,
        "SUSPENSE_RELEASED": 3_000_000,
    }
    await desk.check()


async def test_a_part_that_came_back_is_completed(desk: Operator) -> None:
    """What the chain took back and gave again is allocated as a part of another order, which the rest then pays."""
    first = await address(desk, "ord_1", amount_minor=2_000_000)
    await desk.find(report(first, 1, 2_000_000))
    await desk.find(report(first, 1, 2_000_000, state=REVERSED, version=2))
    await desk.find(report(first, 1, 2_000_000, version=3))
    own = await address(desk, "ord_2")
    (back,) = await desk.items(state=orders_pb2.SUSPENSE_STATE_OPEN)
    await desk.allocate(back.suspense_id, "ord_2")
    await desk.find(report(own, 2, 3_000_000))
    assert await desk.state("ord_2", "mrc_2") == "PAID"
    await desk.check()


@pytest.mark.parametrize("to_wallet", [False, True])
async def test_a_part_of_the_same_transaction_holds_up_no_report(desk: Operator, to_wallet: bool) -> None:
    """One transaction pays a crumb to one order and another order in full: the second, reported later, is paid."""
    crumb = await address(desk, "ord_1")
    if to_wallet:
        await desk.suite.create("ord_2")
    merchant, to = ("mrc_1", WALLET) if to_wallet else ("mrc_2", await address(desk, "ord_2"))
    assert len(await desk.find(report(crumb, 1, 1))) == 1
    assert len(await desk.find(report(to, 1, log_index=1))) == 1
    assert (await desk.state("ord_1", "mrc_2"), await desk.state("ord_2", merchant)) == ("PENDING", "PAID")
    await desk.check()
