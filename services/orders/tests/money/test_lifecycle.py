"""Verdicts, refunds, settlement and expiry on a real database."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta

import pytest

from kit.database import Connection, Database
from kit.errors import Fault
from local.process import until
from orders.domain import Outcome, Verdict
from orders.workflow import claims, settlement
from orders.workflow import orders as workflow
from ospay.orders.v1 import orders_pb2
from services.orders.tests.conftest import WALLET  # type: ignore[import-not-found]
from services.orders.tests.desk import (  # type: ignore[import-not-found]
    LATER,
    Desk,
    expire_by_hand,
    report,
    transfer,
    tx,
)
from services.orders.tests.money.scene import OWED, refund  # type: ignore[import-not-found]


async def test_a_final_transfer_pays_once_whatever_is_repeated(desk: Desk) -> None:
    """The same verdict many times, at once and later, pays once and leaves one debt."""
    claim = await desk.claim()
    verdict = Verdict(claim, Outcome.FINAL, transfers=(transfer(),))
    await asyncio.gather(*(desk.apply(verdict, verdict) for _ in range(8)))
    await desk.apply(verdict)
    order = await desk.suite.get()
    assert (await desk.state(), order.received_minor, order.tx_hash) == ("PAID", 5_000_000, tx(1))
    assert await desk.value("SELECT count(*) FROM payments") == 1
    assert await desk.value(OWED.replace("count(*)", "array_agg(subject)")) == ["ospay.orders.v1.order_paid"]


async def test_one_transfer_never_pays_two_orders(desk: Desk) -> None:
    """Two orders that claim the same transaction at once: one is paid, the other is told why not."""
    await desk.suite.create("ord_2")
    verdicts = [Verdict(await desk.claim(name), Outcome.FINAL, transfers=(transfer(),)) for name in ("ord_1", "ord_2")]
    await asyncio.gather(*(desk.apply(verdict) for verdict in verdicts))
    assert sorted([await desk.state("ord_1"), await desk.state("ord_2")]) == ["PAID", "PENDING"]
    reasons = await desk.value("SELECT array_agg(reason ORDER BY reason) FROM claims")
    assert reasons == ["", "already_used"]


async def test_two_transfers_of_one_transaction_pay_two_orders(desk: Desk) -> None:
    """Identity includes the log: a batch payment pays each order with its own transfer."""
    await desk.suite.create("ord_2")
    both = (transfer(), transfer(log_index=1))
    verdicts = [Verdict(await desk.claim(name), Outcome.FINAL, transfers=both) for name in ("ord_1", "ord_2")]
    await desk.apply(*verdicts)
    assert [await desk.state("ord_1"), await desk.state("ord_2")] == ["PAID", "PAID"]


async def test_confirming_comes_and_goes(desk: Desk) -> None:
    """A sighting shows CONFIRMING; when it is taken back the order is PENDING again, unless another claim confirms."""
    first, second = await desk.claim(number=1), await desk.claim(number=2)
    seen = [
        Verdict(claim, Outcome.WAITING, "not_final", (transfer(number),), block_number=101, head_number=102)
        for claim, number in ((first, 1), (second, 2))
    ]
    await desk.apply(seen[0])
    assert await desk.state() == "CONFIRMING"
    await desk.apply(seen[1])
    await desk.apply(Verdict(first, Outcome.WAITING, "not_found", head_number=103))
    assert await desk.state() == "CONFIRMING"
    await desk.apply(Verdict(second, Outcome.REJECTED, "tx_failed"))
    assert await desk.state() == "PENDING"


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("reason", ["not_found", "chain_unavailable"])
async def test_an_older_word_does_not_take_back_what_was_seen(desk: Desk, reason: str, at_once: bool) -> None:
    """Of a replica that lags, or told again: the order stays CONFIRMING until a look at a later head misses it."""
    claim = await desk.claim()
    seen = Verdict(claim, Outcome.WAITING, "not_final", (transfer(),), block_number=101, head_number=102)
    older = [Verdict(claim, Outcome.WAITING, reason, head_number=head) for head in (102, 100, None)]
    for batch in [[seen, *older]] if at_once else [[seen], *([each] for each in older)]:
        await desk.apply(*batch)
    told = await desk.suite.get()
    assert (await desk.state(), told.last_claim.reason, told.confirming.confirmations) == ("CONFIRMING", "not_final", 2)
    await desk.apply(Verdict(claim, Outcome.WAITING, reason, head_number=103))
    assert (await desk.state(), (await desk.suite.get()).last_claim.reason) == ("PENDING", reason)


async def test_a_late_word_cannot_take_back_a_payment(desk: Desk) -> None:
    """Verdicts out of order: what is paid stays paid."""
    claim = await desk.claim()
    await desk.apply(Verdict(claim, Outcome.FINAL, transfers=(transfer(),)))
    await desk.apply(Verdict(claim, Outcome.WAITING, "not_found"), Verdict(claim, Outcome.REJECTED, "tx_failed"))
    assert await desk.state() == "PAID"


async def test_refunds_add_up_and_replay(desk: Desk) -> None:
    """Partial refunds add up to REFUNDED; each replays its first answer; too much is refused."""
    await desk.pay()
    first = await refund(desk.suite, "r1", amount_minor=2_000_000)
    assert (first.refunded_minor, first.state, first.replayed) == (2_000_000, orders_pb2.ORDER_STATE_PAID, False)
    with pytest.raises(Fault) as caught:
        await refund(desk.suite, "r2", amount_minor=3_000_001)
    assert caught.value.reason == "refund_exceeds_received"
    rest = await refund(desk.suite, "r3")
    assert (rest.amount_minor, rest.state) == (3_000_000, orders_pb2.ORDER_STATE_REFUNDED)
    again = await refund(desk.suite, "r1", amount_minor=2_000_000)
    assert (again.state, again.refunded_minor, again.replayed) == (orders_pb2.ORDER_STATE_PAID, 2_000_000, True)
    with pytest.raises(Fault) as caught:
        await refund(desk.suite, "r1", amount_minor=1)
    assert caught.value.reason == "idempotency_mismatch"
    with pytest.raises(Fault) as caught:
        await refund(desk.suite, "r4")
    assert (caught.value.reason, caught.value.metadata) == ("order_not_refundable", {"status": "REFUNDED"})


async def test_racing_refunds_never_exceed(desk: Desk) -> None:
    """Twenty refunds of a fifth of the amount at once: exactly five succeed."""
    await desk.pay()
    results = await asyncio.gather(
        *(refund(desk.suite, f"r{number}", amount_minor=1_000_000) for number in range(20)), return_exceptions=True
    )
    assert sum(not isinstance(item, BaseException) for item in results) == 5
    assert await desk.value("SELECT sum(amount_minor)::bigint FROM refunds") == 5_000_000
    assert await desk.state() == "REFUNDED"


async def test_the_same_refund_at_once_is_one(desk: Desk) -> None:
    """Equal refund requests at once record one refund and one debt."""
    await desk.pay()
    results = await asyncio.gather(*(refund(desk.suite, "r1", amount_minor=1_000_000) for _ in range(10)))
    assert sorted(item.replayed for item in results) == [False] + [True] * 9  # type: ignore[attr-defined]
    assert await desk.value("SELECT count(*) FROM outbox WHERE subject = 'ospay.orders.v1.order_refunded'") == 1


async def test_one_refund_id_on_two_orders_is_one(desk: Desk) -> None:
    """The id is the merchant's: on a second order, at the same time, it is a mismatch."""
    await desk.suite.create("ord_2")
    await desk.pay("ord_1", 1)
    await desk.pay("ord_2", 2)
    results = await asyncio.gather(
        refund(desk.suite, "r1", "ord_1"), refund(desk.suite, "r1", "ord_2"), return_exceptions=True
    )
    assert [item.reason for item in results if isinstance(item, Fault)] == ["idempotency_mismatch"]
    assert await desk.value("SELECT count(*) FROM refunds") == 1


async def test_an_unpaid_order_is_not_refundable(desk: Desk) -> None:
    """The refusal names the state."""
    with pytest.raises(Fault) as caught:
        await refund(desk.suite)
    assert (caught.value.reason, caught.value.metadata) == ("order_not_refundable", {"status": "PENDING"})


async def test_settlement_writes_batches_that_add_up(desk: Desk) -> None:
    """Replicas that settle at once settle every order once, and the batches hold what was left of each."""
    for number in range(2, 12):
        await desk.suite.create(f"ord_{number}")
    for number in range(1, 12):
        await desk.pay(f"ord_{number}", number)
    await refund(desk.suite, "part", "ord_1", amount_minor=1_000_000)
    await refund(desk.suite, "whole", "ord_2")
    nothing = await settlement.settle(desk.suite.database, LATER, 100)
    settled = await asyncio.gather(*(settlement.settle(desk.suite.database, timedelta(0), 3) for _ in range(8)))
    assert (nothing, sum(settled)) == (0, 10)
    request = orders_pb2.ListSettlementBatchesRequest(merchant_id="mrc_1")
    batches = (
        await desk.suite.peer.call(desk.suite.orders.ListSettlementBatches, request, timeout=5)
    ).settlement_batches
    assert sum(item.order_count for item in batches) == 10
    assert sum(int(item.total_minor) for item in batches) == 10 * 5_000_000 - 1_000_000
    assert [await desk.state("ord_1"), await desk.state("ord_2")] == ["SETTLED", "REFUNDED"]
    with pytest.raises(Fault) as caught:
        await refund(desk.suite, "late", "ord_1")
    assert caught.value.metadata == {"status": "SETTLED"}


async def test_settlement_and_refund_exclude_each_other(desk: Desk) -> None:
    """Raced, an order ends either SETTLED or REFUNDED, and its refund exists only in the second case."""
    for number in range(2, 22):
        await desk.suite.create(f"ord_{number}")
    for number in range(1, 22):
        await desk.pay(f"ord_{number}", number)
    names = [f"ord_{number}" for number in range(1, 22)]
    await asyncio.gather(
        *(refund(desk.suite, name, name) for name in names),
        *(settlement.settle(desk.suite.database, timedelta(0), 2) for _ in range(12)),
        return_exceptions=True,
    )
    refunded = await desk.value("SELECT array_agg(order_id ORDER BY order_id) FROM refunds") or []
    ended = await desk.value("SELECT array_agg(id ORDER BY id) FROM orders WHERE state = 'REFUNDED'") or []
    assert refunded == ended


async def test_an_order_expires_unless_a_claim_is_to_be_decided(desk: Desk) -> None:
    """Past its time an order expires; a claim nobody has looked at holds it, one on an unknown transaction does not."""
    await desk.suite.create("ord_2")
    claim = await desk.claim("ord_2", 2)
    await expire_by_hand(desk, "ord_2")
    await expire_by_hand(desk, "ord_1")
    # The one that is held comes first, and does not fill the limit.
    (due,) = await workflow.due(desk.suite.database, timedelta(0), [], None, 1)
    assert due.id == "ord_1"
    await desk.expire()
    assert [await desk.state("ord_1"), await desk.state("ord_2")] == ["EXPIRED", "PENDING"]
    await desk.apply(Verdict(claim, Outcome.WAITING, "not_found"))
    await desk.expire()
    assert await desk.state("ord_2") == "EXPIRED"


async def test_an_order_does_not_expire_past_a_claim_that_is_just_committed(desk: Desk) -> None:
    """A claim that is committed after the expiry began to look, and before it has locked the order, holds the order."""
    # The service sees no order, so that it expires none by itself. The test's own connections see one only while nobody
    # holds the lock: there the expiry stops, with the snapshot that it began with. The owner is not concerned.
    await desk.owner(
        """
        CREATE FUNCTION pass() RETURNS boolean LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN true; END';
        CREATE POLICY gate ON orders
            USING (CASE WHEN current_setting('application_name') = 'test' THEN pass() ELSE false END);
        ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
        """
    )
    await expire_by_hand(desk, "ord_1")
    owner = await Database.open(desk.suite.owner_url, application="owner", size=2)
    try:
        async with owner.transaction() as gate:
            await gate.execute("SELECT pg_advisory_xact_lock(1)")
            expiry = asyncio.create_task(workflow.expire(desk.suite.database, [("ord_1", "mrc_1")]))
            await until(lambda: _is_stopped(gate), "the expiry to come to the order")
            await claims.detect(owner, [claims.Asked(None, "ord_1", tx(1), "")], give_up_after=LATER, first_look=LATER)
        await expiry
        async with owner.connection() as connection:
            assert await connection.fetchval("SELECT state FROM orders") == "PENDING"
    finally:
        await owner.close()


async def _is_stopped(connection: Connection) -> bool:
    sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory' AND objid = 1"
    return bool(await connection.fetchval(sql))


async def test_late_money_is_recorded_once(desk: Desk) -> None:
    """Money for an expired order is shown on it and booked in suspense by its report; a claim on it adds nothing."""
    await expire_by_hand(desk, "ord_1")
    await desk.expire()
    claim = await desk.claim()
    verdict = Verdict(claim, Outcome.FINAL, transfers=(transfer(),))
    await desk.apply(verdict)
    await desk.find(report(WALLET, sender=WALLET))
    await desk.apply(verdict)
    order = await desk.suite.get()
    assert (await desk.state(), order.late_minor, order.received_minor) == ("EXPIRED", 5_000_000, 0)
    assert order.last_claim.reason == "late"
    assert await desk.suspense() == [("late", "OPEN", 5_000_000)]
    assert await desk.booked() == {"SUSPENSE_RECEIVED": 5_000_000}
    await desk.check()


async def test_random_histories_keep_the_promises(desk: Desk) -> None:
    """Any order of claims, verdicts and repetitions: a transfer pays at most one order, of exactly its amount."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)  # not for secrets
    print(f"seed {seed}")  # noqa: T201  # shown when this fails
    names = [f"rnd_{number}" for number in range(6)]
    for name in names:
        await desk.suite.create(name, amount_minor=chance.choice([1_000_000, 2_000_000]))
    verdicts: list[Verdict] = []
    for _ in range(40):
        number = chance.randrange(1, 8)
        try:
            claim = await desk.claim(chance.choice(names), number)
        except Fault:
            continue
        logs = tuple(
            transfer(number, chance.choice([1_000_000, 2_000_000, 3_000_000]), log_index=index)
            for index in range(chance.randrange(1, 3))
        )
        outcome = chance.choice([Outcome.FINAL, Outcome.FINAL, Outcome.WAITING])
        verdicts.append(Verdict(claim, outcome, "not_final" if outcome is Outcome.WAITING else "", logs, 101, 103))
    chance.shuffle(verdicts)
    for batch in _batches(verdicts + verdicts, chance):
        await desk.apply(*batch)
    assert await desk.value("SELECT count(*) FROM payments p JOIN orders o ON o.id = p.order_id") == await desk.value(
        "SELECT count(*) FROM orders WHERE state = 'PAID'"
    )
    wrong = """SELECT count(*) FROM payments p JOIN orders o ON o.id = p.order_id AND o.merchant_id = p.merchant_id
               WHERE p.amount_minor <> o.amount_minor OR p.amount_minor <> o.received_minor"""
    assert await desk.value(wrong) == 0


def _batches(verdicts: Sequence[Verdict], chance: random.Random) -> list[Sequence[Verdict]]:
    found, start = [], 0
    while start < len(verdicts):
        size = chance.randrange(1, 9)
        found.append(verdicts[start : start + size])
        start += size
    return found
