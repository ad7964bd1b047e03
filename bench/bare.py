"""`python -m bench.bare`: creates through the same libraries with nothing of ours in it, beside the product.

HTTP by uvicorn, JSON by msgspec, concurrent requests as one batch over a gRPC stream, one `INSERT … unnest` with a row
for the outbox: no keys, rules, idempotency, height, metrics, logs or traces. What the product costs more is what these
cost. Needs Linux and wrk.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import asyncpg
import grpc
import msgspec
import uvicorn
import uvloop
from rich.console import Console
from rich.table import Table

from bench import limits
from bench.cpu import seconds_of, used
from bench.load import http
from bench.orders import AMOUNT, FEW, MANY, MAX_CREATES, Orders
from bench.sizes import FULL
from bench.stage import Merchant, Stage, fresh_suite
from bench.traffic import drive
from ospay.orders.v1 import orders_pb2, orders_pb2_grpc

ROUNDS = 3
MAX_BATCH = 200
SCHEMA = """
CREATE TABLE bare_orders (
    id text, merchant_id text, amount_minor bigint, created_at timestamptz, PRIMARY KEY (id, merchant_id)
);
CREATE TABLE bare_outbox (id text, body bytea)
"""
INSERT = """
WITH fresh AS (
    INSERT INTO bare_orders
    SELECT i.*, now() FROM unnest($1::text[], $2::text[], $3::bigint[]) AS i(id, merchant_id, amount_minor)
    ON CONFLICT DO NOTHING RETURNING id, created_at
), owed AS (INSERT INTO bare_outbox SELECT id, sha256(id::bytea) FROM fresh)
SELECT id, created_at FROM fresh
"""


class Order(msgspec.Struct):
    """What is asked for."""

    id: str
    merchant_id: str
    asset: str
    amount_minor: int


class BareOrders(orders_pb2_grpc.OrderServiceServicer):
    """A batch is a statement."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def StreamCreateOrders(self, _: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        while (batch := await context.read()) is not grpc.aio.EOF:
            asked = batch.requests
            columns = [[item.order_id for item in asked], [item.merchant_id for item in asked]]
            rows = await self._pool.fetch(INSERT, *columns, [item.amount_minor for item in asked])
            made = dict(rows)
            response = orders_pb2.BatchCreateOrdersResponse()
            for item in asked:
                order = response.results.add().created.order
                order.order_id, order.merchant_id, order.amount_minor = (
                    item.order_id,
                    item.merchant_id,
                    item.amount_minor,
                )
                order.created_at.FromDatetime(made[item.order_id])
            await context.write(response)


async def serve_orders(database: str) -> None:
    """Serves until it is killed. Prints its port."""
    async with asyncpg.create_pool(database, min_size=2, max_size=2) as pool:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        orders_pb2_grpc.add_OrderServiceServicer_to_server(BareOrders(pool), server)
        _begun(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        await server.wait_for_termination()


class BareGateway:
    """An ASGI application. Two batches are under way at most, and the next one grows meanwhile."""

    def __init__(self, orders: orders_pb2_grpc.OrderServiceStub) -> None:
        self._orders = orders
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[orders_pb2.CreateOrderRequest, asyncio.Future[orders_pb2.Order]]] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._idle: list[Any] = []
        self._read = msgspec.json.Decoder(Order).decode

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request."""
        body = (await receive())["body"]
        asked = self._read(body)
        request = orders_pb2.CreateOrderRequest(order_id=asked.id, amount_minor=asked.amount_minor)
        request.merchant_id = asked.merchant_id
        future: asyncio.Future[orders_pb2.Order] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append((request, future))
        made = await future
        answer = msgspec.json.encode(Order(made.order_id, made.merchant_id, asked.asset, made.amount_minor))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _flush(self, _ended: object = None) -> None:
        while self._waiting and len(self._under_way) < 2:
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
            task = self._loop.create_task(self._send(batch))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            task.add_done_callback(self._flush)

    async def _send(self, batch: list[tuple[orders_pb2.CreateOrderRequest, asyncio.Future[orders_pb2.Order]]]) -> None:
        stream = self._idle.pop() if self._idle else self._orders.StreamCreateOrders()
        await stream.write(orders_pb2.BatchCreateOrdersRequest(requests=[request for request, _ in batch]))
        response = await stream.read()
        self._idle.append(stream)
        for (_, future), result in zip(batch, response.results, strict=True):
            if not future.done():
                future.set_result(result.created.order)


async def serve_http(orders: str) -> None:
    """Serves until it is killed. Prints its port."""
    channel = grpc.aio.insecure_channel(orders, [("grpc.enable_http_proxy", 0)])
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    gateway = BareGateway(orders_pb2_grpc.OrderServiceStub(channel))
    config = uvicorn.Config(
        gateway, loop="none", http="httptools", ws="none", lifespan="off", log_config=None, access_log=False
    )
    _begun(listener.getsockname()[1])
    await uvicorn.Server(config).serve([listener])


def _begun(port: int) -> None:
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # as the product


@asynccontextmanager
async def _process(part: str, where: str) -> AsyncIterator[tuple[int, int]]:
    """A process of this module: (pid, port)."""
    command = [sys.executable, "-m", "bench.bare", part, where]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process.pid, int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


class Bare:
    """The bare processes under load."""

    def __init__(self, stage: Stage, merchant: Merchant, gateway: tuple[int, int], orders: tuple[int, int]) -> None:
        self._stage = stage
        self._merchant = merchant
        self._url = f"http://127.0.0.1:{gateway[1]}"
        self._pids = {"gateway": gateway[0], "orders": orders[0]}
        self._loads = itertools.count()

    def used(self) -> dict[str, float]:
        """CPU seconds of each part so far."""
        mine = {part: seconds_of(pid) for part, pid in self._pids.items()}
        return {**mine, "postgres": used(self._stage.suite)["postgres"]}

    async def create(self, connections: int) -> Any:
        """New rows as fast as it goes; every one acknowledged is there."""
        prefix, seconds = f"x{next(self._loads)}_", self._stage.sizes.seconds
        bodies = (
            {"id": f"{prefix}{number}", "merchant_id": self._merchant.id, "asset": "USDT", "amount_minor": AMOUNT}
            for number in range(int(MAX_CREATES * 1.5 * seconds))
        )
        requests = (http("POST", "/orders", self._merchant.key, json.dumps(body).encode()) for body in bodies)
        done = await drive(self._url, requests, connections=connections, seconds=seconds, good=201)
        count = "SELECT count(*) FROM bare_orders WHERE id >= $1 AND id < $2"
        made = await self._stage.value("orders", count, prefix, prefix + "~")
        assert made >= done.good, f"{done.good} acknowledged, {made} made"
        return done


async def _measure(stage: Stage, table: Table) -> None:
    await stage.execute("orders", *SCHEMA.split(";"))
    merchant = await stage.merchant()
    ours = Orders(stage, merchant)
    database = stage.run["database_owners"]["orders"]
    found: dict[tuple[int, str], list[tuple[float, ...]]] = {}
    async with (
        _process("orders", database) as orders,
        _process("gateway", f"127.0.0.1:{orders[1]}") as gateway,
    ):
        bare = Bare(stage, merchant, gateway, orders)
        sides = {"bare": (bare.create, bare.used), "product": (ours.create, lambda: used(stage.suite))}
        for create, _ in sides.values():
            await create(FEW)  # caches, plans and pools are warm from here on
        for _ in range(ROUNDS):
            limit = await limits.inserts(stage)
            for connections, (side, (create, cpu)) in itertools.product((FEW, MANY), sides.items()):
                before = cpu()
                done = await create(connections)
                spent = {part: 1e6 * (after - before[part]) / done.good for part, after in cpu().items()}
                figures = (
                    done.per_second / limit,
                    sum(spent.values()),
                    spent["gateway"],
                    spent["orders"],
                    spent["postgres"],
                )
                found.setdefault((connections, side), []).append(figures)
    for (connections, side), rounds in sorted(found.items()):
        ratio, *micros = (median(column) for column in zip(*rounds, strict=True))
        table.add_row(f"{side}, c={connections}", f"{ratio:.2f}", *(f"{value:.0f}" for value in micros))


async def _run(table: Table) -> None:
    with fresh_suite(os.environ) as suite:
        async with Stage.open(suite, FULL) as stage:
            await _measure(stage, table)


def main() -> None:
    """Runs it and shows a table, or is one of its processes."""
    if len(sys.argv) > 1:
        part, where = sys.argv[1:]
        uvloop.run({"orders": serve_orders, "gateway": serve_http}[part](where))
        return
    table = Table("creates", "÷ pgbench", "µs of CPU", "gateway", "orders", "postgres")
    uvloop.run(_run(table))
    Console().print(table)


if __name__ == "__main__":
    main()
