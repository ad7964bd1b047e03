"""Proofs in a real database."""

from dataclasses import replace

import asyncpg
import pytest

from kit.database import Database
from verifier.domain import StoreUnavailable, Transfer
from verifier.store import FIND, RECORD, ProofStore, to_columns

TRANSFER = Transfer(
    chain_id=56,
    tx_hash="0x" + "11" * 32,
    log_index=3,
    block_number=100,
    block_hash="0x" + "22" * 32,
    block_time=1_700_000_000,
    contract="0x" + "55" * 20,
    sender="0x" + "66" * 20,
    recipient="0x" + "77" * 20,
    amount_base=2**256 - 1,
)
KEY = (TRANSFER.tx_hash, TRANSFER.contract, TRANSFER.recipient)


async def test_what_is_recorded_is_found(store):
    """A proof comes back exactly, amounts up to 2^256-1 included, under its own key alone."""
    second = replace(TRANSFER, log_index=5, amount_base=1)
    other = replace(TRANSFER, log_index=4, recipient="0x" + "88" * 20)
    other_key = (*KEY[:2], other.recipient)
    expected = {KEY: (TRANSFER, second), other_key: (other,)}
    assert expected == await store.record(56, [second, other, TRANSFER], 120)
    assert {KEY: (TRANSFER, second)} == await store.find(56, [KEY])
    assert await store.find(97, [KEY]) == {}
    assert await store.find(56, [(KEY[0], KEY[2], KEY[1])]) == {}
    assert await store.find(56, []) == {}


async def test_the_first_proof_stands(store):
    """A transaction that comes back elsewhere past finality makes no second transfer."""
    await store.record(56, [TRANSFER], 120)
    moved = replace(TRANSFER, log_index=9, block_number=130, block_hash="0x" + "23" * 32)
    assert await store.record(56, [moved], 140) == {KEY: (TRANSFER,)}
    assert await store.find(56, [KEY]) == {KEY: (TRANSFER,)}
    assert await store.record(56, [TRANSFER], 140) == {KEY: (TRANSFER,)}


async def test_proofs_are_looked_up_by_their_key(made):
    """Thousands of proofs that PostgreSQL has not counted are not read through for one."""
    opened = await Database.open(made.url, application="test")
    async with opened.connection() as connection:
        await connection.execute(
            """
            INSERT INTO transfers (chain_id, tx_hash, log_index, block_number, block_hash, block_time, contract, sender,
                                   recipient, amount_base)
            SELECT 56, sha256(n::text::bytea), 0, 1, sha256(''), now(), substr(sha256('c'), 1, 20),
                   substr(sha256('s'), 1, 20), substr(sha256('r'), 1, 20), 1
            FROM generate_series(1, 4000) AS n
            """
        )
        keys = [(bytes([n] * 32), bytes(20), bytes(20)) for n in range(50)]
        found = await connection.fetch(f"EXPLAIN {FIND}", 56, *([key[place] for key in keys] for place in range(3)))
        transfers = [replace(TRANSFER, tx_hash="0x" + f"{n:02x}" * 32) for n in range(50)]
        recorded = await connection.fetch(f"EXPLAIN {RECORD}", 56, *to_columns(transfers), 1)
    await opened.close()
    for plan, key in ((found, "k"), (recorded, "given")):
        lines = [row[0] for row in plan]
        assert any(f"(chain_id = '56'::bigint) AND (tx_hash = {key}.tx_hash)" in line for line in lines)
        assert not any("Seq Scan" in line for line in lines)


async def test_the_mark_only_rises(store):
    """The highest final height per chain survives, whatever order it was seen in."""
    assert await store.marks() == {}
    for finalized in (120, 110, 130, 125):
        await store.record(56, [TRANSFER], finalized)
    await store.record(8453, [replace(TRANSFER, chain_id=8453)], 7)
    assert await store.marks() == {56: 130, 8453: 7}


async def test_the_service_may_not_change_what_was_proved(store, made):
    """The role can neither update nor delete a proof."""
    await store.record(56, [TRANSFER], 120)
    connection = await asyncpg.connect(made.url)
    try:
        for statement in (
            "UPDATE transfers SET amount_base = 1",
            "DELETE FROM transfers",
            "TRUNCATE transfers",
            "DELETE FROM chain_heads",
            "DROP TABLE transfers",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_the_service_may_not_rewrite_what_was_seen(made):
    """The role can move a sighting from state to state, but change nothing of the transfer and delete no trail."""
    connection = await asyncpg.connect(made.url)
    try:
        await connection.execute("UPDATE sightings SET state = 'GONE' WHERE false")
        for statement in (
            "UPDATE sightings SET amount_base = 1",
            "UPDATE sightings SET block_hash = sha256('')",
            "UPDATE sightings SET log_index = 1",
            "DELETE FROM sightings",
            "DELETE FROM watches",
            "UPDATE watches SET address = ''",
            "DELETE FROM cursors",
            "UPDATE pins SET number = 1",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_an_absent_database_is_a_named_error(made):
    """What cannot be recorded is said so, by the one error that the workflow knows."""
    opened = await Database.open(made.url, application="test")
    await opened.close()
    store = ProofStore(opened)
    for call in (store.marks(), store.find(56, [KEY]), store.record(56, [TRANSFER], 1)):
        with pytest.raises(StoreUnavailable):
            await call
