"""What only the whole suite can show: settlement, expiry, the full queue, rotation of keys, a hanging collector."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from kit.channel import Peer
from local.background import RunningSuite, run_suite
from ospay.orders.v1 import orders_pb2, orders_pb2_grpc
from tests.shop import FIVE, Shop, eventually, open_shop


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """Settles after a second, queues no claim, and sends its traces to a port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {
            "ORDERS_SETTLEMENT_DELAY": "1",
            "ORDERS_CLAIM_QUEUE_MAX": "0",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        with run_suite(tmp_path_factory.mktemp("hasty"), environment) as running:
            yield running


async def test_a_full_queue_verifies_inline_and_settles(hasty: RunningSuite) -> None:
    """With the queue full the claim is answered 200 with what it led to; the order settles into a batch."""
    async with open_shop(hasty) as shop:
        order = await shop.create()
        tx = await shop.transfer()
        assert await shop.claim(order, tx) == (200, {"order_id": order, "status": "CONFIRMING"})
        await shop.chain.finalize()
        settled = await shop.reaches(order, "SETTLED")
        assert settled["settled_at"] >= settled["paid_at"]
        found = await shop.booked(FIVE)
        assert found["unsettled_paid_count"] == 0
        status, problem = await shop.refund(order)
        assert (status, problem["code"], problem["status"]) == (409, "order_not_refundable", 409)
        batches = await settlement_batches(hasty, shop)
        assert [(item.asset, item.order_count, item.total_minor) for item in batches] == [("USDT", 1, str(FIVE))]


async def settlement_batches(suite: RunningSuite, shop: Shop) -> list[orders_pb2.SettlementBatch]:
    peer = Peer(suite.run["grpc"]["orders"], token=SecretStr(suite.run["grpc_token"]))
    try:
        stub = orders_pb2_grpc.OrderServiceStub(peer.channel)
        request = orders_pb2.ListSettlementBatchesRequest(merchant_id=shop.id)
        return list((await peer.call(stub.ListSettlementBatches, request, timeout=5)).settlement_batches)
    finally:
        await peer.close()


async def test_a_final_payment_is_paid_inline(hasty: RunningSuite) -> None:
    """A claim on a transaction that is final already is answered PAID at once."""
    async with open_shop(hasty) as shop:
        order = await shop.create()
        tx = await shop.transfer()
        await shop.chain.finalize()
        assert await shop.claim(order, tx) == (200, {"order_id": order, "status": "PAID"})


async def test_money_after_expiry_is_recorded_as_late(hasty: RunningSuite) -> None:
    """An order not paid in time becomes EXPIRED; what comes later is shown on it and not booked."""
    async with open_shop(hasty) as shop:
        order = await shop.create(expires_in_seconds=1)
        await shop.reaches(order, "EXPIRED")
        tx = await shop.transfer()
        await shop.chain.finalize()
        await shop.claim(order, tx)

        async def late() -> dict[str, object] | None:
            found = await shop.order(order)
            return found if found["late_minor"] else None

        found = await eventually(late, 30, "the late payment to be recorded")
        assert (found["status"], found["late_minor"], found["received_minor"]) == ("EXPIRED", FIVE, 0)
        assert await shop.entries() == []


async def test_a_revoked_key_is_refused_within_five_seconds(suite: RunningSuite) -> None:
    """A second key works beside the first; the first, revoked, is refused by the gateway within 5 s."""
    async with open_shop(suite) as shop:
        order = await shop.create()
        peer = Peer(suite.run["grpc"]["orders"], token=SecretStr(suite.run["grpc_token"]))
        stub = orders_pb2_grpc.MerchantServiceStub(peer.channel)
        try:
            request = orders_pb2.CreateApiKeyRequest(merchant_id=shop.id)
            second = (await peer.call(stub.CreateApiKey, request, timeout=5)).api_key
            revoke = orders_pb2.RevokeApiKeyRequest(merchant_id=shop.id, key_id=shop.key.split("_")[1])
            await peer.call(stub.RevokeApiKey, revoke, timeout=5)
        finally:
            await peer.close()

        async def refused() -> bool | None:
            status, _ = await shop.send("GET", f"/orders/{order}")
            return True if status == 401 else None

        await eventually(refused, 5, "the revoked key to be refused")
        assert (await shop.send("GET", f"/orders/{order}", key=second))[0] == 200


async def test_totals_count_the_whole_system(suite: RunningSuite) -> None:
    """The counters cover both replicas of orders."""
    async with open_shop(suite) as shop:
        _, before = await shop.send("GET", "/debug/metrics", key=None)
        for _ in range(6):
            await shop.create()

        async def counted() -> bool | None:
            _, after = await shop.send("GET", "/debug/metrics", key=None)
            return True if after["orders_created_total"] >= before["orders_created_total"] + 6 else None

        await eventually(counted, 5, "six orders to be counted")
