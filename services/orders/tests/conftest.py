"""Orders on its real database and NATS, over its real gRPC; its peers are away unless a test brings them."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from kit.channel import Peer
from kit.database import Database
from kit.process import Process
from local.places import REPOSITORY
from local.ports import free_port
from local.testing import MakeDatabase
from orders.bootstrap import start
from orders.settings import Settings
from ospay.orders.v1 import orders_pb2, orders_pb2_grpc
from services.orders.tests.played import TOKEN, PlayedVerifier  # type: ignore[import-not-found]

WALLET = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"


@dataclass
class Suite:
    """A running orders service."""

    peer: Peer
    orders: orders_pb2_grpc.OrderServiceStub
    merchants: orders_pb2_grpc.MerchantServiceStub
    database: Database
    owner_url: str
    process: Process
    settings: Settings

    async def merchant(self, merchant_id: str = "mrc_1") -> str:
        """A registered merchant; returns its key."""
        request = orders_pb2.CreateMerchantRequest(merchant_id=merchant_id, name="Shop", merchant_wallet_address=WALLET)
        return (await self.peer.call(self.merchants.CreateMerchant, request, timeout=5)).api_key

    async def create(self, order_id: str = "ord_1", **fields: object) -> orders_pb2.CreateOrderResponse:
        """An order of 5 USDT."""
        request = order_request(order_id, **fields)
        return await self.peer.call(self.orders.CreateOrder, request, timeout=5)

    async def get(self, order_id: str = "ord_1", merchant_id: str = "mrc_1") -> orders_pb2.Order:
        request = orders_pb2.GetOrderRequest(merchant_id=merchant_id, order_id=order_id)
        return (await self.peer.call(self.orders.GetOrder, request, timeout=5)).order


def token_of(created_at: str, last_id: str) -> str:
    """A token with this position."""
    return base64.urlsafe_b64encode(json.dumps([created_at, last_id]).encode()).decode()


def order_request(order_id: str = "ord_1", **fields: object) -> orders_pb2.CreateOrderRequest:
    given = {"merchant_id": "mrc_1", "asset": "USDT", "amount_minor": 5_000_000, **fields}
    return orders_pb2.CreateOrderRequest(order_id=order_id, **given)  # type: ignore[arg-type]


@pytest.fixture
def settings() -> dict[str, object]:
    """What a test may set otherwise."""
    return {}


@pytest.fixture
async def verifier() -> AsyncIterator[PlayedVerifier]:
    """A verifier for tests that need one: name it in `settings`."""
    played = PlayedVerifier()
    await played.server.start()
    yield played
    await played.server.stop()


@pytest.fixture
async def suite(database: MakeDatabase, nats_url: str, settings: dict[str, object]) -> AsyncIterator[Suite]:
    made = await database("orders")
    defaults: dict[str, object] = {
        "environment": "local",
        "grpc_listen": "127.0.0.1:0",
        "metrics_listen": "127.0.0.1:0",
        "grpc_callers": {"test": TOKEN},
        "grpc_token": TOKEN,
        "verifier_target": f"127.0.0.1:{free_port()}",
        "ledger_target": f"127.0.0.1:{free_port()}",
        "database_url": made.url,
        "nats_url": nats_url,
        "chains_file": REPOSITORY / "config" / "chains.toml",
        "api_key_pepper": "p" * 40,
        "settlement_delay": 3600,
    }
    process = Process()
    given = Settings(**{**defaults, **settings})  # type: ignore[arg-type]
    server = await start(process, given)
    peer = Peer(f"127.0.0.1:{server.port}", token=TOKEN)
    own = await Database.open(made.url, application="test", size=4)
    try:
        orders = orders_pb2_grpc.OrderServiceStub(peer.channel)
        merchants = orders_pb2_grpc.MerchantServiceStub(peer.channel)
        yield Suite(peer, orders, merchants, own, made.owner_url, process, given)
    finally:
        await peer.close()
        await own.close()
        process.stop()
        await process.finish(5)
