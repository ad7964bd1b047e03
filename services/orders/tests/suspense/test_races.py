"""Decisions, claims and reversals that meet on one item."""

from __future__ import annotations

import asyncio

from kit.errors import Fault
from local.process import until
from orders.domain import Outcome, Verdict
from ospay.orders.v1 import orders_pb2
from services.orders.tests.conftest import WALLET  # type: ignore[import-not-found]
from services.orders.tests.desk import FIVE, PAYER, REVERSED, report, transfer, tx  # type: ignore[import-not-found]
from services.orders.tests.suspense.operator import Operator, refused  # type: ignore[import-not-found]


async def test_decisions_on_one_item_exclude_each_other(desk: Operator) -> None:
    """Allocated, returned and claimed at once: one of them happens, and the books hold it once."""
    for number in range(1, 9):
        amount = 1_000_000 + number
        await desk.find(report(WALLET, number, amount))
        (item,) = await desk.items(state=orders_pb2.SUSPENSE_STATE_OPEN)
        await desk.suite.create(f"a{number}", amount_minor=amount)
        await desk.suite.create(f"b{number}", amount_minor=amount)
        claim = await desk.claim(f"b{number}", number)
        verdict = Verdict(claim, Outcome.FINAL, transfers=(transfer(number, amount, sender=PAYER),))
        results = await asyncio.gather(
            desk.allocate(item.suspense_id, f"a{number}"),
            desk.give_back(item.suspense_id),
            desk.apply(verdict),
            return_exceptions=True,
        )
        failed = [result.reason for result in results if isinstance(result, Fault)]
        assert set(failed) <= {"suspense_resolved"}
        assert not [result for result in results if isinstance(result, BaseException) and not isinstance(result, Fault)]
        states = [await desk.state(f"a{number}"), await desk.state(f"b{number}")]
        assert states.count("PAID") <= 1
        assert await desk.items(state=orders_pb2.SUSPENSE_STATE_OPEN) == []
    await desk.check()


async def test_a_reversal_meets_an_allocation(desk: Operator) -> None:
    """An item allocated while the chain takes it back is either released or reversed with its order, never lost."""
    for number in range(1, 9):
        amount = 2_000_000 + number
        await desk.find(report(WALLET, number, amount))
        (item,) = await desk.items(state=orders_pb2.SUSPENSE_STATE_OPEN)
        await desk.suite.create(f"a{number}", amount_minor=amount)
        await asyncio.gather(
            desk.allocate(item.suspense_id, f"a{number}"),
            desk.find(report(WALLET, number, amount, REVERSED, version=2)),
            return_exceptions=True,
        )
        await desk.find(report(WALLET, number, amount, REVERSED, version=3))
        order = await desk.suite.get(f"a{number}")
        assert (await desk.state(f"a{number}"), order.reversed_minor) in [("PENDING", 0), ("PAID", amount)]
    assert await desk.items(state=orders_pb2.SUSPENSE_STATE_OPEN) == []
    await desk.check()


async def test_an_item_is_not_allocated_while_a_claim_takes_it(desk: Operator) -> None:
    """The operator and a claim at once: the claim has it, and nothing is noted as held for the operator's order."""
    await desk.find(report(WALLET))
    await desk.suite.create("ord_1")
    await desk.suite.create("ord_2", amount_minor=2 * FIVE)
    (item,) = await desk.items()
    claim = await desk.claim()
    paid = Verdict(claim, Outcome.FINAL, transfers=(transfer(sender=PAYER),))
    async with desk.suite.database.transaction() as gate:
        # The claim stops here, when it has read the item and not yet written.
        await gate.execute("SELECT FROM outbox WHERE event_id = $1 FOR UPDATE", claim)
        claiming = asyncio.create_task(desk.apply(paid))
        await until(lambda: desk.are_waiting(1), "the claim to stop")
        allocating = asyncio.create_task(refused(desk.allocate(item.suspense_id, "ord_2")))
        await until(lambda: desk.are_waiting(2), "the operator to wait for the claim")
    await claiming
    assert (await allocating, await desk.state()) == ("suspense_resolved", "PAID")
    assert (await desk.suite.get("ord_2")).received_minor == 0
    await desk.check()


async def test_an_allocation_is_seen_by_a_reversal_that_waits_for_it(desk: Operator) -> None:
    """The chain takes back what the operator is allocating to an order that the report does not fit: it is reversed."""
    await desk.suite.create("ord_1", amount_minor=FIVE - 1)
    await desk.find(report(WALLET))
    (item,) = await desk.items()
    async with desk.suite.database.connection() as connection:
        gate = connection.transaction()
        await gate.start()
        # The allocation stops at this key, when it has the item and not yet written the payment.
        await connection.execute(
            """
            INSERT INTO payments (chain_id, tx_hash, log_index, order_id, merchant_id, event_id, amount_base,
                                  amount_minor, sender, block_number, block_hash, block_time)
            VALUES (56, $1, 0, 'none', 'none', uuidv7(), 1, 1, $2, 1, $1, now())
            """,
            tx(1),
            PAYER,
        )
        allocating = asyncio.create_task(desk.allocate(item.suspense_id))
        await until(lambda: desk.are_waiting(1), "the allocation to stop")
        reversing = asyncio.create_task(desk.find(report(WALLET, state=REVERSED, version=2)))
        await until(lambda: desk.are_waiting(2), "the reversal to wait for the allocation")
        await gate.rollback()
    await allocating
    assert len(await reversing) == 1
    assert await desk.payments() == [("REVERSED", FIVE, "")]
    assert (await desk.suite.get()).reversed_minor == FIVE
    await desk.check()
