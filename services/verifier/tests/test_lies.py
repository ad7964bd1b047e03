"""An endpoint that lies or breaks never makes a payment final, and the claim heals once the fault ends."""

import asyncio
import copy

import aiohttp
import pytest
from aiohttp import web

from kit.errors import Fault
from local.anvil import Anvil
from local.devchain import DevChain
from local.ports import free_port
from local.process import running
from services.verifier.tests.malicious import (
    HASH,
    LIES,
    blocks,
    by_tag,
    changing,
    huge,
    malicious,
    receipts,
    reordered,
    result,
)
from verifier import workflow
from verifier.domain import CHAIN_UNAVAILABLE, Claim, Final, Waiting, WaitReason


async def met_with(lie, make_panel, anvil, store, tx, until):
    """The outcome while an endpoint tells this lie about a final payment, and the one after it stopped."""
    claim = Claim("c", "BSC", "USDT", 56, anvil.token.lower(), tx, anvil.accounts[1].lower(), give_up_at=1)
    async with malicious(anvil.url, lie) as liar:
        panel = make_panel(liar=liar.url)
        during = await workflow.verify([claim], panel, store, asyncio.Semaphore(1))
        liar.lie = None
        after = []

        async def healed():
            after[:] = await workflow.verify([claim], panel, store, asyncio.Semaphore(1))
            return after != [CHAIN_UNAVAILABLE]

        await until(healed)
    return during[0], after[0]


async def test_no_lie_about_a_final_payment_is_believed(anvil, make_panel, store, until):
    """While an endpoint lies a final payment waits, whatever the lie; when it stops the payment is proved."""
    await anvil.mine(10)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    await anvil.finalize()
    async with asyncio.timeout(20):
        outcomes = await asyncio.gather(*(met_with(lie, make_panel, anvil, store, tx, until) for lie in LIES.values()))
    during = {name: outcome for name, (outcome, _) in zip(LIES, outcomes, strict=True)}
    believed = {name: outcome for name, outcome in during.items() if not isinstance(outcome, Waiting)}
    assert believed == {}
    assert {outcome.reason for outcome in during.values()} == {WaitReason.CHAIN_UNAVAILABLE}
    assert all(isinstance(outcome, Final) and outcome.transfers[0].tx_hash == tx for _, outcome in outcomes)


@pytest.mark.parametrize("name", ["short batch", "429", "wrong chain", "receipt errors", "wrong hash at height"])
async def test_a_claim_heals_by_itself(start_verifier, liar, anvil, reason, name):
    """When the endpoint stops lying the payment is proved without being asked for, and told once."""
    await anvil.mine(10)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    await anvil.finalize()
    verifier = await start_verifier(liar.url)
    liar.lie = LIES[name]
    claim = verifier.claim(tx, anvil.accounts[1])
    assert reason(await verifier.verify(claim)) == "chain_unavailable"
    liar.lie = None
    (transfer,) = (await verifier.hear(claim, "final")).final.transfers
    assert (transfer.amount_minor, transfer.tx_hash) == (1000000, tx)
    assert [reason(verdict) for verdict in verifier.said(claim)] == ["final"]


async def test_reordered_answers_are_matched_by_id(start_verifier, liar, anvil, reason):
    """A batch may be answered in any order."""
    await anvil.mine(10)
    mine = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    other = await anvil.send_token(anvil.accounts[0], anvil.accounts[2], 10**18, mine=True)
    await anvil.finalize()
    verifier = await start_verifier(liar.url)
    liar.lie = reordered
    right, wrong = verifier.claim(mine, anvil.accounts[1]), verifier.claim(other, anvil.accounts[1])
    assert [reason(each) for each in await verifier.batch([right, wrong])] == ["final", "wrong_recipient"]


async def test_swapped_receipts_are_not_believed(start_verifier, liar, anvil, reason):
    """The receipt of one claim under the id of another refutes and proves neither."""
    await anvil.mine(10)
    hashes = [await anvil.send_token(anvil.accounts[0], anvil.accounts[n], 10**18, mine=True) for n in (1, 2)]
    await anvil.finalize()
    verifier = await start_verifier(liar.url)

    def swap(asked, answers):
        told = copy.deepcopy(answers)
        found = receipts(asked, told)
        if len(found) == 2:
            found[0]["result"], found[1]["result"] = found[1]["result"], found[0]["result"]
        return told

    liar.lie = swap
    claims = [verifier.claim(tx, anvil.accounts[n]) for n, tx in zip((1, 2), hashes, strict=True)]
    assert [reason(each) for each in await verifier.batch(claims)] == ["chain_unavailable"] * 2


async def test_finality_does_not_go_back(start_verifier, liar, anvil, reason):
    """What is told below a height that was final is not believed, also after a restart on the same database."""
    await anvil.mine(20)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    await anvil.finalize()
    verifier = await start_verifier(liar.url)
    assert reason(await verifier.verify(verifier.claim(tx, anvil.accounts[1]))) == "final"
    back = hex(await anvil.finalized() - 1)
    liar.lie = changing(by_tag("finalized"), result(number=back))
    assert reason(await verifier.verify(verifier.claim(tx, anvil.accounts[1]))) == "chain_unavailable"
    second = await start_verifier(liar.url)
    claim = second.claim(tx, anvil.accounts[1])
    assert reason(await second.verify(claim)) == "chain_unavailable"
    assert "was final before" in (await second.chains())["BSC"].error
    liar.lie = None
    await second.hear(claim, "final")


async def test_a_lie_about_finality_between_the_reads_is_not_believed(start_verifier, liar, anvil, reason):
    """The node that tells the blocks must have seen what was final when the receipts were read."""
    await anvil.mine(20)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    await anvil.finalize()
    verifier = await start_verifier(liar.url)
    back = hex(await anvil.finalized() - 1)

    def lagging(asked, answers):
        told = copy.deepcopy(answers)
        if blocks(asked, told):
            for answer in blocks(asked, told, "finalized"):
                answer["result"]["number"] = back
        return told

    liar.lie = lagging
    claim = verifier.claim(tx, anvil.accounts[1])
    assert reason(await verifier.verify(claim)) == "chain_unavailable"
    liar.lie = None
    await verifier.hear(claim, "final")


async def test_not_final_and_lied_about_is_never_final(start_verifier, liar, anvil, reason):
    """Also a payment that is not final yet survives every lie in turn and is proved in the end."""
    await anvil.mine(20)
    verifier = await start_verifier(liar.url)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    claim = verifier.claim(tx, anvil.accounts[1])
    for name in ("short batch", "wrong hash at height", "finalized above head", "429", "receipt of another"):
        liar.lie = LIES[name]
        assert reason(await verifier.verify(claim)) in ("chain_unavailable", "not_final")
    liar.lie = None
    await anvil.finalize()
    await verifier.hear(claim, "final")


async def test_one_huge_receipt_holds_up_no_other(start_verifier, liar, anvil, reason):
    """A batch whose answer is too large is cut until only the huge one waits."""
    await anvil.mine(10)
    hashes = [await anvil.send_token(anvil.accounts[0], anvil.accounts[1], n + 1) for n in range(8)]
    await anvil.mine()
    await anvil.finalize()
    verifier = await start_verifier(liar.url)

    def swell(asked, answers):
        if any(question["params"] == [hashes[3]] for question in asked):
            return huge(asked, answers)
        return answers

    liar.lie = swell
    claims = [verifier.claim(tx, anvil.accounts[1]) for tx in hashes]
    expected = ["chain_unavailable" if place == 3 else "final" for place in range(8)]
    assert expected == [reason(verdict) for verdict in await verifier.batch(claims)]
    liar.lie = None
    await verifier.hear(claims[3], "final")


async def test_huge_receipts_side_by_side_hold_up_no_other(start_verifier, liar, anvil):
    """What is left out beside several huge ones is asked for in another order the next time, and becomes final."""
    await anvil.mine(10)
    hashes = [await anvil.send_token(anvil.accounts[0], anvil.accounts[1], n + 1) for n in range(6)]
    await anvil.mine()
    await anvil.finalize()
    verifier = await start_verifier(liar.url)
    large = [[tx] for tx in hashes[:4]]

    def swell(asked, answers):
        return huge(asked, answers) if any(question["params"] in large for question in asked) else answers

    liar.lie = swell
    claims = [verifier.claim(tx, anvil.accounts[1]) for tx in hashes]
    await verifier.publish(claims)
    # One try in three leaves one of them out: more than ten in this time do not.
    for claim in claims[4:]:
        await verifier.hear(claim, "final", 60)


async def test_a_limited_endpoint_is_left_alone(start_verifier, liar, anvil, reason):
    """After `429 Retry-After: 5` nothing is asked for that long, and callers are answered at once."""
    await anvil.mine(10)
    verifier = await start_verifier(liar.url)
    liar.lie = lambda _, __: web.Response(status=429, headers={"Retry-After": "5"})
    claims = [verifier.claim(f"0x{n:064x}", anvil.accounts[1]) for n in range(5)]
    await verifier.verify(claims[0])
    before = liar.batches
    async with asyncio.timeout(3):
        assert [reason(each) for each in await verifier.batch(claims)] == ["chain_unavailable"] * 5
        with pytest.raises(Fault):
            await verifier.head()
    assert before == liar.batches


async def test_one_head_read_serves_all_who_wait(start_verifier, liar, anvil, until):
    """Two hundred waiting claims cost one small batch per tick, whatever their number, and none when nothing waits."""
    await anvil.mine(10)
    verifier = await start_verifier(liar.url)
    hashes = [await anvil.send_token(anvil.accounts[n % 10], anvil.accounts[1], n + 1) for n in range(200)]
    await anvil.mine()
    claims = [verifier.claim(tx, anvil.accounts[1]) for tx in hashes]
    await verifier.publish(claims)
    for claim in claims:
        await verifier.hear(claim, "not_final")
    receipts_before = liar.calls["eth_getTransactionReceipt"]
    assert receipts_before == 200
    heads = liar.calls["eth_getBlockByNumber"]

    async def looked_five_times():
        return liar.calls["eth_getBlockByNumber"] >= heads + 10

    started = asyncio.get_running_loop().time()
    await until(looked_five_times)
    assert asyncio.get_running_loop().time() - started > 0.75
    assert receipts_before == liar.calls["eth_getTransactionReceipt"]
    await anvil.finalize()
    for claim in claims:
        await verifier.hear(claim, "final")
    assert liar.calls["eth_getTransactionReceipt"] == 400
    assert max(liar.sizes) <= 53


async def test_a_large_batch_is_looked_at_in_parts(liar, anvil, make_panel, store):
    """Of two hundred claims an endpoint is asked for fifty at once, no oftener at the same time than is said; for their
    blocks once."""
    await anvil.mine(10)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    await anvil.finalize()
    hashes = [tx, *(f"0x{number:064x}" for number in range(198)), tx]
    give_up_at = 2**33
    claims = [
        Claim(f"c{tx}", "BSC", "USDT", 56, anvil.token.lower(), tx, anvil.accounts[1].lower(), give_up_at)
        for tx in hashes
    ]
    asking, most, pairs = 0, 0, asyncio.Barrier(2)

    async def in_pairs(asked, answers):
        nonlocal asking, most
        if any(call["method"] == "eth_getTransactionReceipt" for call in asked):
            asking += 1
            most = max(most, asking)
            await pairs.wait()
            asking -= 1
        return answers

    liar.lie = in_pairs
    async with asyncio.timeout(10):
        outcomes = await workflow.verify(claims, make_panel(liar=liar.url), store, asyncio.Semaphore(2))
    assert [WaitReason.NOT_FOUND] * 198 == [each.reason for each in outcomes[1:-1]]
    assert {tx} == {each.transfers[0].tx_hash for each in (outcomes[0], outcomes[-1])}
    assert (2, 200, 53) == (most, liar.calls["eth_getTransactionReceipt"], max(liar.sizes))
    # The newest and the final one with each part and with the block that both payments are in.
    assert 5 * 2 + 1 == liar.calls["eth_getBlockByNumber"]


async def test_callers_share_a_read_of_the_head(liar, anvil, make_panel):
    """A hundred callers share one read that begins after the one under way: each sees what there was when it asked."""
    panel = make_panel(liar=liar.url)
    first = asyncio.create_task(panel.head_number())
    await asyncio.sleep(0)
    await anvil.mine(7)
    callers = [asyncio.create_task(panel.head_number()) for _ in range(100)]
    assert {7} == set(await asyncio.gather(*callers))
    await first
    assert liar.calls["eth_blockNumber"] == 2


async def test_a_node_that_hangs(start_verifier, anvil, reason):
    """A node that takes connections and never answers: callers are answered in time, all waits."""
    holding = asyncio.Event()

    async def hang(_reader, writer):
        await holding.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    verifier = await start_verifier(url)
    async with asyncio.timeout(4):
        with pytest.raises(Fault) as failed:
            await verifier.head()
    assert failed.value.kind.value == "UNAVAILABLE"
    verdict = await verifier.verify(verifier.claim(HASH, anvil.accounts[0]), timeout=2)
    assert reason(verdict) == "chain_unavailable"
    holding.set()
    server.close()
    await server.wait_closed()


async def test_node_killed_and_back(start_verifier, tmp_path, reason, until):
    """Claims wait while the node is down and are proved when it is back, without anyone asking."""
    node = Anvil(tmp_path / "node", free_port(), tmp_path / "anvil.log")
    async with running(node) as process, DevChain.connect(node.url) as chain:
        await chain.mine(10)
        verifier = await start_verifier(node.url)
        tx = await chain.send_token(chain.accounts[0], chain.accounts[1], 10**18, mine=True)
        claim = verifier.claim(tx, chain.accounts[1])
        assert reason(await verifier.verify(claim)) == "not_final"
        await chain.finalize()
        late = verifier.claim(tx, chain.accounts[1])
        await process.stop()  # it writes its chain out: a kill would be a reorganisation as well
        assert reason(await verifier.verify(late)) == "chain_unavailable"
        with pytest.raises(aiohttp.ClientError):
            await chain.head()
    async with running(node):
        await verifier.hear(late, "final")
        await verifier.hear(claim, "final")


async def test_node_absent_at_start(start_verifier, tmp_path, reason, until):
    """A service whose node does not answer starts, says so, and proves once the node is there."""
    node = Anvil(tmp_path / "node", free_port(), tmp_path / "anvil.log")
    verifier = await start_verifier(node.url)
    claim = verifier.claim(HASH, "0x" + "12" * 20)
    assert reason(await verifier.verify(claim)) == "chain_unavailable"
    assert not (await verifier.chains())["BSC"].available
    await until(lambda: verifier.says("database", "SERVING"))
    await until(lambda: verifier.says("rpc", "NOT_SERVING"))
    async with running(node), DevChain.connect(node.url) as chain:
        await chain.mine(10)
        await verifier.hear(claim, "not_found")
        await until(lambda: verifier.says("rpc", "SERVING"))


async def test_the_wrong_chain_behind_a_name_that_was_right(start_verifier, liar, anvil, reason):
    """An endpoint that is swapped for another chain while we run is found out before its answers are used."""
    await anvil.mine(10)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 10**18, mine=True)
    await anvil.finalize()
    verifier = await start_verifier(liar.url)
    liar.lie = LIES["wrong chain"]
    claim = verifier.claim(tx, anvil.accounts[1])
    assert reason(await verifier.verify(claim)) == "chain_unavailable"
    assert "answers for chain id 1, not 56" in (await verifier.chains())["BSC"].error
    with pytest.raises(Fault):
        await verifier.head()
    liar.lie = None
    await verifier.hear(claim, "final")
