"""The key cache: seconds old at most, one question at a time, no key in memory."""

from __future__ import annotations

import asyncio
import gc

import pytest

from gateway import keys
from gateway.keys import KeyCache
from kit.errors import Fault, Kind


class Orders:
    """Knows the keys that are live."""

    def __init__(self) -> None:
        self.live = {"good": "mrc_1"}
        self.asked: list[str] = []
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def ask(self, key: str) -> str:
        self.asked.append(key)
        await self.gate.wait()
        if self.down:
            raise Fault(Kind.UNAVAILABLE, "unavailable", "down")
        if key not in self.live:
            raise Fault(Kind.UNAUTHENTICATED, "invalid_api_key", "no")
        return self.live[key]


async def test_asks_once_in_three_seconds() -> None:
    """A good key is asked for again when its answer is 3 s old."""
    now = [100.0]
    orders = Orders()
    cache = KeyCache(orders.ask, clock=lambda: now[0])
    for moment in (100.0, 101.0, 102.9):
        now[0] = moment
        assert await cache.merchant("good") == "mrc_1"
    assert orders.asked == ["good"]
    now[0] = 103.0
    await cache.merchant("good")
    assert orders.asked == ["good", "good"]


async def test_revoked_key_is_refused_within_the_bound() -> None:
    """Nothing that was remembered outlives 3 s."""
    now = [0.0]
    orders = Orders()
    cache = KeyCache(orders.ask, clock=lambda: now[0])
    await cache.merchant("good")
    orders.live.clear()
    now[0] = 3.0
    with pytest.raises(Fault, match="invalid_api_key"):
        await cache.merchant("good")


async def test_bad_key_is_asked_once_a_second() -> None:
    """A refusal is remembered for a second, so that a key made meanwhile works soon."""
    now = [0.0]
    orders = Orders()
    cache = KeyCache(orders.ask, clock=lambda: now[0])
    for moment in (0.0, 0.5, 0.9):
        now[0] = moment
        with pytest.raises(Fault, match="invalid_api_key"):
            await cache.merchant("bad")
    assert orders.asked == ["bad"]
    orders.live["bad"] = "mrc_2"
    now[0] = 1.0
    assert await cache.merchant("bad") == "mrc_2"


async def test_concurrent_requests_share_a_question() -> None:
    """One question for all; who goes away does not take the answer from the others."""
    orders = Orders()
    orders.gate.clear()
    cache = KeyCache(orders.ask)
    tasks = [asyncio.create_task(cache.merchant("good")) for _ in range(10)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    orders.gate.set()
    assert await asyncio.gather(*tasks[1:]) == ["mrc_1"] * 9
    assert orders.asked == ["good"]


async def test_trouble_is_not_remembered() -> None:
    """Orders being down says nothing about the key."""
    orders = Orders()
    orders.down = True
    cache = KeyCache(orders.ask)
    with pytest.raises(Fault, match="unavailable"):
        await cache.merchant("good")
    orders.down = False
    assert await cache.merchant("good") == "mrc_1"


@pytest.mark.parametrize("key", ["", "x" * 257, "ключ", "a\x00b", "a\nb"])
async def test_what_is_no_key_is_not_asked(key: str) -> None:
    """Empty, long and unprintable keys are refused at once."""
    orders = Orders()
    with pytest.raises(Fault, match="invalid_api_key"):
        await KeyCache(orders.ask).merchant(key)
    assert orders.asked == []


async def test_bad_keys_push_out_bad_keys_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of guesses costs no merchant its place, and memory is bounded."""
    monkeypatch.setattr(keys, "MAX_BAD", 5)
    orders = Orders()
    cache = KeyCache(orders.ask, clock=lambda: 0.0)
    await cache.merchant("good")
    for number in range(20):
        with pytest.raises(Fault, match="invalid_api_key"):
            await cache.merchant(f"bad{number}")
    assert await cache.merchant("good") == "mrc_1"
    assert orders.asked.count("good") == 1
    assert len(cache._bad) == 5


async def test_questions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More keys at once than the bound are told to come again."""
    monkeypatch.setattr(keys, "MAX_ASKING", 2)
    orders = Orders()
    orders.gate.clear()
    cache = KeyCache(orders.ask)
    tasks = [asyncio.create_task(cache.merchant(key)) for key in ("good", "b")]
    await asyncio.sleep(0)
    with pytest.raises(Fault, match="overloaded"):
        await cache.merchant("c")
    orders.gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_key_stays_nowhere() -> None:
    """Once answered, no part of the cache holds the key itself."""
    secret = "ospay_" + "5ec" * 20
    orders = Orders()

    async def ask(_key: str) -> str:
        return "mrc_1"

    cache = KeyCache(ask)
    await cache.merchant(secret)
    gc.collect()
    assert secret not in repr([vars(cache), orders.asked])
