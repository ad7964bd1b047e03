"""Claims over NATS: poison, bounds, several processes, a database that goes away."""

import asyncio

import asyncpg
import pytest

from chains import Registry
from kit.errors import Fault
from kit.process import Process
from ospay.verifier.v1 import verifier_pb2 as pb
from verifier.consumer import Consumer
from verifier.desk import Desk
from verifier.messages import Messages
from verifier.metrics import POISON
from verifier.workers import Line


async def test_poison_is_passed_over(verifier, anvil):
    """Neither bytes that are no message nor invalid claims hold up or spoil the good ones beside them."""
    await anvil.mine(10)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    await anvil.finalize()
    good = [verifier.claim(tx, anvil.accounts[1]) for _ in range(3)]
    bad = [
        verifier.claim("0x12", anvil.accounts[1]),
        verifier.claim(tx, "nobody"),
        verifier.claim(tx, anvil.accounts[1], claim_id="1"),
        verifier.claim(tx, anvil.accounts[1], chain="NOPE"),
        verifier.claim(tx, anvil.accounts[1], asset="USDC"),
        pb.Claim(),
    ]
    await verifier.publish_bytes(b"\xff\xff\xff not a message")
    await verifier.publish_bytes(b"")
    await verifier.publish([good[0], *bad, good[1]])
    await verifier.publish([good[2]])
    for claim in good:
        await verifier.hear(claim, "final")
    assert {claim.claim_id for claim in good} == {verdict.claim_id for verdict in verifier.heard}
    assert POISON.labels("unreadable")._value.get() > 0
    info = await verifier.nats.jetstream().stream_info("OSPAY_ORDERS")
    assert info.state.messages == 0


async def test_many_claims_by_several_processes(start_verifier, anvil):
    """Two verifiers share five hundred claims; each is final, with its own amount."""
    await anvil.mine(10)
    first, second = await start_verifier(anvil.url), await start_verifier(anvil.url, workers=2)
    hashes = [await anvil.send_token(anvil.accounts[n % 10], anvil.accounts[1], (n + 1) * 10**12) for n in range(500)]
    await anvil.mine()
    claims = [first.claim(tx, anvil.accounts[1]) for tx in hashes]
    for start in range(0, 500, 10):
        await first.publish(claims[start : start + 10])
    await first.hear(claims[-1], "not_final")
    await anvil.finalize()
    for amount, claim in enumerate(claims, 1):
        (transfer,) = (await first.hear(claim, "final")).final.transfers
        assert amount == transfer.amount_minor
    assert (await second.chains())["BSC"].waiting_count == 0
    connection = await asyncpg.connect(first.database.url)
    assert await connection.fetchval("SELECT count(*) FROM transfers") == 500
    await connection.close()


async def test_queue_full_is_said(start_verifier, liar, anvil, reason):
    """A batch that passes the bound of the queue is refused by name and leaves nothing behind."""
    await anvil.mine(10)
    verifier = await start_verifier(liar.url, queue_max=10)
    claims = [verifier.claim(f"0x{n:064x}", anvil.accounts[1]) for n in range(11)]
    with pytest.raises(Fault) as refused:
        await verifier.batch(claims)
    assert (refused.value.kind.value, refused.value.reason) == ("RESOURCE_EXHAUSTED", "queue_full")
    assert liar.calls["eth_getTransactionReceipt"] == 0
    assert [reason(each) for each in await verifier.batch(claims[:10])] == ["not_found"] * 10


async def test_more_over_the_bus_than_the_queue_holds(start_verifier, anvil):
    """A small queue holds the consumer back and loses nothing."""
    await anvil.mine(10)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    await anvil.finalize()
    verifier = await start_verifier(anvil.url, queue_max=3, workers=1)
    claims = [verifier.claim(tx, anvil.accounts[1]) for _ in range(60)]
    await verifier.publish(claims)
    for claim in claims:
        await verifier.hear(claim, "final")


async def test_no_room_for_too_long_gives_the_messages_back(bsc, monkeypatch):
    """The consumer does not hold messages for ever: they come again, or go to another process."""
    monkeypatch.setattr("verifier.consumer.ROOM_SECONDS", 0.01)
    desk = Desk("BSC", 1, asyncio.get_running_loop().time)
    consumer = Consumer({"BSC": Line(None, desk)}, Messages(Registry({"BSC": bsc})))
    claims = []
    for number in range(2):
        claim = pb.Claim(
            claim_id=f"00000000-0000-0000-0000-{number:012d}",
            chain="BSC",
            asset="USDT",
            tx_hash="0x" + "11" * 32,
            recipient="0x" + "22" * 20,
        )
        claim.give_up_at.seconds = 1
        claims.append(claim)
    with pytest.raises(Fault) as refused:
        await consumer.handle([pb.BatchVerifyRequest(claims=claims).SerializeToString()])
    assert refused.value.reason == "queue_full"
    assert len(await desk.next_batch()) == 1


async def test_nothing_is_final_that_is_not_recorded(start_verifier, anvil, reason):
    """With the proofs' table out of reach a final payment waits, and is proved by itself once it is back."""
    await anvil.mine(10)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    await anvil.finalize()
    verifier = await start_verifier(anvil.url)
    owner = await asyncpg.connect(verifier.database.owner_url)
    try:
        lock = owner.transaction()
        await lock.start()
        await owner.execute("LOCK TABLE transfers IN ACCESS EXCLUSIVE MODE")
        claim = verifier.claim(tx, anvil.accounts[1])
        unknown = verifier.claim("0x" + "ab" * 32, anvil.accounts[1])
        unknown.give_up_at.seconds = 1
        verdicts = await asyncio.gather(verifier.verify(claim), verifier.verify(unknown))
        assert [reason(verdict) for verdict in verdicts] == ["chain_unavailable"] * 2
        await lock.rollback()
    finally:
        await owner.close()
    await verifier.hear(claim, "final")
    await verifier.hear(unknown, "given_up")


async def test_callers_need_a_token(verifier, anvil):
    """Without a known token nothing is answered."""
    verifier.peer._authorization = "Bearer wrong"
    with pytest.raises(Fault) as refused:
        await verifier.head()
    assert refused.value.kind.value == "UNAUTHENTICATED"


async def test_stopping_ends_every_call(start_verifier, liar, anvil, until):
    """A stop while claims are looked at answers the callers and takes no longer than it must."""
    await anvil.mine(10)
    verifier = await start_verifier(liar.url)
    process: Process = verifier.process
    claims = [verifier.claim(f"0x{n:064x}", anvil.accounts[1]) for n in range(200)]
    asking = asyncio.create_task(verifier.batch(claims))

    async def looking():
        return liar.calls["eth_getTransactionReceipt"] > 0

    await until(looking)
    process.stop()
    async with asyncio.timeout(8):
        await process.finish(5)
    (answer,) = await asyncio.gather(asking, return_exceptions=True)
    if isinstance(answer, Fault):
        assert answer.kind.value == "UNAVAILABLE"
    else:
        assert len(answer) == 200
