"""A claim beside what the verifier finds on a wallet that orders share."""

from __future__ import annotations

import asyncio

import pytest

from orders.domain import Outcome, Verdict
from services.orders.tests.conftest import WALLET  # type: ignore[import-not-found]
from services.orders.tests.desk import (  # type: ignore[import-not-found]
    FIVE,
    PAYER,
    REVERSED,
    SEEN,
    Desk,
    expire_by_hand,
    postings_of,
    report,
    transfer,
    tx,
)
from services.orders.tests.shared_wallet.scene import final  # type: ignore[import-not-found]


async def test_a_claim_for_an_expired_order_takes_nothing(desk: Desk) -> None:
    """Claimed first for an order that expired long ago, a transfer pays the open order that it plainly fits."""
    await desk.suite.create("ord_1")
    await desk.suite.create("old")
    await desk.owner(
        """
        UPDATE orders SET state = 'EXPIRED', created_at = now() - interval '3 days',
               expires_at = now() - interval '2 days', created_block = 50 WHERE id = 'old'
        """
    )
    await desk.apply(final(await desk.claim("old")))
    assert ((await desk.suite.get("old")).last_claim.reason, await desk.booked()) == ("late", {})
    await desk.find(report(WALLET))
    assert [await desk.state("ord_1"), await desk.state("old")] == ["PAID", "EXPIRED"]
    assert (await desk.booked(), await desk.suspense()) == ({"ORDER_PAID": FIVE}, [])
    await desk.check()


async def test_late_money_that_is_claimed_first_is_held_by_its_report(desk: Desk) -> None:
    """A late claim moves nothing; what is found then is late for the order, or unattributed, and held in any case."""
    await desk.suite.create()
    await expire_by_hand(desk, "ord_1")
    await desk.expire()
    for number in (1, 2):
        await desk.apply(final(await desk.claim(number=number), number))
    assert await desk.booked() == {}
    await desk.find(report(WALLET, 1))
    await desk.owner("UPDATE orders SET created_at = now() - interval '26 h', expires_at = now() - interval '25 h'")
    await desk.find(report(WALLET, 2))
    assert sorted(await desk.suspense()) == [("late", "OPEN", FIVE), ("unattributed", "OPEN", FIVE)]
    await desk.check()


async def test_a_late_claim_tells_nothing_of_what_others_may_be_paid_by(desk: Desk) -> None:
    """An ambiguous transfer stays what it is when it is claimed for an expired order."""
    await desk.suite.create("old")
    await expire_by_hand(desk, "old")
    await desk.expire()
    await desk.suite.create("ord_1")
    await desk.find(report(WALLET))
    await desk.apply(final(await desk.claim("old")))
    assert await desk.suspense() == [("ambiguous", "OPEN", FIVE)]
    assert await desk.value("SELECT order_id FROM suspense") is None


@pytest.mark.parametrize(("chain", "amount_minor"), [("BSC", 6_000_000), ("ETH", FIVE), ("BSC", FIVE)])
async def test_no_claim_keeps_a_transfer_from_being_told(desk: Desk, chain: str, amount_minor: int) -> None:
    """Claimed for an order that it cannot pay, or for its own: seen, the order waits for it; final, it is PAID."""
    await desk.suite.create("ord_1")
    name = "ord_1"
    if (chain, amount_minor) != ("BSC", FIVE):
        name = "other"
        await desk.suite.create(name, chain=chain, amount_minor=amount_minor)
    claim = await desk.claim(name)
    await desk.apply(Verdict(claim, Outcome.WAITING, "not_found"))
    assert len(await desk.find(report(WALLET, state=SEEN))) == 1
    assert await desk.state() == "CONFIRMING"
    assert len(await desk.find(report(WALLET, version=2))) == 1
    assert (await desk.state(), await desk.suspense()) == ("PAID", [])
    await desk.check()


async def test_a_claim_decides_after_the_report_as_before_it(desk: Desk) -> None:
    """Found final while the claim is open: of two orders that it fits the claimed one is paid in the end, once."""
    await desk.suite.create("ord_1")
    await desk.suite.create("ord_2")
    claim = await desk.claim("ord_2")
    await desk.find(report(WALLET))
    await desk.apply(final(claim))
    assert [await desk.state("ord_1"), await desk.state("ord_2")] == ["PENDING", "PAID"]
    assert await desk.suspense() == [("ambiguous", "ALLOCATED", FIVE)]
    await desk.check()


async def test_the_rest_of_a_claimed_batch_is_decided(desk: Desk) -> None:
    """One transaction, two transfers, one claim: the claim takes one, the watcher decides on the other."""
    await desk.suite.create("ord_1")
    both = [report(WALLET, log_index=index) for index in range(2)]
    claim = await desk.claim()
    moved = tuple(transfer(log_index=index, sender=PAYER) for index in range(2))
    await desk.apply(Verdict(claim, Outcome.FINAL, transfers=moved))
    assert len(await desk.find(*both)) == 2
    assert (await desk.state(), await desk.suspense()) == ("PAID", [("unattributed", "OPEN", FIVE)])
    await desk.check()


async def test_what_a_claim_has_told_leaves_no_row(desk: Desk) -> None:
    """Seen and final when a claim has paid: both may be confirmed, and a reversal still takes back."""
    await desk.suite.create()
    await desk.apply(final(await desk.claim()))
    assert len(await desk.find(report(WALLET, state=SEEN))) == 1
    assert len(await desk.find(report(WALLET, version=2))) == 1
    assert await desk.value("SELECT count(*) FROM sightings") == 0
    assert await desk.payments() == [("CREDITED", FIVE, "")]
    await desk.find(report(WALLET, state=REVERSED, version=3))
    assert (await desk.suite.get()).reversed_minor == FIVE
    await desk.check()


async def test_claimed_payments_that_move_one_after_the_other_stay(desk: Desk) -> None:
    """Two like transfers of one transaction, paid by claims before they were told as found, move to another block."""
    moved = tuple(transfer(log_index=index, sender=PAYER) for index in range(2))
    for name in ("ord_1", "ord_2"):
        await desk.suite.create(name)
        await desk.apply(Verdict(await desk.claim(name), Outcome.FINAL, transfers=moved))
    elsewhere = {"block_hash": tx(97), "block_number": 105}
    for index in range(2):
        await desk.find(report(WALLET, log_index=index, **elsewhere))
        await desk.find(report(WALLET, state=REVERSED, version=2, log_index=index))
    assert [(await desk.suite.get(name)).reversed_minor for name in ("ord_1", "ord_2")] == [0, 0]
    await desk.find(report(WALLET, state=REVERSED, version=2, **elsewhere))
    assert sum([(await desk.suite.get(name)).reversed_minor for name in ("ord_1", "ord_2")]) == FIVE
    await desk.check()


async def test_a_claim_and_a_report_at_once_pay_once(desk: Desk) -> None:
    """Raced on many wallets' orders: each transfer pays one order once, or is in suspense once."""
    names = [f"race_{number}" for number in range(10)]
    verdicts, reports = [], []
    for number, name in enumerate(names, 1):
        await desk.suite.create(name, amount_minor=1_000_000 + number)
        verdicts.append(final(await desk.claim(name, number), number, amount_minor=1_000_000 + number))
        reports.append(report(WALLET, number, 1_000_000 + number))
    await asyncio.gather(desk.find(*reports), *(desk.apply(verdict) for verdict in verdicts), desk.find(*reports[::-1]))
    await desk.find(*reports)
    assert [await desk.state(name) for name in names] == ["PAID"] * 10
    assert (await desk.suspense(), await desk.value("SELECT count(*) FROM payments")) == ([], 10)
    await desk.check()


async def test_claims_race_for_what_is_in_suspense(desk: Desk) -> None:
    """Two orders claim one ambiguous transfer at once: one gets it, the other is told that it is used."""
    verdicts = []
    await desk.suite.create("ord_1")
    await desk.suite.create("ord_2")
    await desk.find(report(WALLET))
    for name in ("ord_1", "ord_2"):
        verdicts.append(final(await desk.claim(name)))
    await asyncio.gather(*(desk.apply(verdict) for verdict in verdicts * 3))
    assert sorted([await desk.state("ord_1"), await desk.state("ord_2")]) == ["PAID", "PENDING"]
    reasons = await desk.value("SELECT array_agg(reason ORDER BY reason) FROM claims")
    assert reasons == ["", "already_used"]
    assert await desk.suspense() == [("ambiguous", "ALLOCATED", FIVE)]
    await desk.check()


async def test_a_final_claim_on_an_unfit_transfer_leaves_it_in_suspense(desk: Desk) -> None:
    """A claim that does not fit takes nothing out of suspense."""
    await desk.find(report(WALLET))
    await desk.suite.create("ord_1", amount_minor=6_000_000)
    await desk.apply(final(await desk.claim()))
    assert (await desk.state(), await desk.suspense()) == ("PENDING", [("unattributed", "OPEN", FIVE)])
    assert postings_of(await desk.postings(), "SUSPENSE_RELEASED") == []


async def test_claims_of_an_expired_and_an_open_order_at_once(desk: Desk) -> None:
    """Of two claims on one transfer that are decided at once one pays; it is not held as late money as well."""
    pairs = range(1, 21)
    for number in pairs:
        await desk.suite.create(f"old_{number}", amount_minor=FIVE + number)
        await expire_by_hand(desk, f"old_{number}")
    await desk.expire()
    for number in pairs:
        await desk.suite.create(f"new_{number}", amount_minor=FIVE + number)
        claims = [await desk.claim(f"{name}_{number}", number) for name in ("old", "new")]
        verdicts = [final(claim, number, amount_minor=FIVE + number) for claim in claims]
        await asyncio.gather(*(desk.apply(verdict) for verdict in verdicts))
        assert await desk.state(f"new_{number}") == "PAID"
    assert {state for _, state, _ in await desk.suspense()} <= {"ALLOCATED"}
    await desk.check()
