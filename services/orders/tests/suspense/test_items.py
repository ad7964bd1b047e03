"""What the operator does with money in suspense, over gRPC."""

from __future__ import annotations

from uuid import UUID

import pytest

from kit.errors import Fault
from orders.domain import Outcome, Verdict
from ospay.orders.v1 import orders_pb2
from services.orders.tests.conftest import WALLET, token_of  # type: ignore[import-not-found]
from services.orders.tests.desk import (  # type: ignore[import-not-found]
    FIVE,
    PAYER,
    REVERSED,
    expire_by_hand,
    report,
    transfer,
    tx,
)
from services.orders.tests.suspense.operator import Operator, address, refused  # type: ignore[import-not-found]


async def test_items_are_listed_newest_first(desk: Operator) -> None:
    """Pages of any size give each once; a merchant's list and a state's list hold nothing else."""
    own = await address(desk, "ord_1")
    for number in range(1, 6):
        await desk.find(report(WALLET, number, number))
    await desk.find(report(own, 9, 7))
    seen: list[int] = []
    token = ""
    while True:
        request = orders_pb2.ListSuspenseRequest(page_size=2, page_token=token)
        page = await desk.call("ListSuspense", request)
        seen += [item.amount_minor for item in page.items]
        token = page.next_page_token
        if not token:
            break
    assert seen == [7, 5, 4, 3, 2, 1]
    (item,) = await desk.items(merchant_id="mrc_2")
    assert (item.order_id, item.reason, item.recipient, item.sender) == ("ord_1", "underpaid", own, PAYER)
    assert (item.chain, item.asset, item.tx_hash, item.block_number) == ("BSC", "USDT", tx(9), 101)
    assert len(await desk.items(merchant_id="mrc_1", state=orders_pb2.SUSPENSE_STATE_OPEN)) == 5
    assert await desk.items(state=orders_pb2.SUSPENSE_STATE_RETURNED) == []


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "WyIyMDI2LTAxLTAxVDAwOjAwOjAwKzAwOjAwIiwgIngiXQ==",
        token_of("0001-01-01T00:00:00+14:00", str(UUID(int=1))),
        token_of("2026-01-01T00:00:00+00:00", "\ud800"),
    ],
)
async def test_a_foreign_cursor_is_refused(desk: Operator, token: str) -> None:
    """A token that this list did not make is a clear error."""
    assert await refused(desk.items(page_token=token)) == "invalid_cursor"


async def test_an_item_is_allocated_to_an_order(desk: Operator) -> None:
    """Unattributed money pays the order that the operator names, once, with the operator's words."""
    await desk.find(report(WALLET, 1, 4_000_000))
    await desk.suite.create("ord_1", amount_minor=4_000_000)
    (item,) = await desk.items()
    done = await desk.allocate(item.suspense_id, note="as he wrote")
    assert (done.state, done.order_id, done.note) == (orders_pb2.SUSPENSE_STATE_ALLOCATED, "ord_1", "as he wrote")
    assert await desk.allocate(item.suspense_id, note="again") == done
    assert (await desk.state(), (await desk.suite.get()).received_minor) == ("PAID", 4_000_000)
    assert await desk.payments() == [("CREDITED", 4_000_000, "")]
    booked = {"SUSPENSE_RECEIVED": 4_000_000, "SUSPENSE_RELEASED": 4_000_000, "ORDER_PAID": 4_000_000}
    assert await desk.booked() == booked
    await desk.check()


async def test_an_item_pays_towards_an_order(desk: Operator) -> None:
    """Too little for the order it is held for it; what comes then pays with all of it."""
    late = await address(desk, "ord_1")
    await expire_by_hand(desk, "ord_1")
    await desk.expire()
    await desk.find(report(late, 1, 2_000_000))
    own = await address(desk, "ord_2")
    (item,) = await desk.items()
    held = await desk.allocate(item.suspense_id, "ord_2")
    assert (held.state, held.reason, held.order_id) == (orders_pb2.SUSPENSE_STATE_OPEN, "underpaid", "ord_2")
    assert await desk.allocate(item.suspense_id, "ord_2") == held
    assert (await desk.suite.get("ord_2", "mrc_2")).received_minor == 2_000_000
    await desk.find(report(own, 2, 3_000_000))
    assert (await desk.state("ord_2", "mrc_2"), await desk.state("ord_1", "mrc_2")) == ("PAID", "EXPIRED")
    await desk.check()


async def test_what_is_held_for_one_order_can_go_to_another(desk: Operator) -> None:
    """A part that was meant for the other order counts there and no longer here."""
    first, second = await address(desk, "ord_1"), await address(desk, "ord_2", amount_minor=2_000_000)
    await desk.find(report(first, 1, 2_000_000))
    (item,) = await desk.items()
    await desk.allocate(item.suspense_id, "ord_2")
    received = [(await desk.suite.get(name, "mrc_2")).received_minor for name in ("ord_1", "ord_2")]
    assert (received, await desk.state("ord_2", "mrc_2")) == ([0, 2_000_000], "PAID")
    assert second != first
    await desk.check()


async def test_a_surplus_pays_another_order(desk: Operator) -> None:
    """One transfer pays two orders, each with its part, and is taken back from both if the chain takes it back."""
    own = await address(desk, "ord_1")
    await address(desk, "ord_2", amount_minor=3_000_000)
    await desk.find(report(own, 1, 8_000_000))
    (item,) = await desk.items()
    await desk.allocate(item.suspense_id, "ord_2")
    assert await desk.payments("ord_1", "mrc_2") == [("CREDITED", FIVE, "")]
    assert await desk.payments("ord_2", "mrc_2") == [("CREDITED", 3_000_000, "")]
    await desk.check()
    await desk.find(report(own, 1, 8_000_000, REVERSED, version=2))
    taken = [(await desk.suite.get(name, "mrc_2")).reversed_minor for name in ("ord_1", "ord_2")]
    assert taken == [FIVE, 3_000_000]
    assert await desk.payments("ord_2", "mrc_2") == [("REVERSED", 3_000_000, "")]
    await desk.check()


async def test_what_reappeared_can_pay(desk: Operator) -> None:
    """Money that was reversed and came back pays the order that the operator names."""
    own = await address(desk, "ord_1")
    await desk.find(report(own))
    await desk.find(report(own, state=REVERSED, version=2))
    await desk.find(report(own, version=3))
    await address(desk, "ord_2")
    (item,) = await desk.items(state=orders_pb2.SUSPENSE_STATE_OPEN)
    assert item.reason == "reappeared"
    await desk.allocate(item.suspense_id, "ord_2")
    assert await desk.state("ord_2", "mrc_2") == "PAID"
    await desk.check()


async def test_what_does_not_go_together_is_refused(desk: Operator) -> None:
    """No such item, no such order, another merchant's order, another asset, another chain, an order that is paid."""
    await desk.find(report(WALLET, 1, 1), report(WALLET, 2, 2, asset="USDC"), report(WALLET, 3, 3, chain="ETH"))
    await desk.suite.create("ord_1")
    await address(desk, "ord_9")
    items = {item.amount_minor: item.suspense_id for item in await desk.items()}
    assert await refused(desk.allocate(str(UUID(int=1)))) == "suspense_not_found"
    assert await refused(desk.allocate(items[1], "nope")) == "order_not_found"
    assert await refused(desk.allocate(items[1], "ord_9")) == "order_not_found"
    assert await refused(desk.allocate(items[2])) == "asset_mismatch"
    assert await refused(desk.allocate(items[3])) == "asset_mismatch"
    await desk.find(report(WALLET, 4))
    assert await desk.state() == "PAID"
    with pytest.raises(Fault) as caught:
        await desk.allocate(items[1])
    assert (caught.value.reason, caught.value.metadata) == ("order_not_payable", {"status": "PAID"})
    assert await refused(desk.allocate("x")) == "invalid_request"
    assert len(await desk.items(state=orders_pb2.SUSPENSE_STATE_OPEN)) == 3
    await desk.check()


async def test_an_item_is_returned(desk: Operator) -> None:
    """What the merchant sent back leaves suspense with the transaction that did it, and can do nothing more."""
    await desk.find(report(WALLET, 1, 2_000_000))
    (item,) = await desk.items()
    done = await desk.give_back(item.suspense_id, tx_hash="0x" + "AB" * 32, note="sent back")
    assert (done.state, done.note) == (orders_pb2.SUSPENSE_STATE_RETURNED, "sent back")
    assert done.resolved_at.seconds > 0
    assert await desk.give_back(item.suspense_id) == done
    assert await desk.value("SELECT return_tx_hash FROM suspense") == "0x" + "ab" * 32
    assert await desk.booked() == {"SUSPENSE_RECEIVED": 2_000_000, "SUSPENSE_RELEASED": 2_000_000}
    await desk.suite.create("ord_1", amount_minor=2_000_000)
    assert await refused(desk.allocate(item.suspense_id)) == "suspense_resolved"
    claim = await desk.claim()
    await desk.apply(Verdict(claim, Outcome.FINAL, transfers=(transfer(1, 2_000_000, sender=PAYER),)))
    assert (await desk.suite.get()).last_claim.reason == "already_used"
    await desk.check()


async def test_the_transaction_of_a_return_may_be_named_later(desk: Operator) -> None:
    """It is written down, and not changed: another one is refused."""
    await desk.find(report(WALLET, 1, 2_000_000))
    (item,) = await desk.items()
    await desk.give_back(item.suspense_id, note="sent back")
    for _ in range(2):
        assert (await desk.give_back(item.suspense_id, tx_hash=tx(50))).note == "sent back"
    assert await refused(desk.give_back(item.suspense_id, tx_hash=tx(51))) == "suspense_resolved"
    assert await desk.value("SELECT return_tx_hash FROM suspense") == tx(50)
    assert await desk.booked() == {"SUSPENSE_RECEIVED": 2_000_000, "SUSPENSE_RELEASED": 2_000_000}


async def test_a_part_that_is_returned_counts_no_more(desk: Operator) -> None:
    """What was held for an order and sent back is not received, and is listed as returned."""
    own = await address(desk, "ord_1")
    await desk.find(report(own, 1, 2_000_000))
    (item,) = await desk.items()
    await desk.give_back(item.suspense_id)
    assert (await desk.suite.get("ord_1", "mrc_2")).received_minor == 0
    assert await desk.payments("ord_1", "mrc_2") == [("RETURNED", 0, "")]
    assert await refused(desk.give_back(str(UUID(int=1)))) == "suspense_not_found"
    await desk.check()


async def test_what_was_returned_and_comes_back_is_there_again(desk: Operator) -> None:
    """Returned, then taken back by the chain, then back on it: it is in suspense once more."""
    await desk.find(report(WALLET))
    (item,) = await desk.items()
    await desk.give_back(item.suspense_id)
    await desk.find(report(WALLET, state=REVERSED, version=2))
    await desk.find(report(WALLET, version=3))
    assert await desk.suspense() == [("unattributed", "REVERSED", FIVE), ("reappeared", "OPEN", FIVE)]
    assert await desk.booked() == {"SUSPENSE_RECEIVED": 2 * FIVE, "SUSPENSE_RELEASED": FIVE}
    await desk.check()


async def test_the_service_role_cannot_rewrite_suspense(desk: Operator) -> None:
    """What came in, from whom and how much cannot be changed or deleted with the service's own rights."""
    import asyncpg

    for statement in (
        "UPDATE suspense SET amount_minor = 1",
        "UPDATE suspense SET merchant_id = 'x'",
        "DELETE FROM suspense",
        "UPDATE sightings SET amount_base = 1",
        "DELETE FROM sightings",
        "UPDATE payments SET credited_minor = 1",
        "UPDATE merchants SET wallet = 'x'",
        "UPDATE merchants SET xpub = 'x'",
        "UPDATE orders SET deposit_address = 'x'",
        "UPDATE orders SET deposit_index = 1",
    ):
        async with desk.suite.database.connection() as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
