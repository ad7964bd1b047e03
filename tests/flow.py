"""Payments that flow while something breaks, and the account of what was acknowledged."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import aiohttp

from tests.shop import BASE_PER_MINOR, Shop, eventually, new_id

CONVERGE_SECONDS = 30.0
RETRY_SECONDS = 40.0
T = TypeVar("T")


@dataclass
class Flow:
    """Creates, pays and claims orders until it is stopped; keeps what was answered with a 2xx."""

    shop: Shop
    chance: random.Random
    orders: dict[str, int] = field(default_factory=dict)
    claimed: dict[str, str] = field(default_factory=dict)
    _stopped: bool = False

    async def run(self, payers: int) -> None:
        """Some payers at once, each with an account of its own: two payments of one would race for its nonce."""
        await asyncio.gather(*(self._pay_on(sender) for sender in self.shop.chain.accounts[:payers]))

    def stop(self) -> None:
        """Lets each payer finish what it has begun."""
        self._stopped = True

    async def _pay_on(self, sender: str) -> None:
        while not self._stopped:
            amount = self.chance.randrange(1, 10_000_000)
            order = new_id()
            body = {"id": order, "merchant_id": self.shop.id, "asset": "USDT", "amount_minor": amount}
            await self._until_acknowledged(lambda body=body: self.shop.send("POST", "/orders", body))  # type: ignore[misc]
            self.orders[order] = amount
            tx = await self.shop.chain.send_token(sender, self.shop.wallet, amount * BASE_PER_MINOR)
            await self._until_acknowledged(lambda order=order, tx=tx: self.shop.claim(order, tx))  # type: ignore[misc]
            self.claimed[order] = tx

    async def _until_acknowledged(self, ask: Callable[[], Awaitable[tuple[int, object]]]) -> None:
        """A client's way: the same request again until there is a 2xx. 503 and a lost connection are no answer."""
        deadline = time.monotonic() + RETRY_SECONDS
        while True:
            try:
                status, answer = await ask()
                if status < 300:
                    return
                assert status == 503, answer
            except (aiohttp.ClientError, TimeoutError):
                pass
            assert time.monotonic() < deadline, f"no acknowledgement within {RETRY_SECONDS} s"
            await asyncio.sleep(0.1)

    async def converge(self) -> None:
        """Every acknowledged claim ends PAID, every order is there, and the books hold their exact sum."""
        started = time.monotonic()
        for order in self.claimed:
            left = CONVERGE_SECONDS - (time.monotonic() - started)
            await self._eventually_paid(order, max(left, 1.0))
        total = sum(self.orders[order] for order in self.claimed)
        await self.shop.booked(total, max(CONVERGE_SECONDS - (time.monotonic() - started), 1.0))
        for order, amount in self.orders.items():
            found = await self.shop.order(order)
            assert found["amount_minor"] == amount
        entries = await self.shop.entries()
        assert sum(item.amount_minor for item in entries if item.direction == 1) == total
        assert sum(item.amount_minor for item in entries if item.direction == 2) == total
        assert len({item.event_id for item in entries}) == len(self.claimed)

    async def _eventually_paid(self, order: str, seconds: float) -> None:
        async def there() -> bool | None:
            try:
                return True if (await self.shop.order(order))["status"] == "PAID" else None
            except (aiohttp.ClientError, AssertionError):
                return None

        await eventually(there, seconds, f"{order} to be PAID")


async def first_claims(flow: Flow, count: int) -> None:
    """Waits until the flow has had some claims acknowledged."""

    async def enough() -> bool | None:
        return True if len(flow.claimed) >= count else None

    await eventually(enough, 60, f"{count} claims to be acknowledged")
