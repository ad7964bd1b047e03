"""What a statement reads does not grow with what it is not about. Pages are counted, not seconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from local.explained import Explained
from verifier.watch.store import sightings, watches
from verifier.watch.watching import Span

MANY = 20_000
SEEN = """
    INSERT INTO sightings (chain_id, tx_hash, log_index, block_number, block_hash, block_time, contract, sender,
                           recipient, amount_base, known_index, state, next_report_at, next_look_at)
    SELECT 56, sha256(($1 || n)::bytea), 0, n, sha256(''), now(), substr(sha256('c'), 1, 20),
           substr(sha256('s'), 1, 20), substr(sha256('r'), 1, 20), 5, 0, 'SEEN', now(), now() + $2::interval
    FROM generate_series(1, $3::int) AS n
"""
WATCHED = """
    INSERT INTO watches (chain_id, address, from_block, from_time, until, state, looked_number)
    SELECT 56, substr(sha256(n::text::bytea), 1, 20), 1, now(), now() + interval '30 days', 'WATCHED', 1
    FROM generate_series(1, $1::int) AS n
"""


@pytest.fixture
async def owner(database):
    """The owner's connection, to which PostgreSQL counts nothing by itself, planning as the service does."""
    made = await database("verifier")
    connection = await asyncpg.connect(made.owner_url, server_settings={"plan_cache_mode": "force_custom_plan"})
    for table in ("sightings", "watches"):
        await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    yield connection
    await connection.close()


@pytest.mark.parametrize("prepare", ["SELECT 1", "VACUUM ANALYZE sightings"])
@pytest.mark.parametrize("pause", [timedelta(hours=1), timedelta(minutes=-1)], ids=["put off", "due"])
async def test_a_look_reads_what_it_looks_at(owner, pause, prepare):
    """Ten that are due cost no more with thousands beside them that are put off, or that have their turn later."""
    await owner.execute(SEEN, "due", timedelta(hours=-1), 10)
    await owner.execute(SEEN, "other", pause, MANY)
    await owner.execute(prepare)
    explained = Explained(owner)
    await sightings.due(explained, 56, MANY, 10)
    # 2000 rows are taken of a look, some forty to a page; the rest is a handful for each of ten claims.
    assert explained.pages <= 300


@pytest.mark.parametrize("prepare", ["SELECT 1", "VACUUM ANALYZE watches"])
async def test_ending_reads_what_is_over(owner, prepare):
    """Where the time of no address is over, none of them is read."""
    await owner.execute(WATCHED, MANY)
    await owner.execute(prepare)
    explained = Explained(owner)
    await watches.end(explained, 56, 5, int(datetime.now(UTC).timestamp()))
    assert explained.pages <= 20


@pytest.mark.parametrize("prepare", ["SELECT 1", "VACUUM ANALYZE sightings"])
async def test_spans_are_compared_with_times_and_not_with_reports(owner, prepare):
    """Of a wallet whose reports wait, because orders was away: many of them have one time."""
    await owner.execute(SEEN, "untold", timedelta(hours=1), MANY // 10)
    await owner.execute(prepare)
    (wallet,) = {"0x" + row["recipient"].hex() for row in await owner.fetch("SELECT recipient FROM sightings")}
    await owner.execute("INSERT INTO cursors (chain_id, term, looked_through_at) VALUES (56, 1, now())")
    await owner.execute(
        """
        INSERT INTO watches (chain_id, address, from_block, from_time, state, looked_number, joined_at)
        VALUES (56, substr(sha256('r'), 1, 20), 1, now(), 'WATCHED', 1, now() - interval '1 day')
        """
    )
    explained, earlier = Explained(owner), datetime.now(UTC) - timedelta(hours=1)
    await watches.check(explained, [Span(56, wallet, earlier, earlier + timedelta(minutes=1))] * 100)
    assert explained.in_vain <= 1000
