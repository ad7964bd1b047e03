"""Refunds that the chain confirms, on a real one: the merchant's own transfer, found by its hash, counts once."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from chains import checksum_address
from kit.channel import Peer
from kit.errors import Fault
from local.background import RunningSuite, run_suite
from ospay.orders.v1 import orders_pb2, orders_pb2_grpc
from tests.shop import BASE_PER_MINOR, FIVE, Shop, eventually, new_id, open_shop

GAS = hex(200_000)
GAS_MONEY = hex(10**18)
RECORDED = orders_pb2.REFUND_STATE_RECORDED
CONFIRMED = orders_pb2.REFUND_STATE_CONFIRMED
REFUTED = orders_pb2.REFUND_STATE_REFUTED


@dataclass
class Till:
    """A shop that pays back; the node signs for its wallet."""

    shop: Shop
    peer: Peer
    orders: orders_pb2_grpc.OrderServiceStub

    async def refund(self, order_id: str, **fields: object) -> orders_pb2.Refund:
        """A refund, whole unless told otherwise."""
        given = {"refund_id": new_id(), "reason": "asked", **fields}
        request = orders_pb2.RefundOrderRequest(merchant_id=self.shop.id, order_id=order_id, **given)  # type: ignore[arg-type]
        return (await self.peer.call(self.orders.RefundOrder, request, timeout=10)).refund

    async def attach(self, refund: orders_pb2.Refund, tx_hash: str) -> orders_pb2.Refund:
        request = orders_pb2.AttachRefundTransactionRequest(
            merchant_id=self.shop.id, refund_id=refund.refund_id, tx_hash=tx_hash
        )
        return (await self.peer.call(self.orders.AttachRefundTransaction, request, timeout=10)).refund

    async def reaches(self, refund: orders_pb2.Refund, state: int, reason: str = "") -> orders_pb2.Refund:
        """Waits until the refund stands so."""
        request = orders_pb2.ListRefundsRequest(merchant_id=self.shop.id, order_id=refund.order_id)

        async def there() -> orders_pb2.Refund | None:
            found = (await self.peer.call(self.orders.ListRefunds, request, timeout=10)).refunds
            (mine,) = [item for item in found if item.refund_id == refund.refund_id]
            return mine if (mine.state, mine.state_reason) == (state, reason) else None

        return await eventually(there, 30, f"{refund.refund_id} to be {state} {reason}")

    async def send(self, refund: orders_pb2.Refund) -> str:
        """Signs and sends what the API gave; mined, not final. Returns its hash."""
        given = refund.unsigned_transaction
        transaction = {
            "from": self.shop.wallet,
            "to": given.to,
            "data": given.data,
            "value": hex(int(given.value)),
            "chainId": hex(given.chain_id),
            "gas": GAS,
        }
        tx_hash = await self.shop.chain.rpc("eth_sendTransaction", transaction)
        await self.shop.chain.mine()
        return str(tx_hash)


@asynccontextmanager
async def open_till(shop: Shop) -> AsyncIterator[Till]:
    """The shop's wallet has no key: the dev chain lets it send all the same."""
    await shop.chain.rpc("anvil_impersonateAccount", shop.wallet)
    await shop.chain.rpc("anvil_setBalance", shop.wallet, GAS_MONEY)
    peer = Peer(shop.suite.run["grpc"]["orders"], token=SecretStr(shop.suite.run["grpc_token"]))
    try:
        yield Till(shop, peer, orders_pb2_grpc.OrderServiceStub(peer.channel))
    finally:
        await peer.close()
        await shop.chain.rpc("anvil_stopImpersonatingAccount", shop.wallet)


@pytest.fixture
async def till(shop: Shop) -> AsyncIterator[Till]:
    async with open_till(shop) as opened:
        yield opened


@pytest.fixture(scope="module")
def unqueued(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite that queues no claim."""
    environment = {"ORDERS_CLAIM_QUEUE_MAX": "0", "ORDERS_SETTLEMENT_DELAY": "3600"}
    with run_suite(tmp_path_factory.mktemp("unqueued"), environment) as running:
        yield running


async def test_the_unsigned_transaction_proves_its_refund(till: Till) -> None:
    """Recorded and booked, then signed as given, named, seen, final: CONFIRMED, and the customer has the money."""
    shop = till.shop
    order = await shop.create()
    await shop.pay(order)
    customer = checksum_address(shop.chain.accounts[0])
    refund = await till.refund(order)
    assert (refund.state, refund.to_address, refund.from_address) == (RECORDED, customer, shop.wallet)
    await shop.booked(0)
    entries = await shop.entries(order)
    before = await shop.chain.balance(customer)
    tx_hash = await till.send(refund)
    assert (await till.attach(refund, tx_hash)).state == RECORDED
    await till.reaches(refund, RECORDED, "not_final")
    await shop.chain.finalize()
    found = await till.reaches(refund, CONFIRMED)
    assert (found.tx_hash, found.HasField("confirmed_at")) == (tx_hash, True)
    assert await shop.chain.balance(customer) == before + FIVE * BASE_PER_MINOR
    assert (await shop.order(order))["status"] == "REFUNDED"
    await shop.booked(0)
    assert await shop.entries(order) == entries


async def test_a_wrong_transaction_is_refuted_and_another_taken(till: Till) -> None:
    """A refund that carries its transaction at once: too little is refuted, then the right one confirms."""
    shop = till.shop
    order = await shop.create()
    await shop.pay(order)
    customer = shop.chain.accounts[0]
    short = await shop.chain.send_token(shop.wallet, customer, 1_999_999 * BASE_PER_MINOR)
    refund = await till.refund(order, amount_minor=2_000_000, tx_hash=short)
    with pytest.raises(Fault) as caught:
        await till.attach(refund, "0x" + "7" * 64)
    assert caught.value.reason == "refund_transaction_exists"
    await shop.chain.finalize()
    await till.reaches(refund, REFUTED, "wrong_amount")
    await till.attach(refund, await till.send(refund))
    await shop.chain.finalize()
    await till.reaches(refund, CONFIRMED)


async def test_a_strangers_transfer_and_the_payment_itself_prove_nothing(till: Till) -> None:
    """Money that another sent to the payer is not the merchant's, and the payment went the other way."""
    shop = till.shop
    order = await shop.create()
    payment = await shop.pay(order)
    gift = await shop.chain.send_token(shop.chain.accounts[1], shop.chain.accounts[0], FIVE * BASE_PER_MINOR)
    await shop.chain.finalize()
    refund = await till.refund(order, tx_hash=gift)
    await till.reaches(refund, REFUTED, "wrong_sender")
    await till.attach(refund, payment)
    await till.reaches(refund, REFUTED, "wrong_recipient")


async def test_one_transfer_proves_one_of_two_refunds(till: Till) -> None:
    """Two equal refunds name one transaction: one is CONFIRMED, the other REFUTED until it has its own."""
    shop = till.shop
    order = await shop.create()
    await shop.pay(order)
    first = await till.refund(order, amount_minor=1_000_000)
    second = await till.refund(order, amount_minor=1_000_000)
    tx_hash = await till.send(first)
    await shop.chain.finalize()
    await till.attach(first, tx_hash)
    await till.reaches(first, CONFIRMED)
    await till.attach(second, tx_hash)
    await till.reaches(second, REFUTED, "already_used")
    await till.attach(second, await till.send(second))
    await shop.chain.finalize()
    await till.reaches(second, CONFIRMED)


async def test_two_transfers_of_one_transaction_prove_two_refunds(till: Till) -> None:
    """A contract that pays in batches is declared as the sender; each refund has a transfer of its own."""
    shop = till.shop
    order = await shop.create()
    await shop.pay(order)
    batch = checksum_address(await shop.chain.deploy("Batch"))
    someone = shop.chain.accounts[2]
    amount = 1_000_000 * BASE_PER_MINOR
    await shop.chain.send_token(shop.wallet, batch, 2 * amount, mine=True)
    tx_hash = await shop.chain.call(
        "Batch", batch, "pay", shop.chain.token, [someone, someone], [amount, amount], mine=True
    )
    await shop.chain.finalize()
    for _ in range(2):
        refund = await till.refund(
            order, amount_minor=1_000_000, tx_hash=tx_hash, to_address=someone, from_address=batch
        )
        await till.reaches(refund, CONFIRMED)


async def test_the_demo_merchant_pays_back_from_its_own_account(suite: RunningSuite, shop: Shop) -> None:
    """A wallet that the node holds the key of: no tricks."""
    mine = suite.run["merchant"]
    demo = Shop(suite, shop.http, shop.chain, shop.ledger, shop.orders, mine["id"], mine["api_key"], mine["wallet"])
    order = await demo.create()
    await demo.pay(order)
    peer = Peer(suite.run["grpc"]["orders"], token=SecretStr(suite.run["grpc_token"]))
    try:
        till = Till(demo, peer, orders_pb2_grpc.OrderServiceStub(peer.channel))
        refund = await till.refund(order)
        await till.attach(refund, await till.send(refund))
        await demo.chain.finalize()
        await till.reaches(refund, CONFIRMED)
    finally:
        await peer.close()


async def pay_inline(shop: Shop, order_id: str) -> None:
    """Pays an order where no claim is queued."""
    tx_hash = await shop.transfer()
    await shop.chain.finalize()
    assert await shop.claim(order_id, tx_hash) == (200, {"order_id": order_id, "status": "PAID"})


async def test_with_the_queue_full_a_refund_is_proved_inline(unqueued: RunningSuite) -> None:
    """The answer shows what the chain says already; a transaction that is final confirms at once."""
    async with open_shop(unqueued) as shop, open_till(shop) as till:
        order = await shop.create()
        await pay_inline(shop, order)
        refund = await till.refund(order, amount_minor=1_000_000)
        sent = await till.send(refund)
        seen = await till.attach(refund, sent)
        assert (seen.state, seen.state_reason) == (RECORDED, "not_final")
        await shop.chain.finalize()
        await till.reaches(refund, CONFIRMED)
        second = await till.send(refund)
        await shop.chain.finalize()
        assert (await till.refund(order, amount_minor=1_000_000, tx_hash=second)).state == CONFIRMED


async def test_without_a_broker_the_sweeper_brings_the_proof(unqueued: RunningSuite) -> None:
    """NATS stands still, so the verdict that is final later cannot be published: the debt is asked for over gRPC."""
    async with open_shop(unqueued) as shop, open_till(shop) as till:
        order = await shop.create()
        await pay_inline(shop, order)
        refund = await till.refund(order)
        sent = await till.send(refund)
        pid = unqueued.pids("nats")[0]
        os.kill(pid, signal.SIGSTOP)
        try:
            assert (await till.attach(refund, sent)).state_reason == "not_final"
            await shop.chain.finalize()
            await till.reaches(refund, CONFIRMED)
        finally:
            os.kill(pid, signal.SIGCONT)
