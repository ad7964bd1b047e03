"""Payments: from the claim over HTTP to the ledger's commit."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Sequence

from bench import limits
from bench.figures import Figures
from bench.load import Client, http
from bench.orders import FEW, Orders
from bench.stage import Merchant, Stage, until
from bench.transfers import Payer
from local.devchain import FINALITY_DEPTH

FIRST_AMOUNT = 1_000_000
LOOK_SECONDS = 0.02
BLOCKS_AT_ONCE = 2  # fewer than make a block final
TAKEN = {200, 202}  # the statuses of a claim that is on disk
BOOKED = """SELECT coalesce(max(version), 0) FROM balances JOIN accounts USING (account_id)
            WHERE merchant_id = $1 AND bucket = 'merchant'"""


class Till:
    """A merchant that is paid at its wallet; each order has an amount of its own, as orders in a shop mostly do."""

    def __init__(self, stage: Stage, merchant: Merchant, payer: Payer) -> None:
        self.stage = stage
        self.merchant = merchant
        self.payer = payer
        self._orders = Orders(stage, merchant)
        self._amounts = itertools.count(FIRST_AMOUNT)
        self._paid: dict[str, int] = {}

    async def create(self, count: int) -> list[tuple[str, int]]:
        """Orders that will all be paid: ids and amounts in minor units."""
        amounts = list(itertools.islice(self._amounts, count))
        made = list(zip(await self._orders.create_each(amounts), amounts, strict=True))
        self._paid.update(made)
        return made

    async def send(self, orders: Sequence[tuple[str, int]]) -> list[str]:
        """Their transfers, not mined; the transactions' hashes."""
        return await self.payer.send([(self.merchant.wallet, amount) for _, amount in orders])

    def claim(self, order: str, tx_hash: str) -> bytes:
        """The request by which anybody says that an order was paid."""
        body = {"order_id": order, "merchant_id": self.merchant.id, "tx_hash": tx_hash}
        return http("POST", "/events/payment-detected", None, json.dumps(body).encode())

    async def booked(self) -> int:
        """Payments in the ledger."""
        return int(await self.stage.value("ledger", BOOKED, self.merchant.id))

    async def check(self) -> None:
        """Every order is PAID with its amount, each is booked once, and the books hold the exact sum."""
        sql = """SELECT count(*) FROM orders JOIN unnest($1::text[], $2::bigint[]) AS w (id, amount) USING (id)
                 WHERE merchant_id = $3 AND state IN ('PAID', 'SETTLED') AND received_minor = amount"""
        paid = await self.stage.value("orders", sql, list(self._paid), list(self._paid.values()), self.merchant.id)
        assert paid == len(self._paid), f"{paid} of {len(self._paid)} orders are PAID"
        await self.stage.check_books(self.merchant, sum(self._paid.values()))
        sql = "SELECT count(*) FROM entries WHERE merchant_id = $1"
        lines = await self.stage.value("ledger", sql, self.merchant.id)
        assert lines == 2 * len(self._paid), f"{lines} entries for {len(self._paid)} payments"


class Round:
    """The row of payments, each round anew."""

    def __init__(self, till: Till) -> None:
        self._till = till
        self._stage = till.stage
        self._payer = till.payer
        self._left = 0  # transfers that are not mined

    async def measure(self, figures: Figures) -> None:
        """Payments per second, from the first claim until the last is booked."""
        limit = await limits.inserts(self._stage)
        figures.note("pgbench inserts/s", limit)
        orders = await self._till.create(self._stage.sizes.payments)
        hashes = await self._till.send(orders)
        ids = dict(zip(hashes, (order for order, _ in orders), strict=True))
        before = await self._till.booked()
        await self._payer.limit_blocks(self._stage.sizes.block_payments)
        started = time.perf_counter()
        await self._claim(ids)
        await self._payer.chain.mine(FINALITY_DEPTH)

        async def all_booked() -> bool:
            return await self._till.booked() >= before + len(ids)

        await until(all_booked, f"{len(ids)} payments to be booked", every=LOOK_SECONDS)
        paid = len(ids) / (time.perf_counter() - started)
        await self._payer.limit_blocks(None)
        await self._till.check()
        figures.note("payments", paid / limit)
        figures.note("payments/s", paid)

    async def _claim(self, ids: dict[str, str]) -> None:
        """Block by block: one is mined and its payments are claimed, and meanwhile the next one.

        So claims come before finality, as they do where a customer's wallet tells the shop, and the chain goes on.
        """
        self._left = len(ids)
        turn = asyncio.Lock()
        await asyncio.gather(*(self._claim_blocks(ids, turn) for _ in range(BLOCKS_AT_ONCE)))

    async def _claim_blocks(self, ids: dict[str, str], turn: asyncio.Lock) -> None:
        async with Client.open(self._stage.gateway, FEW) as client:
            while mined := await self._mine(turn):
                done = await client.answered((self._till.claim(ids[tx], tx) for tx in mined), 60)
                assert set(done.statuses) <= TAKEN, done.statuses

    async def _mine(self, turn: asyncio.Lock) -> list[str]:
        """The transactions of one more block; none when all are mined."""
        async with turn:
            if not self._left:
                return []
            mined = await self._payer.mine()
            assert mined, f"{self._left} transfers are not mined"
            self._left -= len(mined)
            return mined
