"""A claim on what the verifier finds as well."""

from __future__ import annotations

from collections import Counter

import pytest

from orders.domain import Outcome, Verdict
from ospay.orders.v1 import orders_pb2
from services.orders.tests.desk import FIVE, PAYER, Desk, report, transfer  # type: ignore[import-not-found]
from services.orders.tests.found.scene import order  # type: ignore[import-not-found]


@pytest.mark.parametrize("first", ["claim", "report"])
async def test_a_claim_and_a_report_count_once(desk: Desk, first: str) -> None:
    """Whoever is first: the transfer is credited once, and the claim is accepted."""
    address = await order(desk)
    claim = await desk.claim()
    verdict = Verdict(claim, Outcome.FINAL, transfers=(transfer(1, 2_000_000, sender=PAYER),))
    if first == "claim":
        await desk.apply(verdict)
    await desk.find(report(address, 1, 2_000_000))
    await desk.apply(verdict)
    assert (await desk.suite.get()).last_claim.state == orders_pb2.CLAIM_STATE_ACCEPTED
    assert (await desk.suite.get()).received_minor == 2_000_000
    assert await desk.suspense() == [("underpaid", "OPEN", 2_000_000)]
    await desk.check()


async def test_a_claim_applies_all_its_transfers(desk: Desk) -> None:
    """Two transfers of one transaction to one order's address add up, though only one claim was made."""
    await order(desk)
    claim = await desk.claim()
    both = tuple(transfer(1, 2_500_000, log_index=index, sender=PAYER) for index in range(2))
    await desk.apply(Verdict(claim, Outcome.FINAL, transfers=both))
    assert (await desk.state(), (await desk.suite.get()).received_minor) == ("PAID", FIVE)
    await desk.check()


async def test_an_order_holds_a_thousand_parts(desk: Desk) -> None:
    """More dust than that is in suspense and does not count for it; what completes the order pays, in the same batch
    as another order."""
    address, other = await order(desk), await order(desk, "ord_2")
    dust = [report(address, number, 1, block_number=101 + number) for number in range(1, 1003)]
    for start in range(0, len(dust), 200):
        await desk.find(*dust[start : start + 200])
    assert (await desk.suite.get()).received_minor == 1000
    await desk.find(report(address, 2001, FIVE - 1000), report(other, 2002))
    paid = await desk.suite.get()
    assert (await desk.state(), paid.received_minor, await desk.state("ord_2")) == ("PAID", FIVE, "PAID")
    assert Counter(await desk.suspense()) == {("underpaid", "ALLOCATED", 1): 1000, ("unattributed", "OPEN", 1): 2}
    await desk.check()


async def test_a_claim_on_an_old_transfer_records_nothing(desk: Desk) -> None:
    """What reached the address before it was the order's is refused, and is nobody's suspense on a claimant's word."""
    await order(desk)
    claim = await desk.claim()
    await desk.apply(Verdict(claim, Outcome.FINAL, transfers=(transfer(1, block_number=99),)))
    assert (await desk.suite.get()).last_claim.reason == "mined_before_order"
    assert (await desk.suspense(), await desk.booked()) == ([], {})


async def test_a_word_that_comes_after_the_payment_accepts_the_claim(desk: Desk) -> None:
    """A claim whose verification lags behind the watcher is right, even when its node knows nothing yet."""
    address = await order(desk)
    claim = await desk.claim()
    await desk.find(report(address))
    await desk.apply(Verdict(claim, Outcome.WAITING, "not_found"))
    assert (await desk.suite.get()).last_claim.state == orders_pb2.CLAIM_STATE_ACCEPTED
