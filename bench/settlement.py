"""Settlement: how fast the scheduler makes PAID orders SETTLED."""

from __future__ import annotations

import random

from bench import limits
from bench.figures import Figures
from bench.stage import Merchant, Stage, until

AMOUNT = 5_000_000
# Orders as payments leave them, paid long enough ago to be due, with the transfers that have paid them.
FILL = """
    INSERT INTO orders (id, merchant_id, asset, chain, amount_minor, deposit_address, request_hash, created_block,
                        state, received_minor, tx_hash, paid_at, created_at, expires_at)
    SELECT id, $2::text, 'USDT', 'BSC', $3::bigint, $4::text, sha256(id::bytea), 1, 'PAID', $3::bigint,
           '0x' || encode(sha256(id::bytea), 'hex'), now() - interval '10 minutes', now() - interval '20 minutes',
           now() + interval '10 minutes'
    FROM (SELECT $1::text || n AS id FROM generate_series(1, $5::int) n) o"""
FILL_PAYMENTS = """
    INSERT INTO payments (chain_id, tx_hash, log_index, order_id, merchant_id, event_id, amount_base, amount_minor,
                          sender, block_number, block_hash, block_time)
    SELECT 56, tx_hash, 0, id, merchant_id, gen_random_uuid(), amount_minor::numeric * 1000000000000, amount_minor,
           deposit_address, 2, tx_hash, paid_at
    FROM orders WHERE id >= $1::text AND id < $1::text || '~' AND merchant_id = $2"""
LEFT = "SELECT count(*) FROM orders WHERE merchant_id = $1 AND state = 'PAID'"
# A batch's time is that of its beginning: so all but the last batch, over the time until the last one began.
RATE = """
    SELECT count(*) FILTER (WHERE settled_at < last) / extract(epoch FROM max(last) - min(settled_at))
    FROM (SELECT settled_at, max(settled_at) OVER () AS last
          FROM orders WHERE id >= $1::text AND id < $1::text || '~' AND merchant_id = $2) o"""


class Round:
    """The row of settlement, each round anew."""

    def __init__(self, stage: Stage, merchant: Merchant) -> None:
        self._stage = stage
        self._merchant = merchant
        self._settled = 0

    async def measure(self, figures: Figures) -> None:
        """Orders per second, by the times in their rows."""
        limit = await limits.inserts(self._stage)
        figures.note("pgbench inserts/s", limit)
        prefix, count = f"s{random.randrange(10**9)}_", self._stage.sizes.settled
        await self._stage.execute(
            "orders",
            (FILL, prefix, self._merchant.id, AMOUNT, self._merchant.wallet, count),
            (FILL_PAYMENTS, prefix, self._merchant.id),
        )

        async def done() -> bool:
            return not await self._stage.value("orders", LEFT, self._merchant.id)

        await until(done, f"{count} orders to be settled", every=0.2)
        self._settled += count
        await self._check()
        rate = float(await self._stage.value("orders", RATE, prefix, self._merchant.id))
        figures.note("settlement", rate / limit)
        figures.note("orders settled/s", rate)

    async def _check(self) -> None:
        """Each is SETTLED in a batch, and the batches hold their number and their sum."""
        sql = "SELECT count(settlement_batch_id) FROM orders WHERE merchant_id = $1 AND state = 'SETTLED'"
        settled = await self._stage.value("orders", sql, self._merchant.id)
        sql = "SELECT ARRAY[sum(order_count), sum(total_minor)] FROM settlement_batches WHERE merchant_id = $1"
        batches = await self._stage.value("orders", sql, self._merchant.id)
        assert settled == self._settled, f"{settled} of {self._settled} are settled"
        assert batches == [self._settled, self._settled * AMOUNT], batches
