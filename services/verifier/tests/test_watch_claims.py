"""What is claimed as well is proved once and told once; and when the claim decides nothing, the watcher does."""

import asyncio

import asyncpg
import pytest

from services.verifier.tests.malicious import by_tag, changing, result
from services.verifier.tests.test_watch_rpc import FINAL, Client, watch
from verifier.domain import Claim, Final
from verifier.store import ProofStore
from verifier.workflow import verify

ONE = 10**18
FAR = 4_000_000_000


def claimed(anvil, tx, shop):
    """A claim on the token."""
    return Claim("c", "BSC", "USDT", 56, anvil.token.lower(), tx, shop.lower(), FAR)


@pytest.fixture
async def prove(watcher, anvil):
    """`await prove(tx, shop)` decides a claim."""

    async def proved(tx, shop):
        (outcome,) = await verify(
            [claimed(anvil, tx, shop)], watcher.panel, ProofStore(watcher.pool), asyncio.Semaphore(1)
        )
        assert isinstance(outcome, Final)

    return proved


async def now(watcher):
    """The time that is left to a claim is over."""
    await watcher.rows("UPDATE sightings SET next_look_at = now(), next_report_at = now() RETURNING id")
    await watcher.passes()


async def test_what_a_claim_has_proved_is_taken_over(watcher, liar, anvil, prove):
    """FINAL with no receipt read again and nothing published; whoever confirms nothing is told."""
    shop = anvil.accounts[1]
    await watcher.watch(shop)
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], shop, ONE, mine=True)
    await watcher.passes()
    await anvil.finalize()
    await prove(tx, shop)
    asked, rung = liar.calls["eth_getTransactionReceipt"], len(watcher.rung)
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    assert (asked, rung) == (liar.calls["eth_getTransactionReceipt"], len(watcher.rung))
    await now(watcher)
    (report,) = await watcher.register.take(5)
    assert ("FINAL", 2, tx) == (report.state, report.version, report.transfer.tx_hash)


async def test_what_is_final_when_it_is_found_is_told_once(watcher, anvil):
    """As final, not as seen before: its proof comes in the same pass. What is not final is told as seen."""
    shop = anvil.accounts[1]
    await watcher.watch(shop)
    await watcher.passes()
    await anvil.send_token(anvil.accounts[0], shop, ONE, mine=True)
    await anvil.finalize()
    await anvil.send_token(anvil.accounts[0], shop, ONE, mine=True)
    await watcher.passes()
    assert ["FINAL", "SEEN"] == await watcher.states()
    assert 2 == len(watcher.rung) == len(set(watcher.rung))


async def test_what_is_claimed_is_left_to_its_claim_for_a_moment(watcher, liar, anvil):
    """While a claim is open the watcher neither proves nor tells; when it stays open, it does both by itself."""
    shop = anvil.accounts[1]
    await watcher.watch(shop)
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], shop, ONE, mine=True)
    watcher.awaited.add(claimed(anvil, tx, shop).proof_key)
    await watcher.passes()
    await anvil.finalize()
    await watcher.passes(2)
    assert [("SEEN", ONE, tx)] == await watcher.seen()
    assert (0, []) == (liar.calls["eth_getTransactionReceipt"], watcher.rung)
    await now(watcher)
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    assert 1 == len(watcher.rung)


async def test_a_claim_holds_up_nobody_else(watcher, anvil):
    """Of a transaction that pays two addresses the one that nobody claims is FINAL, and told, at once."""
    first, second = anvil.accounts[1:3]
    await watcher.watch(first, second)
    batch = await anvil.deploy("Batch")
    await anvil.send_token(anvil.accounts[0], batch, ONE, mine=True)
    tx = await anvil.call("Batch", batch, "pay", anvil.token, [first, second, first], [1, 2, 3], mine=True)
    watcher.awaited.add(claimed(anvil, tx, first).proof_key)
    await anvil.finalize()
    await watcher.passes()
    assert [("SEEN", 1, tx), ("FINAL", 2, tx), ("SEEN", 3, tx)] == await watcher.seen()
    assert 1 == len(set(watcher.rung))
    await now(watcher)
    assert ["FINAL"] * 3 == await watcher.states()


async def test_a_transfer_that_the_logs_hid_is_taken_over_too(watcher, liar, anvil, prove):
    """A proof holds all transfers of its transaction: what an operator's logs left out is FINAL with the others."""
    shop = anvil.accounts[1]
    await watcher.watch(shop)
    batch = await anvil.deploy("Batch")
    await anvil.send_token(anvil.accounts[0], batch, ONE, mine=True)
    await watcher.passes()
    tx = await anvil.call("Batch", batch, "pay", anvil.token, [shop, shop], [1, 2], mine=True)
    liar.lie = hiding_one
    await watcher.passes()
    await anvil.finalize()
    await prove(tx, shop)
    await watcher.passes()
    assert [("FINAL", 1, tx), ("FINAL", 2, tx)] == await watcher.seen()


def hiding_one(asked, answers):
    """The first of several logs is left out."""
    for call, answer in zip(asked, answers, strict=True):
        if call["method"] == "eth_getLogs":
            answer["result"] = answer["result"][-1:]
    return answers


async def test_a_proof_whose_block_is_replaced_is_not_taken_over(watcher, liar, anvil, prove):
    """Another block is at the height now: what was proved is in doubt, and not FINAL as if nothing had happened."""
    shop = anvil.accounts[1]
    await watcher.watch(shop)
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], shop, ONE, mine=True)
    watcher.awaited.add(claimed(anvil, tx, shop).proof_key)
    await watcher.passes()
    await anvil.finalize()
    await watcher.passes()
    await prove(tx, shop)
    height = (await anvil.receipt(tx))["blockNumber"]
    liar.lie = changing(by_tag(height), result(hash="0x" + "77" * 32))
    await now(watcher)
    assert [("FINAL", True)] == await doubts(watcher)
    liar.lie = None
    await now(watcher)
    assert [("FINAL", False)] == await doubts(watcher)


async def doubts(watcher):
    """(state, whether it is in doubt)"""
    return [tuple(row) for row in await watcher.rows("SELECT state, doubted_at IS NOT NULL FROM sightings")]


async def test_a_claim_and_a_watch_together(verifier, anvil, until):
    """On a whole verifier: the verdict is published, and the report only handed out, some seconds later, as FINAL."""
    await anvil.mine(10)
    client = Client(verifier)
    await client.listen()
    shop = anvil.accounts[1]
    await client.watch(watch(shop))

    async def watched():
        return not (await client.coverage()).catching_up_count and (await client.coverage()).scanned_number > 0

    await until(watched)
    tx = await anvil.send_token(anvil.accounts[0], shop, ONE)
    claim = verifier.claim(tx, shop)
    await anvil.mine()
    await verifier.verify(claim)
    await anvil.finalize()
    await verifier.hear(claim, "final")
    taken = []

    async def handed_out():
        taken.extend(await client.take())
        return any(report.state == FINAL for report in taken)

    await until(handed_out)
    assert FINAL not in [report.state for report in client.told]
    connection = await asyncpg.connect(verifier.database.owner_url)
    assert 1 == await connection.fetchval("SELECT count(*) FROM sightings WHERE state = 'FINAL'")
    await connection.close()
