"""Orders through the JSON gateway: created as fast as it goes, created at a pace, read."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bench import limits
from bench.disk import probed
from bench.figures import Figures
from bench.load import Client, Result, http, send_all
from bench.stage import Merchant, Stage
from bench.traffic import drive, slack
from bench.wrk import Load

AMOUNT = 5_000_000
FEW, MANY = 64, 256  # connections
MAX_CREATES = 20_000  # per second; requests are made before, so that making them takes no CPU from the suite
READ_IDS = 20_000
LOOKED_AT = 20  # answers that are compared with what was asked for


class Orders:
    """Orders of one merchant. Each load has ids of its own, so that its rows can be counted."""

    def __init__(self, stage: Stage, merchant: Merchant) -> None:
        self._stage = stage
        self._merchant = merchant
        self._run = f"b{random.randrange(10**9)}"
        self._loads = itertools.count()

    async def create(self, connections: int, seconds: float | None = None) -> Load:
        """New orders for so long, the time of one load when None; every one acknowledged is a row."""
        prefix, seconds = self._prefix(), seconds or self._stage.sizes.seconds
        some = itertools.islice(self._creates(prefix), int(MAX_CREATES * seconds))
        done = await drive(self._stage.gateway, some, connections=connections, seconds=seconds, good=201)
        made = await self._count(prefix)
        assert done.good <= made <= done.good + slack(connections), f"{done.good} acknowledged, {made} made"
        return done

    async def create_paced(self, rate: float, seconds: float) -> Result:
        """New orders at so many per second, none refused; latencies are from when each was due."""
        prefix = self._prefix()
        async with Client.open(self._stage.gateway, MANY) as client:
            done = await client.paced(self._creates(prefix), rate, seconds)
        made = await self._count(prefix)
        assert done.statuses == {201: made}, f"{done.statuses}, {made} made"
        return done

    async def create_or_be_refused(self, connections: int, seconds: float) -> Result:
        """New orders, refused or not; every one acknowledged is a row, and none that was refused."""
        prefix = self._prefix()
        async with Client.open(self._stage.gateway, connections) as client:
            done = await client.answered(self._creates(prefix), seconds)
        made = await self._count(prefix)
        assert done.statuses == Counter({201: made, 503: done.statuses[503]}), f"{done.statuses}, {made} made"
        return done

    async def create_each(self, amounts: list[int]) -> list[str]:
        """One order for each amount in minor units, in their order; the ids."""
        prefix = self._prefix()
        ids = [f"{prefix}{number}" for number in range(len(amounts))]
        requests = [self._create(order, amount) for order, amount in zip(ids, amounts, strict=True)]
        await send_all(self._stage.gateway, requests, connections=FEW, good=201)
        return ids

    async def read(self, connections: int) -> Load:
        """Random known orders, by id."""
        seconds = self._stage.sizes.seconds
        sql = "SELECT id FROM orders WHERE merchant_id = $1 ORDER BY random() LIMIT $2"
        ids = await self._stage.column("orders", sql, self._merchant.id, READ_IDS)
        requests = [http("GET", f"/orders/{order}", self._merchant.key) for order in ids]
        done = await drive(
            self._stage.gateway, requests, connections=connections, seconds=seconds, good=200, again=True
        )
        for order in ids[:LOOKED_AT]:
            found = await self._stage.get(f"/orders/{order}", self._merchant)
            assert (found["id"], found["amount_minor"]) == (order, AMOUNT), found
        return done

    async def counts(self) -> tuple[int, int]:
        """(orders that the API has counted, orders that are there)"""
        counted = await self._stage.get("/debug/metrics", self._merchant)
        return counted["orders_created_total"], await self._stage.value("orders", "SELECT count(*) FROM orders")

    def _prefix(self) -> str:
        return f"{self._run}_{next(self._loads)}_"

    def _creates(self, prefix: str) -> Iterator[bytes]:
        return (self._create(f"{prefix}{number}", AMOUNT) for number in itertools.count())

    def _create(self, order: str, amount: int) -> bytes:
        body: dict[str, Any] = {"id": order, "merchant_id": self._merchant.id, "asset": "USDT", "amount_minor": amount}
        return http("POST", "/orders", self._merchant.key, json.dumps(body).encode())

    async def _count(self, prefix: str) -> int:
        # By a range of the key: to count the whole table would take seconds when it is full.
        sql = "SELECT count(*) FROM orders WHERE id >= $1 AND id < $2"
        return int(await self._stage.value("orders", sql, prefix, prefix + "~"))


class Round:
    """The rows of orders, each round anew."""

    def __init__(self, stage: Stage, merchant: Merchant) -> None:
        self._stage = stage
        self._orders = Orders(stage, merchant)

    async def warm(self) -> None:
        """Caches, plans and pools are warm from here on."""
        await self._orders.create(FEW)

    async def measure(self, figures: Figures) -> None:
        """Creates at both loads, creates at half of the larger one, reads."""
        before = await self._orders.counts()
        limit = await limits.inserts(self._stage)
        figures.note("pgbench inserts/s", limit)
        for connections in (FEW, MANY):
            done = await self._orders.create(connections)
            figures.note(f"creates_{connections}", done.per_second / limit)
            figures.note(f"orders created/s, c={connections}", done.per_second)
            figures.note(f"create p99 ms at full load, c={connections}", done.p99)
        with probed(self._stage.suite.folder) as disk:
            paced = await self._orders.create_paced(done.per_second / 2, self._stage.sizes.seconds)
        figures.note("create_p99", paced.percentile(0.99))
        figures.note("create p50 ms at half load", paced.percentile(0.5))
        figures.note("the disk alone in that time, p99 ms", disk.percentile(0.99))
        read = await self._orders.read(MANY)
        figures.note("reads", read.per_second / done.per_second)
        figures.note("orders read/s, c=256", read.per_second)
        counted, there = [after - before for after, before in zip(await self._orders.counts(), before, strict=True)]
        assert counted == there, f"{counted} counted, {there} made"
