"""Transfers that the verifier finds on the addresses of orders' own, on a real database."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from kit.errors import Fault
from local.process import until
from orders.domain import Outcome, Verdict
from orders.workflow import settlement
from ospay.orders.v1 import orders_pb2
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.conftest import Suite  # type: ignore[import-not-found]
from services.orders.tests.desk import (  # type: ignore[import-not-found]
    CHAINS,
    FINAL,
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
    xpub_merchant,
)
from services.orders.tests.played import PlayedVerifier  # type: ignore[import-not-found]

MINUTES = timedelta(minutes=1)


@pytest.fixture
def settings(verifier: PlayedVerifier) -> dict[str, object]:
    return {"verifier_target": f"127.0.0.1:{verifier.server.port}", "chains_file": CHAINS}


@pytest.fixture
async def desk(suite: Suite) -> Desk:
    await xpub_merchant(suite)
    return Desk(suite)


async def order(desk: Desk, order_id: str = "ord_1", **fields: object) -> str:
    """An order of 5 USDT; returns its address."""
    created = await desk.suite.create(order_id, **fields)
    return str(created.order.deposit_address)


async def refund(desk: Desk, order_id: str = "ord_1", **fields: object) -> orders_pb2.RefundOrderResponse:
    request = orders_pb2.RefundOrderRequest(
        merchant_id="mrc_1", order_id=order_id, refund_id="r1", reason="asked", **fields
    )
    response: orders_pb2.RefundOrderResponse = await desk.suite.peer.call(
        desk.suite.orders.RefundOrder, request, timeout=5
    )
    return response


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


async def test_a_reversed_payment_is_an_incident(desk: Desk) -> None:
    """Taken back past finality: PAID with the fact beside it, booked back, neither refundable nor settled."""
    address = await order(desk)
    await desk.find(report(address, 1, 8_000_000))
    await desk.find(report(address, 1, 8_000_000, REVERSED, version=2))
    taken = await desk.suite.get()
    assert (await desk.state(), taken.received_minor, taken.reversed_minor) == ("PAID", FIVE, FIVE)
    assert await desk.payments() == [("REVERSED", FIVE, "")]
    assert await desk.suspense() == [("surplus", "REVERSED", 3_000_000)]
    booked = await desk.booked()
    assert (booked["PAYMENT_REVERSED"], booked["SUSPENSE_RELEASED"]) == (FIVE, 3_000_000)
    with pytest.raises(Fault) as caught:
        await refund(desk)
    assert caught.value.reason == "refund_exceeds_received"
    assert await settlement.settle(desk.suite.database, timedelta(0), 100) == 0
    await desk.check()


async def test_what_is_left_after_a_reversal_is_refundable(desk: Desk) -> None:
    """Of an order paid in two parts, one of them taken back, the other can be refunded: then nothing is left."""
    address = await order(desk)
    await desk.find(report(address, 1, 2_000_000), report(address, 2, 3_000_000, block_number=102))
    await desk.find(report(address, 1, 2_000_000, REVERSED, version=2))
    done = await refund(desk)
    assert (done.amount_minor, done.state) == (3_000_000, orders_pb2.ORDER_STATE_REFUNDED)
    await desk.find(report(address, 2, 3_000_000, REVERSED, version=2, block_number=102))
    assert (await desk.suite.get()).reversed_minor == FIVE
    await desk.check()


async def test_a_reversal_at_once_is_booked_once(desk: Desk) -> None:
    """The same incident told by several replicas takes back one payment once."""
    address = await order(desk)
    await desk.find(report(address))
    await asyncio.gather(*(desk.find(report(address, state=REVERSED, version=2)) for _ in range(6)))
    assert postings_of(await desk.postings(), "PAYMENT_REVERSED") == [("ord_1", FIVE)]
    await desk.check()


async def test_a_reversed_part_is_no_part(desk: Desk) -> None:
    """What was held for an open order and is taken back is not received any more, and the order takes the next."""
    address = await order(desk)
    await desk.find(report(address, 1, 2_000_000))
    await desk.find(report(address, 1, 2_000_000, REVERSED, version=2))
    assert ((await desk.suite.get()).received_minor, await desk.state()) == (0, "PENDING")
    await desk.find(report(address, 2))
    assert await desk.state() == "PAID"
    await desk.check()


async def test_what_was_reversed_and_comes_back_is_for_the_operator(desk: Desk) -> None:
    """Back in another block under another log, or in the same: in suspense, once for each time it was taken back."""
    address = await order(desk)
    back = {"block_hash": tx(97), "block_number": 105, "log_index": 3}
    await desk.find(report(address))
    await desk.find(report(address, state=REVERSED, version=2))
    await desk.find(report(address, **back))
    assert await desk.suspense() == [("reappeared", "OPEN", FIVE)]
    await desk.find(report(address, state=REVERSED, version=2, **back))
    await desk.find(report(address, version=3))
    assert await desk.suspense() == [("reappeared", "REVERSED", FIVE), ("reappeared", "OPEN", FIVE)]
    assert (await desk.suite.get()).reversed_minor == FIVE
    await desk.check()


async def test_a_part_that_is_reversed_and_comes_back_is_not_lost(desk: Desk) -> None:
    """A part that was held first, paid then, was taken back and came back: in suspense, in one more row."""
    address = await order(desk)
    await desk.find(report(address, 1, 2_000_000), report(address, 2, 3_000_000, block_number=102))
    await desk.find(report(address, 1, 2_000_000, REVERSED, version=2))
    await desk.find(report(address, 1, 2_000_000, version=3))
    assert await desk.suspense() == [("underpaid", "REVERSED", 2_000_000), ("reappeared", "OPEN", 2_000_000)]
    assert ((await desk.suite.get()).received_minor, (await desk.suite.get()).reversed_minor) == (FIVE, 2_000_000)
    await desk.check()


@pytest.mark.parametrize("log_index", [0, 4])
@pytest.mark.parametrize("word", [GONE, REVERSED])
async def test_a_payment_that_only_moved_stays(desk: Desk, word: verifier_pb2.SightingState, log_index: int) -> None:
    """A reorganisation past finality that only moves the transfer changes nothing, told in whatever order."""
    for name, in_order in (("ord_1", True), ("ord_2", False)):
        address = await order(desk, name)
        number = 1 if in_order else 2
        moved = {"block_hash": tx(97), "block_number": 105, "log_index": log_index}
        await desk.find(report(address, number))
        words = [report(address, number, **moved), report(address, number, state=word, version=2)]
        for each in words if in_order or word == REVERSED else words[::-1]:
            await desk.find(each)
        told = await desk.suite.get(name)
        assert (await desk.state(name), told.received_minor, told.reversed_minor) == ("PAID", FIVE, 0)
        assert await desk.payments(name) == [("CREDITED", FIVE, "")]
        assert await desk.suspense() == []
    await desk.check()


async def test_one_of_two_like_transfers_can_be_taken_back(desk: Desk) -> None:
    """Two equal transfers of one transaction, one of which is on the chain no more: one is taken back, one stays."""
    address = await order(desk)
    both = [report(address, 1, 2_500_000, log_index=index) for index in range(2)]
    await desk.find(*both)
    await desk.find(report(address, 1, 2_500_000, REVERSED, version=2, log_index=1))
    assert sorted(await desk.payments()) == [("CREDITED", 2_500_000, ""), ("REVERSED", 2_500_000, "")]
    await desk.check()


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


async def test_random_histories_keep_the_books(desk: Desk) -> None:
    """Parts, claims, reversals, moves, repetitions in any order and at once: what is booked is what the rows say."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)  # not for secrets
    print(f"seed {seed}")  # noqa: T201  # shown when this fails
    addresses = {name: await order(desk, name) for name in ("ord_1", "ord_2", "ord_3")}
    told: list[verifier_pb2.Report] = []
    claims = []
    for number in range(1, 13):
        name = chance.choice(list(addresses))
        amount = chance.choice([1_000_000, 2_500_000, FIVE, 7_000_000])
        fields: dict[str, object] = {"block_number": 100 + number, "sender": PAYER}
        told.append(report(addresses[name], number, amount, chance.choice([SEEN, FINAL]), **fields))
        later = [FINAL, GONE] if told[-1].state == SEEN else [REVERSED, GONE]
        told.append(report(addresses[name], number, amount, chance.choice(later), version=2, **fields))
        if chance.random() < 0.4:
            verdict = Verdict(
                await desk.claim(name, number), Outcome.FINAL, transfers=(transfer(number, amount, **fields),)
            )
            claims.append(verdict)
    chance.shuffle(told)
    work = [desk.find(*told[start : start + 5]) for start in range(0, len(told), 5)]
    await asyncio.gather(*work, *(desk.apply(verdict) for verdict in claims), desk.find(*told[::3]))
    await desk.check()
