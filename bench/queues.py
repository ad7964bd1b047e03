"""NATS as the services use it: packed messages in their streams, each acknowledged from its disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from bench.stage import until

PUBLISH_SECONDS = 10.0
# As many as orders packs into one message (services/orders/src/orders/doorbell.py).
PACKED = 200

Item = TypeVar("Item")


class Queues:
    """One connection to the suite's broker."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._streams = client.jetstream(timeout=PUBLISH_SECONDS)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Queues]:
        """Connects; closes at exit."""
        client = await nats.connect(url)
        try:
            yield cls(client)
        finally:
            await client.close()

    async def publish(self, subject: str, payloads: Iterable[bytes]) -> None:
        """Publishes one message after the other, each when the stream has the last on disk."""
        for payload in payloads:
            await self._streams.publish(subject, payload)

    @asynccontextmanager
    async def told(self, subject: str, size: Callable[[bytes], int]) -> AsyncIterator[Told]:
        """What is published on a subject from here on; `size` says how many items a message holds."""
        told = Told(size)
        subscription = await self._client.subscribe(subject, cb=told.take)
        await self._client.flush()
        try:
            yield told
        finally:
            await subscription.unsubscribe()

    async def drained(self, stream: str, durable: str) -> None:
        """Waits until a consumer has acknowledged everything."""

        async def empty() -> bool:
            info = await self._streams.consumer_info(stream, durable)
            return not info.num_pending and not info.num_ack_pending

        await until(empty, f"{durable} to be drained", every=0.1)


class Told:
    """Messages, and when each came."""

    def __init__(self, size: Callable[[bytes], int]) -> None:
        self._size = size
        self._count = 0
        self._wanted = 0
        self._reached = asyncio.Event()
        self.payloads: list[bytes] = []
        self.last = 0.0  # perf_counter

    async def take(self, message: Msg) -> None:
        """A message has come."""
        self.payloads.append(message.data)
        self._count += self._size(message.data)
        self.last = time.perf_counter()
        if self._wanted and self._count >= self._wanted:
            self._reached.set()

    async def items(self, count: int, seconds: float) -> float:
        """Waits for so many items; the perf_counter of the last. Errors: TimeoutError."""
        self._wanted = count
        if self._count < count:
            await asyncio.wait_for(self._reached.wait(), seconds)
        return self.last


def packs(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """The items as many to a message as orders packs."""
    return (items[start : start + PACKED] for start in range(0, len(items), PACKED))
