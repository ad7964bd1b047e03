"""What the chain takes back, before finality and beyond it."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from verifier.domain import Claim, Waiting
from verifier.store import ProofStore
from verifier.watch import decisions
from verifier.workflow import verify

ONE = 10**18
STATES = ("seen", "final", "reversed")


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    """A node that knows a transaction no more is believed at once."""
    monkeypatch.setattr(decisions, "DOUBT_SECONDS", 0.0)


async def raw(anvil, tx):
    """A transaction as it was signed."""
    return await anvil.rpc("eth_getRawTransactionByHash", tx)


async def again(watcher):
    """Looks again at once at what waits for its next look."""
    await watcher.rows("UPDATE sightings SET next_look_at = now() RETURNING id")
    await watcher.passes()


async def test_what_was_dropped_before_finality_is_gone(watcher, anvil):
    """A transfer whose block was replaced and that is in no other is GONE, and never becomes FINAL."""
    await watcher.watch(anvil.accounts[1])
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await watcher.passes()
    await anvil.rpc("anvil_reorg", 1, [])
    await watcher.passes()
    assert [("GONE", ONE, tx)] == await watcher.seen()
    await anvil.finalize()
    await watcher.passes()
    assert [("GONE", ONE, tx)] == await watcher.seen()
    versions = await watcher.rows("SELECT version, confirmed_version FROM sightings")
    assert [(2, 0)] == [tuple(row) for row in versions]


async def test_what_moved_before_finality_is_followed(watcher, anvil):
    """A transfer that comes back in another block is another sighting, which becomes FINAL; the old one is GONE."""
    await watcher.watch(anvil.accounts[1])
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.mine()
    await watcher.passes()
    await anvil.rpc("anvil_reorg", 2, [[await raw(anvil, tx), 1]])
    await watcher.passes()
    assert [("GONE", ONE, tx), ("SEEN", ONE, tx)] == await watcher.seen()
    await anvil.finalize()
    await watcher.passes()
    assert [("GONE", ONE, tx), ("FINAL", ONE, tx)] == await watcher.seen()


async def test_a_reorganisation_that_nobody_looked_at_leaves_no_trace(watcher, anvil):
    """Dropped and mined again between two passes: one sighting, in the block where it is."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.rpc("anvil_reorg", 1, [[await raw(anvil, tx), 0]])
    await anvil.finalize()
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()


async def deep(anvil, depth, kept=()):
    """A reorganisation past finality that keeps some transactions, each in the block of a place."""
    await anvil.rpc("anvil_reorg", depth, [[await raw(anvil, tx), place] for tx, place in kept])
    await anvil.mine()


async def test_a_payment_that_vanished_beyond_finality_is_reversed(watcher, anvil):
    """FINAL and then nowhere: REVERSED, told again; and no proof of it answers a claim any more."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.finalize()
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    await deep(anvil, 8)
    await watcher.passes(2)
    assert [("REVERSED", ONE, tx)] == await watcher.seen()
    (row,) = await watcher.rows("SELECT version, confirmed_version FROM sightings")
    assert row["version"] > row["confirmed_version"]
    claim = Claim("c", "BSC", "USDT", 56, anvil.token.lower(), tx, anvil.accounts[1].lower(), 4_000_000_000)
    (outcome,) = await verify([claim], watcher.panel, ProofStore(watcher.pool), asyncio.Semaphore(1))
    assert isinstance(outcome, Waiting)


async def test_a_payment_that_only_moved_beyond_finality_is_kept(watcher, anvil):
    """FINAL and then final in another block: one FINAL sighting known by the same index, the old place as the trail."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.finalize()
    await watcher.passes()
    await deep(anvil, 8, [(tx, 5)])
    await anvil.finalize()
    await watcher.passes(2)
    assert [("GONE", ONE, tx), ("FINAL", ONE, tx)] == await watcher.seen()
    rows = await watcher.rows("SELECT state, version > confirmed_version AS open FROM sightings ORDER BY state")
    assert [("FINAL", True), ("GONE", False)] == [tuple(row) for row in rows]


async def test_a_moved_payment_keeps_the_index_it_is_known_by(watcher, anvil):
    """In its new block the transfer has another log index, and is still told as the payment that it was."""
    payer, shop, other = anvil.accounts[:3]
    await watcher.watch(shop)
    await watcher.passes()
    tx = await anvil.send_token(payer, shop, ONE, mine=True)
    await anvil.mine()
    before = await anvil.send_token(anvil.accounts[5], other, 1, mine=True)
    await anvil.finalize()
    await watcher.passes()
    depth = await anvil.head() - int((await anvil.receipt(tx))["blockNumber"], 16) + 1
    await deep(anvil, depth, [(before, 2), (tx, 2)])
    moved = await anvil.receipt(tx)
    assert "0x1" == moved["logs"][0]["logIndex"]
    await anvil.finalize()
    await watcher.passes(2)
    rows = await watcher.rows("SELECT log_index, known_index FROM sightings WHERE state = 'FINAL'")
    assert [(1, 0)] == [tuple(row) for row in rows]
    taken = [report for report in await watcher.register.read(watcher.rung) if report.state == "FINAL"]
    assert [0] == [report.transfer.log_index for report in taken]


async def test_what_vanished_and_what_moved_are_told_apart(watcher, anvil):
    """Of two payments one vanishes and one moves: the one is REVERSED, the other kept."""
    shop = anvil.accounts[1]
    await watcher.watch(shop)
    await watcher.passes()
    lost = await anvil.send_token(anvil.accounts[0], shop, 1, mine=True)
    kept = await anvil.send_token(anvil.accounts[5], shop, 2, mine=True)
    await anvil.finalize()
    await watcher.passes()
    await deep(anvil, 8, [(kept, 4)])
    await anvil.finalize()
    await watcher.passes(2)
    standing = [(state, tx) for state, _, tx in await watcher.seen() if state != "GONE"]
    assert {("REVERSED", lost), ("FINAL", kept)} == set(standing)


async def test_a_reversed_payment_that_comes_back_is_told_again(watcher, anvil):
    """A transaction that was reversed and is mined again later becomes FINAL again, known by the same index."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    signed = await raw(anvil, tx)
    await anvil.finalize()
    await watcher.passes()
    await deep(anvil, 8)
    await watcher.passes(2)
    await anvil.rpc("eth_sendRawTransaction", signed)
    await anvil.finalize()
    await watcher.passes()
    assert [("REVERSED", ONE, tx), ("FINAL", ONE, tx)] == await watcher.seen()
    rows = await watcher.rows("SELECT DISTINCT known_index FROM sightings")
    assert [0] == [row["known_index"] for row in rows]


async def test_a_second_reorganisation_beyond_finality_reverses_what_had_moved(watcher, anvil):
    """A payment that moved past finality and then vanishes is REVERSED under the index it is known by."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.finalize()
    await watcher.passes()
    await deep(anvil, 8, [(tx, 3)])
    await anvil.finalize()
    await watcher.passes(2)
    await deep(anvil, 16)
    await watcher.passes(2)
    assert ["GONE", "REVERSED"] == await watcher.states()


async def test_a_reversal_is_not_said_in_haste(watcher, anvil, monkeypatch):
    """While a node may only have lost its index, a vanished payment is in doubt and stays FINAL."""
    monkeypatch.setattr(decisions, "DOUBT_SECONDS", 3600.0)
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.finalize()
    await watcher.passes()
    await deep(anvil, 8)
    await watcher.passes(2)
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    monkeypatch.setattr(decisions, "DOUBT_SECONDS", 0.0)
    await again(watcher)
    assert [("REVERSED", ONE, tx)] == await watcher.seen()


async def test_an_incident_is_counted(watcher, anvil):
    """A reorganisation past finality and what became of its payments show in the metrics."""

    def counted():
        names = [("verifier_deep_reorgs_total", {}), *(("verifier_sightings_total", {"state": s}) for s in STATES)]
        return [REGISTRY.get_sample_value(name, {"chain": "BSC", **labels}) or 0 for name, labels in names]

    before = counted()
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await watcher.passes()
    await anvil.finalize()
    await watcher.passes()
    await deep(anvil, 8)
    await watcher.passes(2)
    assert [1, 1, 1, 1] == [now - then for now, then in zip(counted(), before, strict=True)]
    assert 1 == REGISTRY.get_sample_value("verifier_watched_addresses", {"chain": "BSC"})


async def test_the_chain_goes_on_after_an_incident(watcher, anvil):
    """After a reorganisation past finality new payments are found, and the cursor is on the new chain."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    await anvil.mine(6)
    await watcher.passes()
    await deep(anvil, 9)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.finalize()
    await watcher.passes(2)
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    coverage = await watcher.register.coverage(56)
    header = await anvil.rpc("eth_getBlockByNumber", hex(coverage.position.number), False)
    assert (await anvil.finalized(), header["hash"]) == (coverage.position.number, coverage.position.hash)


async def test_a_restart_during_an_incident_changes_nothing(watcher, make_watcher, liar, anvil):
    """What was in doubt when the scanner ended is settled by the next one."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.finalize()
    await watcher.passes()
    await deep(anvil, 8)
    await watcher.scanner.look()
    second = await make_watcher(liar.url)
    await again(second)
    assert [("REVERSED", ONE, tx)] == await second.seen()


async def test_another_chain_is_not_followed(watcher, liar, anvil, bsc):
    """When no final block that was looked through stands, nothing is scanned and nothing is reversed."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.finalize()
    await watcher.passes()
    before = await watcher.covered()
    await watcher.rows("UPDATE pins SET hash = sha256('other') RETURNING number")
    await watcher.rows("UPDATE cursors SET hash = sha256('other') RETURNING number")
    await watcher.scanner.begin()
    await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 2, mine=True)
    await anvil.finalize()
    await watcher.passes(2)
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    assert before == await watcher.covered()


async def test_one_endpoint_that_tells_another_past_reverses_nothing(watcher, liar, anvil):
    """A cursor block that only the log answer tells otherwise is no reorganisation; it heals when the lie ends."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.finalize()
    await watcher.passes()
    cursor = hex((await watcher.covered())[0])

    def lie(requests, answers):
        if not any(item["method"] == "eth_getLogs" for item in requests):
            return answers
        return [
            {**answer, "result": {**answer["result"], "hash": "0x" + "77" * 32}}
            if question["params"][:1] == [cursor]
            else answer
            for question, answer in zip(requests, answers, strict=True)
        ]

    liar.lie = lie
    later = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 2, mine=True)
    await watcher.passes(2)
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    liar.lie = None
    await anvil.finalize()
    await watcher.passes()
    assert [("FINAL", ONE, tx), ("FINAL", 2, later)] == await watcher.seen()


async def test_a_proof_given_to_a_claim_is_not_forgotten_when_its_block_goes(watcher, anvil, bsc):
    """Proved to a claim above the cursor, then taken back: in doubt and REVERSED, not silently GONE."""
    shop = anvil.accounts[1]
    await watcher.watch(shop)
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], shop, ONE, mine=True)
    await watcher.passes()
    await anvil.finalize()
    claim = Claim("c", "BSC", "USDT", 56, anvil.token.lower(), tx, shop.lower(), 4_000_000_000)
    await verify([claim], watcher.panel, ProofStore(watcher.pool), asyncio.Semaphore(1))
    await deep(anvil, 6)
    await watcher.passes(2)
    await again(watcher)
    assert [("REVERSED", ONE, tx)] == await watcher.seen()
