"""Transfers on a real chain, asked for over gRPC and over NATS."""

import asyncio
from uuid import uuid4

import pytest

from kit.errors import Fault
from ospay.verifier.v1 import verifier_pb2 as pb
from services.verifier.tests.conftest import CHAINS

USDT = "0x55d398326f99059fF775485246999027B3197955"
UNKNOWN_HASH = "0x" + "ab" * 32
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


def topic(address):
    """An address as a log's topic."""
    return bytes.fromhex(address.removeprefix("0x").lower().rjust(64, "0"))


def word(number):
    """A number as a log's data."""
    return number.to_bytes(32, "big")


async def test_exact_payment_waits_then_is_final(verifier, anvil, reason):
    """A transfer is NOT_FINAL first, and final with the exact amount once its block is."""
    sender, shop = anvil.accounts[:2]
    await anvil.mine(10)
    tx = await anvil.send_token(sender, shop, 5 * 10**18 + 7, mine=True)
    claim = verifier.claim(tx, shop.lower())
    await verifier.publish([claim])
    waiting = (await verifier.hear(claim, "not_final")).waiting
    assert [transfer.amount_base for transfer in waiting.transfers] == ["5000000000000000007"]
    receipt = await anvil.receipt(tx)
    assert int(receipt["blockNumber"], 16) == waiting.block_number
    assert waiting.finalized_number < waiting.block_number <= waiting.head_number
    await anvil.finalize()
    (transfer,) = (await verifier.hear(claim, "final")).final.transfers
    block = await anvil.rpc("eth_getBlockByHash", receipt["blockHash"], False)
    expected = pb.Transfer(
        chain_id=56,
        tx_hash=tx,
        log_index=0,
        block_number=int(receipt["blockNumber"], 16),
        block_hash=receipt["blockHash"],
        sender=transfer.sender,
        recipient=transfer.recipient,
        amount_base="5000000000000000007",
        amount_minor=5000000,
    )
    expected.block_time.seconds = int(block["timestamp"], 16)
    assert expected == transfer
    assert (sender.lower(), shop.lower()) == (transfer.sender.lower(), transfer.recipient.lower())
    assert [reason(verdict) for verdict in verifier.said(claim)] == ["not_final", "final"]


async def test_a_claim_that_is_final_in_a_moment_is_told_so_alone(start_verifier, anvil, reason, until):
    """What waits for its block is told at the next look at the head, unless it is final by then."""
    await anvil.mine(10)
    verifier = await start_verifier(anvil.url, CHAINS.replace("block_seconds = 0.25", "block_seconds = 3"))
    shop = anvil.accounts[1]
    first = verifier.claim(await anvil.send_token(anvil.accounts[0], shop, 10**18, mine=True), shop)
    await verifier.publish([first])
    await verifier.hear(first, "not_final")  # the head was just looked at
    second = verifier.claim(await anvil.send_token(anvil.accounts[0], shop, 10**18, mine=True), shop)
    await verifier.publish([second])

    async def looked_at() -> bool:
        return (await verifier.chains())["BSC"].waiting_count == 2

    await until(looked_at)
    await anvil.finalize()
    await verifier.hear(second, "final")
    assert ["final"] == [reason(verdict) for verdict in verifier.said(second)]


async def test_rpc_answers_now_and_publishes_later(verifier, anvil, reason):
    """Verify does not wait for finality; the verdict that comes later is published."""
    await anvil.mine(10)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    claim = verifier.claim(tx, anvil.accounts[1])
    assert reason(await verifier.verify(claim)) == "not_final"
    await anvil.finalize()
    assert (await verifier.hear(claim, "final")).final.transfers[0].amount_minor == 1000000
    assert reason(await verifier.verify(claim)) == "final"
    assert [reason(verdict) for verdict in verifier.said(claim)] == ["final"]


async def test_each_refutation(verifier, anvil, reason):
    """Failed, fake token, wrong recipient, empty-handed: each is refuted by its name, and only when final."""
    payer, shop, other = anvil.accounts[:3]
    await anvil.mine(10)
    batch, emitter = await anvil.deploy("Batch"), await anvil.deploy("Emitter")
    await anvil.send_token(payer, batch, 10**19, mine=True)
    failed = await anvil.call("Batch", batch, "payAndRevert", anvil.token, [shop], [1], mine=True)
    topics = [bytes.fromhex(TRANSFER[2:]), topic(payer), topic(shop)]
    fake = await anvil.call("Emitter", emitter, "emitLog", topics, word(5 * 10**18), mine=True)
    elsewhere = await anvil.send_token(payer, other, 10**18, mine=True)
    nothing = await anvil.send_token(payer, shop, 0, mine=True)
    approval = await anvil.call("Token", anvil.token, "approve", shop, 10**18, mine=True)
    expected = {
        failed: "tx_failed",
        fake: "wrong_token",
        elsewhere: "wrong_recipient",
        nothing: "no_transfer",
        approval: "no_transfer",
    }
    claims = [verifier.claim(tx, shop) for tx in expected]
    before = await verifier.batch(claims)
    assert all(reason(verdict) in ("not_final", expected[tx]) for tx, verdict in zip(expected, before, strict=True))
    assert reason(before[-1]) == "not_final"
    await anvil.finalize()
    after = await verifier.batch(claims)
    assert list(expected.values()) == [reason(verdict) for verdict in after]
    assert [claim.claim_id for claim in claims] == [verdict.claim_id for verdict in after]


async def test_malformed_events_at_the_real_token_address_do_not_count(verifier, anvil, reason):
    """Even from the pinned contract: dirty topics, 31 or 33 bytes, 2 or 4 topics and other events are nothing."""
    payer, shop = anvil.accounts[:2]
    emitter = await anvil.deploy("Emitter")
    code = await anvil.rpc("eth_getCode", emitter, "latest")
    await anvil.rpc("anvil_setCode", USDT, code)
    event, sender, to = bytes.fromhex(TRANSFER[2:]), topic(payer), topic(shop)
    dirty = b"\x01" + to[1:]
    bad = [
        ([event, sender, dirty], word(10**18)),
        ([event, dirty, to], word(10**18)),
        ([event, sender, to], word(10**18)[:31]),
        ([event, sender, to], word(10**18) + b"\0"),
        ([event, sender, to], b""),
        ([event, sender], word(10**18)),
        ([event, sender, to, to], word(10**18)),
        ([b"\x02" * 32, sender, to], word(10**18)),
        ([], word(10**18)),
    ]
    hashes = [await anvil.call("Emitter", USDT, "emitLog", topics, data, mine=True) for topics, data in bad]
    good = await anvil.call("Emitter", USDT, "emitLog", [event, sender, to], word(2**256 - 1), mine=True)
    await anvil.finalize()
    *refuted, proved = await verifier.batch([verifier.claim(tx, shop) for tx in [*hashes, good]])
    assert ["no_transfer"] * len(bad) == [reason(verdict) for verdict in refuted]
    (transfer,) = proved.final.transfers
    assert (str(2**256 - 1), -1) == (transfer.amount_base, transfer.amount_minor)


async def test_two_transfers_in_one_transaction(verifier, anvil):
    """One transaction with several transfers proves each to its own recipient, and all of them to one."""
    payer, first, second = anvil.accounts[:3]
    await anvil.mine(10)
    batch = await anvil.deploy("Batch")
    await anvil.send_token(payer, batch, 10**20, mine=True)
    recipients, amounts = [first, second, first], [10**18, 2 * 10**18, 3 * 10**18]
    tx = await anvil.call("Batch", batch, "pay", anvil.token, recipients, amounts, mine=True)
    await anvil.finalize()
    one, two = await verifier.batch([verifier.claim(tx, first), verifier.claim(tx, second)])
    assert [(item.log_index, item.amount_minor) for item in one.final.transfers] == [(0, 1000000), (2, 3000000)]
    assert [(item.log_index, item.amount_minor) for item in two.final.transfers] == [(1, 2000000)]
    assert {batch.lower()} == {item.sender.lower() for item in one.final.transfers}


async def test_unknown_hash_then_it_appears(verifier, anvil, reason):
    """Not found is unknown and never invalid: mined later, it is found and proved."""
    await anvil.mine(10)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18)
    claim = verifier.claim(tx, anvil.accounts[1])
    assert reason(await verifier.verify(claim)) == "not_found"
    await anvil.finalize()
    await verifier.hear(claim, "final")
    assert (await verifier.chains())["BSC"].waiting_count == 0


async def test_given_up_by_the_chains_time(verifier, anvil, reason):
    """An unknown transaction is given up when the chain's own clock passes the time, not ours."""
    await anvil.mine(10)
    block = await anvil.rpc("eth_getBlockByNumber", "latest", False)
    claim = verifier.claim(UNKNOWN_HASH, anvil.accounts[1])
    claim.give_up_at.seconds = int(block["timestamp"], 16) + 3600
    assert reason(await verifier.verify(claim)) == "not_found"
    await anvil.rpc("evm_increaseTime", 3000)
    await anvil.mine()
    assert reason(await verifier.verify(claim)) == "not_found"
    await anvil.rpc("evm_increaseTime", 3000)
    await anvil.mine()
    assert reason(await verifier.hear(claim, "rejected")) == "given_up"


async def test_reorganised_away(verifier, anvil, reason):
    """A transfer whose block is reorganised away before it is final is not found again, and never final."""
    await anvil.mine(10)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    claim = verifier.claim(tx, anvil.accounts[1])
    assert reason(await verifier.verify(claim)) == "not_final"
    await anvil.rpc("anvil_reorg", 1, [])
    await anvil.rpc("anvil_dropTransaction", tx)
    await anvil.finalize()
    await verifier.hear(claim, "not_found")
    assert "final" not in [reason(verdict) for verdict in verifier.said(claim)]


async def test_reorganised_into_another_block(verifier, anvil, reason):
    """A transfer that comes back in another block is proved by that one."""
    await anvil.mine(10)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    raw = await anvil.rpc("eth_getRawTransactionByHash", tx)
    old = (await anvil.receipt(tx))["blockHash"]
    claim = verifier.claim(tx, anvil.accounts[1])
    assert reason(await verifier.verify(claim)) == "not_final"
    await anvil.rpc("anvil_reorg", 2, [[raw, 1]])
    await anvil.finalize()
    (transfer,) = (await verifier.hear(claim, "final")).final.transfers
    assert old != transfer.block_hash
    assert (await anvil.receipt(tx))["blockHash"] == transfer.block_hash


async def test_duplicate_claims_are_one_job(verifier, anvil):
    """The same claim ten times over NATS and gRPC waits once and is final once."""
    await anvil.mine(10)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    claim = verifier.claim(tx, anvil.accounts[1])
    await verifier.publish([claim] * 5)
    await verifier.publish([claim] * 5)
    await verifier.hear(claim, "not_final")
    await asyncio.gather(*(verifier.verify(claim) for _ in range(5)))
    assert (await verifier.chains())["BSC"].waiting_count == 1
    await anvil.finalize()
    await verifier.hear(claim, "final")
    assert len([verdict for verdict in verifier.said(claim) if verdict.HasField("final")]) == 1


async def test_same_claim_id_with_other_content_is_other_work(verifier, anvil, reason):
    """An id used twice must not answer for the other's content."""
    await anvil.mine(10)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    await anvil.finalize()
    right = verifier.claim(tx, anvil.accounts[1])
    wrong = verifier.claim(tx, anvil.accounts[2], claim_id=right.claim_id)
    assert [reason(each) for each in await verifier.batch([right, wrong])] == ["final", "wrong_recipient"]


async def test_proof_outlives_the_receipt(verifier, anvil, reason):
    """A transaction that the node has forgotten is answered from the recorded proof."""
    await anvil.mine(10)
    snapshot = await anvil.rpc("evm_snapshot")
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    await anvil.finalize()
    first = await verifier.verify(verifier.claim(tx, anvil.accounts[1]))
    await anvil.rpc("evm_revert", snapshot)
    await anvil.mine(20)
    assert await anvil.rpc("eth_getTransactionReceipt", tx) is None
    again = await verifier.verify(verifier.claim(tx, anvil.accounts[1]))
    assert first.final == again.final
    assert reason(await verifier.verify(verifier.claim(tx, anvil.accounts[2]))) == "not_found"


async def test_no_final_block_yet_fails_closed(verifier, anvil, reason):
    """While the chain has no final block but 0, nothing is final, refuted or given up."""
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    assert await anvil.finalized() == 0
    paid, unknown = verifier.claim(tx, anvil.accounts[1]), verifier.claim(UNKNOWN_HASH, anvil.accounts[1])
    unknown.give_up_at.seconds = 1
    assert [reason(each) for each in await verifier.batch([paid, unknown])] == ["chain_unavailable"] * 2
    status = (await verifier.chains())["BSC"]
    assert (status.available, status.error) == (False, "the endpoint has no final block")
    await anvil.mine(10)
    await verifier.hear(paid, "final")
    await verifier.hear(unknown, "given_up")


async def test_head_is_fresh(verifier, anvil):
    """GetHead reads now."""
    for _ in range(3):
        await anvil.mine()
        assert await anvil.head() == await verifier.head()


async def test_bad_claims_are_refused(verifier, anvil):
    """A claim that breaks the contract is refused by name, and its whole batch with it."""
    bad = [
        ({"chain": "NOPE"}, "unknown_chain"),
        ({"asset": "USDC"}, "unknown_asset"),
        ({"claim_id": "1"}, "invalid_request"),
        ({"tx_hash": "0x12"}, "invalid_request"),
        ({"tx_hash": UNKNOWN_HASH.upper()}, "invalid_request"),
        ({"tx_hash": UNKNOWN_HASH + "\n"}, "invalid_request"),
        ({"recipient": "0x12"}, "invalid_request"),
        ({"traceparent": "0" * 65}, "invalid_request"),
    ]
    good = verifier.claim(UNKNOWN_HASH, anvil.accounts[0])
    for overrides, expected in bad:
        claim = verifier.claim(**{"tx_hash": UNKNOWN_HASH, "recipient": anvil.accounts[0], **overrides})
        for ask in (verifier.verify(claim), verifier.batch([good, claim])):
            with pytest.raises(Fault) as refused:
                await ask
            assert ("INVALID_ARGUMENT", expected) == (refused.value.kind.value, refused.value.reason)
    for count in (0, 501):
        with pytest.raises(Fault) as refused:
            await verifier.batch([good] * count)
        assert refused.value.reason == "invalid_request"
    assert (await verifier.chains())["BSC"].waiting_count == 0


async def test_odd_traceparent_and_time_do_no_harm(verifier, anvil, reason):
    """A trace context that is none and a time out of range are no reason to fail."""
    await anvil.mine(10)
    claim = verifier.claim(UNKNOWN_HASH, anvil.accounts[0], traceparent="nonsense-01", claim_id=str(uuid4()).upper())
    claim.give_up_at.seconds = 2**62
    assert reason(await verifier.verify(claim)) == "not_found"
