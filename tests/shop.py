"""A merchant, its customers and the operator, as a test plays them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
from bip32 import BIP32
from pydantic import SecretStr

from chains import checksum_address
from kit.channel import Peer
from local.background import RunningSuite
from local.devchain import DevChain
from ospay.ledger.v1 import ledger_pb2, ledger_pb2_grpc
from ospay.orders.v1 import orders_pb2, orders_pb2_grpc

FIVE = 5_000_000
BASE_PER_MINOR = 10**12
WAIT_SECONDS = 30.0
PAID_BUCKETS = (ledger_pb2.BUCKET_MERCHANT, ledger_pb2.BUCKET_CLEARING)

T = TypeVar("T")


@dataclass
class Shop:
    """One merchant on a running suite; `wallet` is empty where each order has an address of its own."""

    suite: RunningSuite
    http: aiohttp.ClientSession
    chain: DevChain
    ledger: Peer
    orders: Peer
    id: str
    key: str
    wallet: str

    async def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = "",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """(status, JSON body) of a request; with this merchant's key unless told otherwise (None: no key)."""
        sent = dict(headers or {})
        if key is not None:
            sent["X-API-Key"] = key or self.key
        async with self.http.request(method, self.suite.run["gateway_url"] + path, json=body, headers=sent) as answer:
            return answer.status, await answer.json(content_type=None)

    async def create(self, order_id: str | None = None, **fields: object) -> str:
        """A new order of 5 USDT; returns its id."""
        body = {"id": order_id or new_id(), "merchant_id": self.id, "asset": "USDT", "amount_minor": FIVE, **fields}
        status, order = await self.send("POST", "/orders", body)
        assert status == 201, order
        return str(order["id"])

    async def order(self, order_id: str) -> dict[str, Any]:
        """The order as the API shows it."""
        status, order = await self.send("GET", f"/orders/{order_id}")
        assert status == 200, order
        return dict(order)

    async def claim(self, order_id: str, tx_hash: str) -> tuple[int, Any]:
        """A claim, as anybody may make it."""
        body = {"order_id": order_id, "merchant_id": self.id, "tx_hash": tx_hash}
        return await self.send("POST", "/events/payment-detected", body, key=None)

    async def transfer(
        self, amount_minor: int = FIVE, *, to: str | None = None, dust: int = 0, mine: bool = True
    ) -> str:
        """USDT from a customer; mined unless told otherwise. Returns the transaction's hash."""
        amount = amount_minor * BASE_PER_MINOR + dust
        return await self.chain.send_token(self.chain.accounts[0], to or self.wallet, amount, mine=mine)

    async def give(self, order_id: str, amount_minor: int = FIVE) -> str:
        """A transfer to where the order is to be paid, mined; nobody is told. Returns the transaction's hash."""
        return await self.transfer(amount_minor, to=(await self.order(order_id))["deposit_address"])

    async def pay(self, order_id: str) -> str:
        """Pays, claims and finalizes an order of 5 USDT; returns the transaction's hash."""
        tx = await self.transfer()
        status, answer = await self.claim(order_id, tx)
        assert status == 202, answer
        await self.chain.finalize()
        await self.reaches(order_id, "PAID")
        return tx

    async def refund(self, order_id: str, refund_id: str | None = None, **fields: object) -> tuple[int, Any]:
        """A refund request."""
        body = {"order_id": order_id, "refund_id": refund_id or new_id(), "reason": "asked", **fields}
        return await self.send("POST", "/orders/refund", body)

    async def reaches(self, order_id: str, status: str, seconds: float = WAIT_SECONDS) -> dict[str, Any]:
        """Waits for an order's status."""

        async def there() -> dict[str, Any] | None:
            order = await self.order(order_id)
            return order if order["status"] == status else None

        return await eventually(there, seconds, f"{order_id} to be {status}")

    async def refuted(self, order_id: str, reason: str) -> dict[str, Any]:
        """Waits until the order's last claim is rejected for this reason; the order must be left as it was."""

        async def there() -> dict[str, Any] | None:
            order = await self.order(order_id)
            claim = order["last_claim"]
            return order if claim and claim["state"] == "REJECTED" else None

        order = await eventually(there, WAIT_SECONDS, f"the claim on {order_id} to be rejected")
        assert (order["status"], order["last_claim"]["reason"]) == ("PENDING", reason)
        return order

    async def payments(self, order_id: str, *states: str) -> list[dict[str, Any]]:
        """What reached the order's address, once it is in these states."""

        async def there() -> list[dict[str, Any]] | None:
            status, found = await self.send("GET", f"/orders/{order_id}/payments")
            assert status == 200, found
            return list(found["data"]) if [item["state"] for item in found["data"]] == list(states) else None

        return await eventually(there, WAIT_SECONDS, f"payments of {order_id} to be {states}")

    async def suspense(self, *reasons: str) -> list[orders_pb2.SuspenseItem]:
        """The merchant's open items, newest first, once they are there for these reasons."""

        async def there() -> list[orders_pb2.SuspenseItem] | None:
            stub = orders_pb2_grpc.SuspenseServiceStub(self.orders.channel)
            request = orders_pb2.ListSuspenseRequest(merchant_id=self.id, state=orders_pb2.SUSPENSE_STATE_OPEN)
            found = (await self.orders.call(stub.ListSuspense, request, timeout=10)).items
            return list(found) if [item.reason for item in found] == list(reasons) else None

        return await eventually(there, WAIT_SECONDS, f"suspense for {reasons}")

    async def booked(
        self, balance_minor: int, seconds: float = WAIT_SECONDS, *, suspense_minor: int | None = None
    ) -> dict[str, Any]:
        """Waits until nothing is in flight and the books show this balance, and this suspense where it is given."""

        async def there() -> dict[str, Any] | None:
            status, found = await self.send("GET", f"/reconciliation?merchant_id={self.id}&asset=USDT")
            assert status in (200, 503), found
            if status == 503:  # a part that was killed is not back yet
                return None
            shown = (found["in_flight_count"], found["merchant_balance_minor"], found["suspense_balance_minor"])
            held = shown[2] if suspense_minor is None else suspense_minor
            return found if shown == (0, balance_minor, held) else None

        found = await eventually(there, seconds, f"a balance of {balance_minor}")
        assert found["clearing_balance_minor"] == -balance_minor
        return found

    async def entries(self, order_id: str = "", *, suspense: bool = False) -> list[ledger_pb2.Entry]:
        """The ledger's entries, newest first: of what pays orders, or of what is in suspense."""
        stub = ledger_pb2_grpc.LedgerServiceStub(self.ledger.channel)
        request = ledger_pb2.ListEntriesRequest(merchant_id=self.id, order_id=order_id, page_size=500)
        found = (await self.ledger.call(stub.ListEntries, request, timeout=10)).entries
        return [entry for entry in found if (entry.bucket not in PAID_BUCKETS) == suspense]


@asynccontextmanager
async def open_shop(suite: RunningSuite, **fields: object) -> AsyncIterator[Shop]:
    """Registers a merchant; without an xpub or a wallet among its fields, with a fresh wallet."""
    run = suite.run
    if not fields.keys() & {"xpub", "merchant_wallet_address"}:
        fields["merchant_wallet_address"] = checksum_address("0x" + secrets.token_hex(20))
    ledger = Peer(run["grpc"]["ledger"], token=SecretStr(run["grpc_token"]))
    orders = Peer(run["grpc"]["orders"], token=SecretStr(run["grpc_token"]))
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(timeout=timeout) as http, DevChain.connect(run["rpc_url"]) as chain:
        shop = Shop(suite, http, chain, ledger, orders, "", "", str(fields.get("merchant_wallet_address", "")))
        body = {"name": "Shop", **fields}
        status, made = await shop.send("POST", "/merchants", body, key=None, headers={"X-Admin-Key": run["admin_key"]})
        assert status == 201, made
        shop.id, shop.key = made["id"], made["api_key"]
        try:
            yield shop
        finally:
            await ledger.close()
            await orders.close()


def new_xpub() -> str:
    """Of an account that no test has used."""
    return BIP32.from_seed(secrets.token_bytes(32)).get_xpub_from_path("m/44h/60h/0h")


def new_id() -> str:
    """An id that no test has used."""
    return "t_" + secrets.token_hex(8)


async def eventually(ask: Callable[[], Awaitable[T | None]], seconds: float, what: str) -> T:
    """Asks until there is an answer; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while (answer := await ask()) is None:
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        await asyncio.sleep(0.05)
    return answer


async def returned(suite: RunningSuite, part: str, old: int) -> None:
    """Waits until a part that was killed runs again, as another process."""

    async def back() -> bool | None:
        with suppress(FileNotFoundError, ValueError):
            pids = suite.pids(part)
            return True if pids and old not in pids else None
        return None

    await eventually(back, 30, f"{part} to be restarted")
