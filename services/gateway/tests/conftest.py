"""The whole suite as processes, for tests that speak JSON to a real gateway before the real services."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from local.anvil import Anvil
from local.devchain import DevChain
from local.nats import Nats
from local.ports import free_port
from local.process import Process, running, until
from local.service import HttpService, Service, http_is_ok
from local.testing import PostgresServer
from local.wiring import SECRET_NAMES, SERVICES_WITH_DATABASE, Wiring

SERVICES = (*SERVICES_WITH_DATABASE, "gateway")


@dataclass(frozen=True)
class Suite:
    """Addresses and secrets of the running services, and their processes."""

    url: str
    admin_key: str
    grpc_token: str
    rpc_url: str
    wiring: Wiring
    environment: Mapping[str, str]
    logs: Path
    processes: dict[str, Process] = field(default_factory=dict)

    def service(self, name: str) -> Service:
        """The part, to be run."""
        make = HttpService if name == "gateway" else Service
        environment = {**self.environment, **self.wiring.listen(name, 0)}
        return make(name, name, self.wiring.ports[name][0], environment, self.logs / f"{name}.log")

    def log(self, name: str) -> str:
        """What a service has logged so far."""
        return (self.logs / f"{name}.log").read_text()


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def code(self) -> str:
        """The problem's code."""
        return str(self.body["code"])


class Client:
    """JSON over HTTP as a merchant speaks it. Bytes are sent as they are."""

    def __init__(self, session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> None:
        self._session = session
        self.url = url
        self.headers = dict(headers)

    async def get(self, path: str, **headers: str) -> Answer:
        """GET; `X_API_Key="…"` is a header."""
        return await self.send("GET", path, headers=headers)

    async def post(self, path: str, body: object, **headers: str) -> Answer:
        """POST; `X_API_Key="…"` is a header."""
        return await self.send("POST", path, body, headers=headers)

    def at(self, url: str) -> Client:
        """The same at another gateway."""
        return Client(self._session, url, self.headers)

    def with_key(self, api_key: str) -> Client:
        """The same with a key."""
        return Client(self._session, self.url, {"X-API-Key": api_key})

    async def send(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Any request; a body of bytes is sent as it is."""
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in (headers or {}).items()}}
        content: dict[str, Any] = {}
        if isinstance(body, bytes):
            content["data"] = body
            sent.setdefault("Content-Type", "application/json")
        elif body is not None:
            content["json"] = body
        async with self._session.request(method, self.url + path, headers=sent, **content) as answer:
            is_json = "json" in answer.headers.get("Content-Type", "")
            received = await (answer.json(content_type=None) if is_json and method != "HEAD" else answer.read())
            return Answer(answer.status, answer.headers, received)


@dataclass(frozen=True)
class Merchant:
    """A merchant of this test, with a client that sends its key."""

    id: str
    api_key: str
    wallet: str
    client: Client

    async def create(self, **changes: object) -> dict[str, Any]:
        """A new order, as the gateway answered it."""
        made = await self.client.post("/orders", self.order(**changes))
        assert made.status == 201, made
        return dict(made.body)

    async def paid(self, chain: DevChain, amount_minor: int = 5_000_000) -> dict[str, Any]:
        """A new order, paid on chain, claimed and final."""
        order = await self.create(amount_minor=amount_minor)
        await chain.mine()
        sent = await chain.send_token(chain.accounts[0], order["deposit_address"], amount_minor * 10**12)
        await chain.finalize()
        told = await self.client.post("/events/payment-detected", {"order_id": order["id"], "tx_hash": sent})
        assert told.status in (200, 202), told
        return await self.reaches(order["id"], "PAID")

    async def reaches(self, order_id: str, status: str) -> dict[str, Any]:
        """The order, once it has this status."""
        found: dict[str, Any] = {}

        async def there() -> bool:
            found.update((await self.client.get(f"/orders/{order_id}")).body)
            return bool(found["status"] == status)

        await until(there, f"order {order_id} to be {status}: {found}")
        return found

    def order(self, **changes: object) -> dict[str, object]:
        """The body of an order."""
        fresh = {"id": secrets.token_hex(8), "merchant_id": self.id, "asset": "USDT", "amount_minor": 5_000_000}
        return fresh | changes


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def suite(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    """The four services as processes on databases of their own, NATS and a chain: started once."""
    folder = tmp_path_factory.mktemp("suite")
    databases = {service: await postgres_server.clone(service) for service in SERVICES_WITH_DATABASE}
    async with AsyncExitStack() as stack:
        nats = Nats(folder, free_port(), folder / "nats.log")
        anvil = Anvil(folder, free_port(), folder / "anvil.log")
        await stack.enter_async_context(running(nats))
        await stack.enter_async_context(running(anvil))
        async with DevChain.connect(anvil.url) as dev:
            await dev.finalize()  # a chain without a final block is unavailable
        wiring = Wiring(
            ports={service: [free_port()] for service in SERVICES},
            metrics_ports={service: [free_port()] for service in SERVICES},
            database_url=lambda database, _role, _password: databases[database].url,
            nats_url=nats.url,
            rpc_url=anvil.url,
            secrets={name: secrets.token_hex(24) for name in SECRET_NAMES},
        )
        made = Suite(
            url=f"http://127.0.0.1:{wiring.ports['gateway'][0]}",
            admin_key=wiring.secrets["admin_key"],
            grpc_token=wiring.secrets["gateway_grpc_token"],
            rpc_url=anvil.url,
            wiring=wiring,
            environment={**os.environ, **wiring.environment()},
            logs=folder,
        )
        for name in SERVICES:
            made.processes[name] = await stack.enter_async_context(running(made.service(name)))
        await until(lambda: http_is_ok(f"{made.url}/dbhealth"), "all parts to be up")
        yield made


@pytest_asyncio.fixture
async def client(suite: Suite) -> AsyncIterator[Client]:
    """A client without a key."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield Client(session, suite.url, {})


@pytest_asyncio.fixture
async def chain(suite: Suite) -> AsyncIterator[DevChain]:
    """The suite's chain; it mines when told to."""
    async with DevChain.connect(suite.rpc_url) as connected:
        yield connected


async def _register(suite: Suite, client: Client) -> Merchant:
    """A new merchant with a wallet that nobody else has."""
    wallet = "0x" + secrets.token_hex(20)
    body = {"name": "Shop", "merchant_wallet_address": wallet}
    made = await client.post("/merchants", body, X_Admin_Key=suite.admin_key)
    assert made.status == 201, made
    key = made.body["api_key"]
    return Merchant(made.body["id"], key, made.body["merchant_wallet_address"], client.with_key(key))


@pytest_asyncio.fixture
async def merchant(suite: Suite, client: Client) -> Merchant:
    """A merchant."""
    return await _register(suite, client)


@pytest_asyncio.fixture
async def other(suite: Suite, client: Client) -> Merchant:
    """Another merchant."""
    return await _register(suite, client)
