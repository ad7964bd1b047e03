"""Crowds: more than can be done, callers who leave, orders killed under load. Nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest_asyncio

from local.ports import free_port
from local.process import Process, running, until

CONNECTIONS = 3000  # the gateway lets 2000 wait
MAX_MEMORY_MB = 200


@dataclass
class Shop:
    """A gateway and an orders of this test alone, beside those that other tests use."""

    suite: object
    url: str
    port: int
    gateway: Process
    orders: Process

    @asynccontextmanager
    async def orders_again(self) -> AsyncIterator[None]:
        """The orders process anew, at the same address."""
        async with running(self.suite.service("orders")):
            yield


@pytest_asyncio.fixture
async def shop(suite) -> AsyncIterator[Shop]:
    ports = {**suite.wiring.ports, "gateway": [free_port()], "orders": [free_port()]}
    metrics_ports = {**suite.wiring.metrics_ports, "gateway": [free_port()], "orders": [free_port()]}
    wiring = replace(suite.wiring, ports=ports, metrics_ports=metrics_ports)
    url = f"http://127.0.0.1:{ports['gateway'][0]}"
    own = replace(suite, wiring=wiring, url=url, environment={**os.environ, **wiring.environment()})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * CONNECTIONS)), hard))
    async with AsyncExitStack() as stack:
        orders = await stack.enter_async_context(running(own.service("orders")))
        gateway = await stack.enter_async_context(running(own.service("gateway")))
        yield Shop(own, url, ports["gateway"][0], gateway, orders)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def request(key: str, body: dict[str, object]) -> bytes:
    """One create."""
    content = json.dumps(body).encode()
    lines = ["POST /orders HTTP/1.1", "Host: a", "Connection: close", f"X-API-Key: {key}"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(content)}", "", ""]
    return "\r\n".join(lines).encode() + content


async def ask(port: int, key: str, body: dict[str, object]) -> tuple[int, bytes]:
    """One create on a connection of its own: status and head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request(key, body))
        head = (await asyncio.wait_for(reader.read(), 30)).partition(b"\r\n\r\n")[0]
        return int(head[9:12]), head
    finally:
        writer.close()


def memory_mb(pid: int) -> float:
    """Resident memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1_048_576


async def test_more_than_can_wait_is_refused(shop, merchant) -> None:
    """With orders not answering, what does not fit is refused at once; the rest gets an order or a 503."""
    assert (await merchant.client.at(shop.url).get("/orders")).status == 200  # its key is known now
    bodies = [merchant.order() for _ in range(CONNECTIONS)]
    os.kill(shop.orders.pid, signal.SIGSTOP)
    try:
        asking = [asyncio.create_task(ask(shop.port, merchant.api_key, body)) for body in bodies]
        first, _ = await asyncio.wait(asking, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert {task.result()[0] for task in first} == {503}
    finally:
        os.kill(shop.orders.pid, signal.SIGCONT)
    answers = await asyncio.gather(*asking)
    statuses = Counter(status for status, _ in answers)
    assert statuses.keys() <= {200, 201, 503}
    assert statuses[503] >= CONNECTIONS - 2000 - 2 * 128
    assert all(b"\r\nretry-after: 1" in head for status, head in answers if status == 503)
    assert memory_mb(shop.gateway.pid) < MAX_MEMORY_MB
    made = [body["id"] for body, (status, _) in zip(bodies, answers, strict=True) if status < 300]
    for order in made[:: max(1, len(made) // 20)]:
        assert (await merchant.client.get(f"/orders/{order}")).status == 200
    assert (await merchant.client.at(shop.url).post("/orders", merchant.order())).status == 201


async def test_who_leaves_concerns_nobody_else(shop, merchant) -> None:
    """Callers that disconnect while their batch is under way, or waits: everybody else gets an order."""
    assert (await merchant.client.at(shop.url).get("/orders")).status == 200  # its key is known now
    bodies = [merchant.order() for _ in range(100)]
    os.kill(shop.orders.pid, signal.SIGSTOP)
    try:
        leaving = [await asyncio.open_connection("127.0.0.1", shop.port) for _ in range(100)]
        for _, writer in leaving:
            writer.write(request(merchant.api_key, merchant.order()))
        staying = [asyncio.create_task(ask(shop.port, merchant.api_key, body)) for body in bodies]
        assert (await merchant.client.at(shop.url).get("/health")).status == 200  # it has read what came before
        for _, writer in leaving:
            writer.transport.abort()
    finally:
        os.kill(shop.orders.pid, signal.SIGCONT)
    assert Counter(status for status, _ in await asyncio.gather(*staying)) == {201: len(bodies)}


async def test_orders_killed_under_load(shop, merchant) -> None:
    """kill -9 with streams open: 503 with Retry-After until it is back, then 201; what was acknowledged is there."""
    client = merchant.client.at(shop.url)
    acknowledged: list[str] = []
    seen: list[int] = []
    ended = asyncio.Event()

    async def shopper() -> None:
        while not ended.is_set():
            body = merchant.order()
            answer = await client.post("/orders", body)
            seen.append(answer.status)
            assert answer.status in (200, 201, 503), answer
            if answer.status == 503:
                assert answer.headers["Retry-After"] == "1"
            else:
                acknowledged.append(str(body["id"]))

    async def goes(status: int) -> None:
        seen.clear()

        async def found() -> bool:
            return status in seen

        await until(found, f"an answer {status}", bound=20)

    shoppers = [asyncio.create_task(shopper()) for _ in range(40)]
    try:
        await goes(201)
        os.kill(shop.orders.pid, signal.SIGKILL)
        await goes(503)
        async with shop.orders_again():
            await goes(201)
            ended.set()
            await asyncio.gather(*shoppers)
    finally:
        for task in shoppers:
            task.cancel()
    reads = await asyncio.gather(*(merchant.client.get(f"/orders/{order}") for order in acknowledged))
    assert Counter(answer.status for answer in reads) == {200: len(acknowledged)}
