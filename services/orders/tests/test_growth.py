"""What a statement reads does not grow with what it is not about, counted by PostgreSQL or not (ADR 11)."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
import pytest

from local.explained import Explained
from orders.messages import ADDRESS_WATCHED
from orders.store import claims, found, outbox, payments, refunds, suspense

MANY = 20_000
PAUSE = timedelta(seconds=5)
TABLES = ("orders", "claims", "payments", "late_payments", "sightings", "suspense", "outbox", "refund_transfers")
COUNTED = pytest.mark.parametrize("prepare", ["SELECT 1", "VACUUM ANALYZE"], ids=["not counted", "counted"])

ORDERS = """
    INSERT INTO orders (id, merchant_id, asset, chain, amount_minor, deposit_address, request_hash, state,
                        received_minor, paid_at, expires_at)
    SELECT 'ord_' || n, 'mrc_1', 'USDT', 'bsc', 5, '0x' || repeat('1', 40), '', 'PAID', 5, now(),
           now() + interval '1 hour'
    FROM generate_series(1, $1::int) AS n
"""
SAME_ID = """
    INSERT INTO orders (id, merchant_id, asset, chain, amount_minor, deposit_address, request_hash, expires_at)
    SELECT '1', 'mrc_' || n, 'USDT', 'bsc', 5, '0x' || repeat('1', 40), '', now() + interval '1 hour'
    FROM generate_series(1, $1::int) AS n
"""
PAYMENTS = """
    INSERT INTO payments (chain_id, tx_hash, log_index, order_id, merchant_id, event_id, amount_base, amount_minor,
                          sender, block_number, block_hash, block_time)
    SELECT 56, '0x' || encode(sha256(n::text::bytea), 'hex'), 0, 'ord_' || n, 'mrc_1', uuidv7(), 5, 5, '0xa', n, '0xb',
           now()
    FROM generate_series(1, $1::int) AS n
"""
SIGHTINGS = """
    INSERT INTO sightings (id, version, state, chain, asset, chain_id, tx_hash, log_index, block_number, block_hash,
                           block_time, sender, recipient, amount_base, amount_minor)
    SELECT uuidv7(), 1, 'FINAL', 'bsc', 'USDT', 56, '0x' || encode(sha256(n::text::bytea), 'hex'), 0, n, '0xb', now(),
           '0xa', '0xr', 5, 5
    FROM generate_series(1, $1::int) AS n
"""
SUSPENSE = """
    INSERT INTO suspense (id, merchant_id, chain, asset, chain_id, tx_hash, log_index, block_number, block_hash,
                          block_time, sender, recipient, amount_base, transfer_minor, amount_minor, reason, state,
                          received_event_id, released_event_id, resolved_at)
    SELECT uuidv7(), 'mrc_' || n % 2, 'bsc', 'USDT', 56, '0x' || encode(sha256(('s' || n)::bytea), 'hex'), 0, n,
           '0xb', now(), '0xa', '0xr', 5, 5, 5, 'unattributed', CASE n % 2 WHEN 1 THEN 'ALLOCATED' ELSE 'OPEN' END,
           uuidv7(), CASE n % 2 WHEN 1 THEN uuidv7() END, CASE n % 2 WHEN 1 THEN now() END
    FROM generate_series(1, $1::int) AS n
"""
DEBTS = """
    INSERT INTO outbox (event_id, subject, merchant_id, asset, payload, next_attempt_at)
    SELECT uuidv7(), 'ospay.orders.v1.order_paid', 'mrc_1', 'USDT', decode(repeat('ab', 300), 'hex'), now()
    FROM generate_series(1, $1::int) AS n
"""


@pytest.fixture
async def owner(database):
    """The owner's connection, to which PostgreSQL counts nothing by itself, planning as the service does."""
    made = await database("orders")
    connection = await asyncpg.connect(made.owner_url, server_settings={"plan_cache_mode": "force_custom_plan"})
    for table in TABLES:
        await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    yield connection
    await connection.close()


@COUNTED
async def test_a_claim_reads_the_order_of_the_merchant_it_names(owner, prepare):
    """Anybody may claim and name a merchant: what others call by the same id is not gone through."""
    await owner.execute(SAME_ID, MANY)
    await owner.execute(prepare)
    for merchant_id in ("mrc_500", "mrc_nobody", None):
        explained = Explained(owner)
        await claims.share(explained, [("1", merchant_id, "0x" + "ab" * 32)])
        assert explained.pages <= 60, merchant_id


@pytest.mark.parametrize("look", ["payments", "sightings", "concerned", "used", "suspense"])
async def test_transactions_are_looked_up(owner, look):
    """What is known of a batch's transactions is found by their hashes before PostgreSQL has counted the tables."""
    for statement in (ORDERS, PAYMENTS, SIGHTINGS, SUSPENSE):
        await owner.execute(statement, MANY)
    hashes = [row[0] for row in await owner.fetch("SELECT tx_hash FROM payments LIMIT 50")]
    explained = Explained(owner)
    match look:
        case "payments":
            await payments.find(explained, hashes)
        case "sightings":
            await found.sightings(explained, hashes)
        case "concerned":
            await found.concerned(explained, [], hashes)
        case "used":
            await refunds.used_transfers(explained, hashes)
        case "suspense":
            await suspense.of_transactions(explained, hashes)
    assert set() == explained.read_through


@COUNTED
async def test_debts_to_one_are_found_beside_those_to_another(owner, prepare):
    """With the ledger away, what is owed to it is not gone through each second for addresses to watch."""
    await owner.execute(DEBTS, MANY)
    await owner.execute(prepare)
    explained = Explained(owner)
    await outbox.take_due(explained, [ADDRESS_WATCHED], PAUSE, PAUSE, 500)
    assert explained.pages <= 20
