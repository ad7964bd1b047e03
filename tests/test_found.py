"""Money that is found on the chain with no claim, what becomes of it, and what the chain takes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
from bip32 import BIP32
from eth_keys.datatypes import PublicKey

from kit.errors import Fault
from local.background import RunningSuite, run_suite
from ospay.ledger.v1 import ledger_pb2
from ospay.orders.v1 import orders_pb2, orders_pb2_grpc
from tests.collector import Collector, Seen, orphans
from tests.shop import FIVE, Shop, eventually, new_id, new_xpub, open_shop, returned

CREDIT, DEBIT = ledger_pb2.DIRECTION_CREDIT, ledger_pb2.DIRECTION_DEBIT
PAID, REVERSED = ledger_pb2.EVENT_TYPE_ORDER_PAID, ledger_pb2.EVENT_TYPE_PAYMENT_REVERSED
RECEIVED, RELEASED = ledger_pb2.EVENT_TYPE_SUSPENSE_RECEIVED, ledger_pb2.EVENT_TYPE_SUSPENSE_RELEASED
DEEPER_THAN_FINAL = 8  # blocks; the dev chain calls final what has four on top


@pytest.fixture
async def own(suite: RunningSuite) -> AsyncIterator[Shop]:
    """A merchant whose orders have an address of their own."""
    async with open_shop(suite, xpub=new_xpub()) as opened:
        yield opened


@pytest.fixture(scope="module")
def shaken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite whose chain takes back what was final, and whose verifier is killed."""
    with run_suite(tmp_path_factory.mktemp("shaken"), {"ORDERS_SETTLEMENT_DELAY": "3600"}) as running:
        yield running


async def moves(shop: Shop, order: str = "") -> Counter[tuple[int, int, int]]:
    """How often each (event type, direction on the side that is not clearing, amount) is in the books."""
    entries = [*await shop.entries(order), *await shop.entries(order, suspense=True)]
    clearing = (ledger_pb2.BUCKET_CLEARING, ledger_pb2.BUCKET_SUSPENSE_CLEARING)
    signed = [item.amount_minor if item.direction == CREDIT else -item.amount_minor for item in entries]
    assert sum(signed) == 0
    return Counter(
        (item.event_type, item.direction, item.amount_minor) for item in entries if item.bucket not in clearing
    )


async def allocate(shop: Shop, item: orders_pb2.SuspenseItem, order: str) -> orders_pb2.SuspenseItem:
    """The operator lets an item pay towards an order."""
    stub = orders_pb2_grpc.SuspenseServiceStub(shop.orders.channel)
    request = orders_pb2.AllocateSuspenseRequest(suspense_id=item.suspense_id, order_id=order, note="they asked")
    return (await shop.orders.call(stub.AllocateSuspense, request, timeout=10)).item


async def test_an_order_is_paid_with_no_claim(suite: RunningSuite) -> None:
    """The address is the one that the merchant's wallet derives; what reaches it is seen, then final, then booked."""
    xpub = new_xpub()
    async with open_shop(suite, xpub=xpub) as shop:
        order = await shop.create()
        made = await shop.order(order)
        key = BIP32.from_xpub(xpub).get_pubkey_from_path(f"m/{made['deposit_path']}")
        assert PublicKey.from_compressed_bytes(key).to_checksum_address() == made["deposit_address"]
        tx = await shop.give(order)
        seen = await shop.reaches(order, "CONFIRMING")
        assert (seen["received_minor"], seen["confirming"]["tx_hash"], seen["last_claim"]) == (0, tx, None)
        await shop.chain.finalize()
        paid = await shop.reaches(order, "PAID")
        assert (paid["received_minor"], paid["tx_hash"], paid["last_claim"]) == (FIVE, tx, None)
        [payment] = await shop.payments(order, "CREDITED")
        assert (tx, FIVE) == (payment["tx_hash"], payment["credited_minor"])
        await shop.booked(FIVE, suspense_minor=0)
        shape = sorted((item.bucket, item.direction, item.amount_minor, item.tx_hash) for item in await shop.entries())
        assert shape == [(1, 1, FIVE, tx), (2, 2, FIVE, tx)]


async def test_a_wallets_transfer_is_found_too(shop: Shop) -> None:
    """On a shared wallet a transfer that fits exactly one order pays it, with no claim."""
    order, _ = await shop.create(), await shop.create(amount_minor=FIVE + 1)
    tx = await shop.transfer()
    await shop.chain.finalize()
    assert (await shop.reaches(order, "PAID"))["tx_hash"] == tx
    await shop.booked(FIVE, suspense_minor=0)


async def test_each_order_is_paid_at_its_own_address(own: Shop) -> None:
    """Orders of one amount that are paid in one block do not mix."""
    orders = [await own.create() for _ in range(5)]
    addresses = {(await own.order(order))["deposit_address"] for order in orders}
    assert len(addresses) == 5
    for order in orders[1:]:
        await own.transfer(to=(await own.order(order))["deposit_address"], mine=False)
    await own.chain.mine(1)
    await own.chain.finalize()
    for order in orders[1:]:
        await own.reaches(order, "PAID")
    assert (await own.order(orders[0]))["status"] == "PENDING"
    await own.booked(4 * FIVE, suspense_minor=0)


async def test_a_part_and_the_rest_pay_the_order(own: Shop) -> None:
    """The part is received and held; with the rest the order is PAID by two payments, and suspense is empty."""
    order = await own.create()
    await own.give(order, 2_000_000)
    await own.chain.finalize()
    [held] = await own.payments(order, "HELD")
    assert (held["reason"], held["credited_minor"]) == ("underpaid", 0)
    await own.booked(0, suspense_minor=2_000_000)
    waiting = await own.reaches(order, "PENDING")
    assert waiting["received_minor"] == 2_000_000
    [item] = await own.suspense("underpaid")
    assert (item.order_id, item.amount_minor) == (order, 2_000_000)
    await own.give(order, 3_000_000)
    await own.chain.finalize()
    paid = await own.reaches(order, "PAID")
    assert (paid["received_minor"], paid["surplus_minor"]) == (FIVE, 0)
    payments = await own.payments(order, "CREDITED", "CREDITED")
    assert [item["credited_minor"] for item in payments] == [2_000_000, 3_000_000]
    await own.booked(FIVE, suspense_minor=0)
    assert await moves(own, order) == {
        (RECEIVED, CREDIT, 2_000_000): 1,
        (RELEASED, DEBIT, 2_000_000): 1,
        (PAID, CREDIT, 2_000_000): 1,
        (PAID, CREDIT, 3_000_000): 1,
    }


async def test_within_the_merchants_tolerance_it_is_paid(suite: RunningSuite) -> None:
    """What is missing by no more than the merchant allows is not waited for."""
    async with open_shop(suite, xpub=new_xpub(), underpayment_tolerance_minor=10) as shop:
        order, less = await shop.create(), await shop.create()
        await shop.give(order, FIVE - 10)
        await shop.give(less, FIVE - 11)
        await shop.chain.finalize()
        assert (await shop.reaches(order, "PAID"))["received_minor"] == FIVE - 10
        await shop.payments(less, "HELD")
        await shop.booked(FIVE - 10, suspense_minor=FIVE - 11)


@pytest.mark.parametrize(("policy", "credited"), [("SUSPENSE", FIVE), ("CREDIT", FIVE + 7)])
async def test_a_surplus_goes_where_the_policy_says(suite: RunningSuite, policy: str, credited: int) -> None:
    """PAID with the surplus told: held for the operator, or credited as well."""
    async with open_shop(suite, xpub=new_xpub(), surplus_policy=policy) as shop:
        order = await shop.create()
        await shop.give(order, FIVE + 7)
        await shop.chain.finalize()
        paid = await shop.reaches(order, "PAID")
        assert (paid["received_minor"], paid["surplus_minor"]) == (credited, 7)
        await shop.booked(credited, suspense_minor=FIVE + 7 - credited)
        items = await shop.suspense(*(["surplus"] if policy == "SUSPENSE" else []))
        assert [(item.order_id, item.amount_minor) for item in items] == [(order, 7)] * len(items)


async def test_late_money_can_pay_another_order(own: Shop) -> None:
    """It is held and booked as late; the operator lets it pay an order that is open, once."""
    late, other = await own.create(expires_in_seconds=1), await own.create()
    await own.reaches(late, "EXPIRED")
    await own.give(late)
    await own.chain.finalize()
    [item] = await own.suspense("late")
    assert (item.order_id, item.amount_minor, item.asset) == (late, FIVE, "USDT")
    found = await own.order(late)
    assert (found["status"], found["late_minor"], found["received_minor"]) == ("EXPIRED", FIVE, 0)
    await own.booked(0, suspense_minor=FIVE)
    for _ in range(2):  # the same again changes nothing
        allocated = await allocate(own, item, other)
        assert (allocated.state, allocated.order_id) == (orders_pb2.SUSPENSE_STATE_ALLOCATED, other)
    assert (await own.reaches(other, "PAID"))["received_minor"] == FIVE
    await own.booked(FIVE, suspense_minor=0)
    assert await own.suspense() == []
    with pytest.raises(Fault, match="suspense_resolved"):
        await allocate(own, item, await own.create())


async def test_a_transfer_that_fits_two_orders_waits_for_a_claim(shop: Shop) -> None:
    """It is nobody's until it is claimed; then it leaves suspense and pays, once."""
    first, second = await shop.create(), await shop.create()
    tx = await shop.transfer()
    await shop.chain.finalize()
    [item] = await shop.suspense("ambiguous")
    assert (item.tx_hash, item.amount_minor, item.order_id) == (tx, FIVE, "")
    await shop.booked(0, suspense_minor=FIVE)
    assert {(await shop.order(order))["status"] for order in (first, second)} == {"PENDING"}
    assert (await shop.claim(second, tx))[0] in (200, 202)
    assert (await shop.reaches(second, "PAID"))["tx_hash"] == tx
    await shop.booked(FIVE, suspense_minor=0)
    await shop.claim(first, tx)
    await shop.refuted(first, "already_used")
    assert await moves(shop) == {(RECEIVED, CREDIT, FIVE): 1, (RELEASED, DEBIT, FIVE): 1, (PAID, CREDIT, FIVE): 1}


async def test_a_transfer_that_fits_no_order_is_kept(shop: Shop) -> None:
    """It is booked in suspense and beside the orders, until the operator says that it was sent back."""
    order = await shop.create()
    tx = await shop.transfer(FIVE - 1)
    await shop.chain.finalize()
    [item] = await shop.suspense("unattributed")
    assert (item.tx_hash, item.amount_minor, item.recipient) == (tx, FIVE - 1, shop.wallet)
    found = await shop.booked(0, suspense_minor=FIVE - 1)
    assert found["merchant_balance_minor"] + found["clearing_balance_minor"] == 0
    assert (await shop.order(order))["status"] == "PENDING"
    stub = orders_pb2_grpc.SuspenseServiceStub(shop.orders.channel)
    request = orders_pb2.ReturnSuspenseRequest(suspense_id=item.suspense_id, note="sent back")
    for _ in range(2):  # the same again changes nothing
        done = (await shop.orders.call(stub.ReturnSuspense, request, timeout=10)).item
        assert (done.state, done.note) == (orders_pb2.SUSPENSE_STATE_RETURNED, "sent back")
    await shop.booked(0, suspense_minor=0)
    assert await moves(shop) == {(RECEIVED, CREDIT, FIVE - 1): 1, (RELEASED, DEBIT, FIVE - 1): 1}


async def test_a_reorganised_transfer_is_taken_back(own: Shop) -> None:
    """Before it is final: the order is PENDING again, nothing is booked, and the trail stays."""
    order = await own.create()
    await own.chain.mine(3)
    await own.give(order)
    await own.reaches(order, "CONFIRMING")
    await own.chain.reorganise(1)
    await own.chain.mine(1)
    assert (await own.reaches(order, "PENDING"))["confirming"] is None
    await own.payments(order, "DROPPED")
    await own.chain.finalize()
    assert (await own.order(order))["status"] == "PENDING"
    await own.booked(0, suspense_minor=0)
    assert await moves(own) == {}


async def test_a_transfer_that_moved_to_another_block_pays(own: Shop) -> None:
    """The order follows the transaction to where it is now, and is paid once."""
    order = await own.create()
    await own.chain.mine(3)
    tx = await own.give(order)
    before = await own.reaches(order, "CONFIRMING")
    raw = await own.chain.rpc("eth_getRawTransactionByHash", tx)
    await own.chain.reorganise(1)
    await own.chain.mine(1)
    await own.chain.rpc("eth_sendRawTransaction", raw)
    await own.chain.finalize()
    paid = await own.reaches(order, "PAID")
    assert (paid["tx_hash"], paid["received_minor"]) == (tx, FIVE)
    credited = [
        item for item in (await own.send("GET", f"/orders/{order}/payments"))[1]["data"] if item["credited_minor"]
    ]
    moved_to = int((await own.chain.receipt(tx))["blockNumber"], 16)
    assert [item["block_number"] for item in credited] == [moved_to]
    assert moved_to > before["confirming"]["block_number"]
    await own.booked(FIVE, suspense_minor=0)
    assert await moves(own) == {(PAID, CREDIT, FIVE): 1}


async def test_what_was_final_and_is_taken_back_is_booked_back(shaken: RunningSuite) -> None:
    """An incident: the order tells of it, the books are compensated and not edited, other payments stand."""
    async with open_shop(shaken, xpub=new_xpub()) as shop:
        stays, order = await shop.create(), await shop.create()
        await shop.give(stays)
        await shop.chain.mine(DEEPER_THAN_FINAL)
        await shop.give(order)
        await shop.chain.finalize()
        await shop.reaches(stays, "PAID")
        await shop.reaches(order, "PAID")
        await shop.booked(2 * FIVE)
        await shop.chain.reorganise(DEEPER_THAN_FINAL - 1)

        async def reversed_() -> dict[str, object] | None:
            await shop.chain.mine(1)  # time goes on, also on a chain that went back
            found = await shop.order(order)
            return found if found["reversed_minor"] else None

        found = await eventually(reversed_, 30, "the payment to be reversed")
        assert found["reversed_minor"] == FIVE
        await shop.payments(order, "REVERSED")
        await shop.booked(FIVE, suspense_minor=0)
        assert await moves(shop, order) == {(PAID, CREDIT, FIVE): 1, (REVERSED, DEBIT, FIVE): 1}
        assert ((await shop.order(stays))["status"], (await shop.order(stays))["reversed_minor"]) == ("PAID", 0)
        status, problem = await shop.refund(order)
        assert status in (409, 422), problem


async def test_a_refund_is_proved_by_the_chain(own: Shop) -> None:
    """RECORDED and booked at once; CONFIRMED when the merchant's transfer is final; a second refund cannot use it."""
    order, other = await own.create(), await own.create()
    for each in (order, other):
        await own.give(each)
    await own.chain.finalize()
    for each in (order, other):
        await own.reaches(each, "PAID")
    refund_id = new_id()
    status, told = await own.refund(order, refund_id)
    refund = told["refund"]
    assert (status, told["status"], refund["state"]) == (200, "REFUNDED", "RECORDED")
    await own.booked(FIVE)
    unsigned = refund["unsigned_transaction"]
    transaction = {"from": own.chain.accounts[1], "to": unsigned["to"], "data": unsigned["data"], "gas": hex(1_000_000)}
    tx = await own.chain.rpc("eth_sendTransaction", transaction)
    await own.chain.mine(1)
    named = {"refund_id": refund_id, "tx_hash": tx}
    assert (await own.send("POST", "/orders/refund/transaction", named))[0] == 200
    await own.chain.finalize()
    await refunds(own, order, "CONFIRMED")
    status, told = await own.refund(other, tx_hash=tx)
    assert (status, told["status"]) == (200, "REFUNDED")
    [refuted] = await refunds(own, other, "REFUTED")
    assert refuted["state_reason"] == "already_used"


async def refunds(shop: Shop, order: str, *states: str) -> list[dict[str, object]]:
    """The order's refunds, once they are in these states."""

    async def there() -> list[dict[str, object]] | None:
        status, found = await shop.send("GET", f"/orders/{order}/refunds")
        assert status == 200, found
        return list(found["data"]) if [item["state"] for item in found["data"]] == list(states) else None

    return await eventually(there, 30, f"refunds of {order} to be {states}")


async def test_what_comes_in_while_the_verifier_is_away_is_found(shaken: RunningSuite) -> None:
    """Killed before one transfer and between another and its finality: both are found after the restart."""
    async with open_shop(shaken, xpub=new_xpub()) as shop:
        seen, missed = await shop.create(), await shop.create()
        await shop.give(seen)
        await shop.reaches(seen, "CONFIRMING")
        killed = shaken.kill("verifier")
        await shop.give(missed)
        await shop.chain.finalize()
        await returned(shaken, "verifier", killed)
        await shop.reaches(seen, "PAID")
        await shop.reaches(missed, "PAID")
        await shop.booked(2 * FIVE, suspense_minor=0)


async def test_an_order_made_while_the_verifier_is_away_is_watched(shaken: RunningSuite) -> None:
    """The address is a debt until the verifier has it: what was paid before it had is found as well."""
    async with open_shop(shaken, xpub=new_xpub()) as shop:
        killed = shaken.kill("verifier")
        order = await shop.create()
        await shop.give(order)
        await shop.chain.finalize()
        await returned(shaken, "verifier", killed)
        await shop.reaches(order, "PAID")
        await shop.booked(FIVE, suspense_minor=0)


async def test_a_found_payment_is_one_trace(traced: RunningSuite, collector: tuple[Collector, str]) -> None:
    """From what the watcher saw to the ledger's commit and its confirmation: one root, no orphan."""
    booked = "publish ospay.orders.v1.order_paid"
    async with open_shop(traced, xpub=new_xpub()) as shop:
        order = await shop.create()
        await shop.give(order)
        await shop.chain.finalize()
        await shop.reaches(order, "PAID")
        await shop.booked(FIVE)

    async def whole() -> list[Seen] | None:
        # Services send their spans by themselves: a child may come before its parent.
        found = collector[0].trace_of(booked)
        return found if "orders close debts" in {item.span.name for item in found} and not orphans(found) else None

    spans = await eventually(whole, 20, "the whole trace")
    assert len([item for item in spans if not item.span.parent_span_id]) == 1
    assert {item.service for item in spans} == {"orders", "verifier", "ledger"}
