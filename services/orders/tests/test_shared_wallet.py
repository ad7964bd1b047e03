"""Transfers that the verifier finds on a wallet that orders share: they pay where it is plain, and are held else."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from local.process import until
from orders.domain import Outcome, Verdict
from ospay.orders.v1 import orders_pb2
from services.orders.tests.conftest import WALLET, Suite  # type: ignore[import-not-found]
from services.orders.tests.desk import (  # type: ignore[import-not-found]
    CHAINS,
    FIVE,
    GONE,
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
from services.orders.tests.played import PlayedVerifier  # type: ignore[import-not-found]

OTHER = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"


@pytest.fixture
def settings(verifier: PlayedVerifier) -> dict[str, object]:
    return {"verifier_target": f"127.0.0.1:{verifier.server.port}", "chains_file": CHAINS}


@pytest.fixture
async def desk(suite: Suite) -> Desk:
    await suite.merchant()
    return Desk(suite)


def final(claim: object, number: int = 1, **fields: object) -> Verdict:
    moved = transfer(number, **{"sender": PAYER, **fields})
    return Verdict(claim, Outcome.FINAL, transfers=(moved,))  # type: ignore[arg-type]


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


async def test_a_final_claim_on_an_unfit_transfer_leaves_it_in_suspense(desk: Desk) -> None:
    """A claim that does not fit takes nothing out of suspense."""
    await desk.find(report(WALLET))
    await desk.suite.create("ord_1", amount_minor=6_000_000)
    await desk.apply(final(await desk.claim()))
    assert (await desk.state(), await desk.suspense()) == ("PENDING", [("unattributed", "OPEN", FIVE)])
    assert postings_of(await desk.postings(), "SUSPENSE_RELEASED") == []


async def test_a_report_from_before_the_registration_waits_for_nobody(desk: Desk) -> None:
    """A transfer that is older than every order is in suspense, not somebody's payment."""
    await desk.suite.create("ord_1")
    old = datetime.now(UTC) - timedelta(days=2)
    await desk.find(report(WALLET, block_number=5, block_time=old))
    assert (await desk.state(), await desk.suspense()) == ("PENDING", [("unattributed", "OPEN", FIVE)])


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


# A statement that takes too long, at once: `{tx}` is the transaction that it takes too long for.
TOO_SLOW = """
    CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'too slow' USING ERRCODE = 'query_canceled'; END $$;
    CREATE TRIGGER poison BEFORE INSERT ON payments FOR EACH ROW WHEN (NEW.tx_hash = '{tx}') EXECUTE FUNCTION poison()
"""
REFUSED = "ALTER TABLE payments ADD CONSTRAINT poison CHECK (tx_hash <> '{tx}')"
CURES = {REFUSED: "ALTER TABLE payments DROP CONSTRAINT poison", TOO_SLOW: "DROP TRIGGER poison ON payments"}


@pytest.mark.parametrize("poison", [REFUSED, TOO_SLOW], ids=["refused", "too slow"])
async def test_a_verdict_that_cannot_be_applied_holds_up_no_other(desk: Desk, poison: str) -> None:
    """The others of its batch are applied, its claim stays open with its debt, and pays when it can."""
    names = [f"ord_{number}" for number in range(1, 8)]
    for name in names:
        await desk.suite.create(name)
    verdicts = [final(await desk.claim(name, number), number) for number, name in enumerate(names, 1)]
    await desk.owner(poison.format(tx=tx(3)))
    await desk.apply(*verdicts)
    assert [await desk.state(name) for name in names] == [*["PAID"] * 2, "PENDING", *["PAID"] * 4]
    assert await desk.value("SELECT count(*) FROM outbox WHERE event_id = $1", verdicts[2].claim_id) == 1
    await desk.owner(CURES[poison])
    await desk.apply(verdicts[2])
    assert await desk.state("ord_3") == "PAID"
    await desk.check()


@pytest.mark.parametrize("poison", [REFUSED, TOO_SLOW], ids=["refused", "too slow"])
async def test_a_report_that_cannot_be_applied_holds_up_no_other(
    desk: Desk, verifier: PlayedVerifier, poison: str
) -> None:
    """The others that are taken with it are applied and confirmed, it is told again, and pays when it can."""
    names = [f"ord_{number}" for number in range(1, 8)]
    for number, name in enumerate(names, 1):
        await desk.suite.create(name, amount_minor=FIVE + number)
    await desk.owner(poison.format(tx=tx(3)))
    verifier.reports = [report(WALLET, number, FIVE + number) for number in range(1, 8)]

    async def are_left(count: int) -> bool:
        return len(verifier.reports) == count

    await until(lambda: are_left(1), "the others to be confirmed")
    assert [await desk.state(name) for name in names] == [*["PAID"] * 2, "PENDING", *["PAID"] * 4]
    await desk.owner(CURES[poison])
    await until(lambda: are_left(0), "the last one to be confirmed")
    assert await desk.state("ord_3") == "PAID"
    await desk.check()
