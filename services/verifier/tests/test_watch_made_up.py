"""Transfers that never were, in blocks that are: what is in a block decides, and nobody waits behind them."""

import pytest

from services.verifier.tests.malicious import both, changing, malicious, nothing, of, receipts, result
from verifier.watch import settler

ONE = 10**18
MADE_UP = "0x" + "fa" * 32


def showing(log):
    """A lie: this log too, wherever its block is asked for."""

    def lie(asked, answers):
        for call, answer in zip(asked, answers, strict=True):
            if call["method"] == "eth_getLogs" and answer.get("result") is not None:
                first, last = (int(call["params"][0][name], 16) for name in ("fromBlock", "toBlock"))
                if first <= int(log["blockNumber"], 16) <= last:
                    answer["result"].append(log)
        return answers

    return lie


async def made_up(anvil):
    """The log of a transfer to the shop by a transaction that never was, in a block that is."""
    await anvil.send_token(anvil.accounts[0], anvil.accounts[2], ONE, mine=True)
    (log,) = await anvil.rpc("eth_getLogs", {"fromBlock": hex(await anvil.head()), "address": anvil.token})
    shop = "0x" + anvil.accounts[1][2:].lower().rjust(64, "0")
    return {**log, "transactionHash": MADE_UP, "topics": [*log["topics"][:2], shop], "logIndex": "0x9"}


async def again(watcher):
    """Looks again at once at what waits for its next look."""
    await watcher.rows("UPDATE sightings SET next_look_at = now() RETURNING id")
    await watcher.passes()


@pytest.fixture
async def three(make_watcher, liar, anvil):
    """A scanner over three operators, the first of which may lie."""
    await anvil.mine(10)
    async with malicious(anvil.url) as ben, malicious(anvil.url) as cid:
        made = await make_watcher(ann=liar.url, ben=ben.url, cid=cid.url)
        made.others = (ben, cid)
        yield made


async def forgery(anvil, log):
    """A receipt for the transaction that never was, with its log."""
    return {"transactionHash": MADE_UP, "status": "0x1", "logs": [log]} | {
        name: log[name] for name in ("blockHash", "blockNumber")
    }


@pytest.mark.parametrize("how", ["logs alone", "with a receipt", "with a receipt above finality"])
async def test_what_is_not_in_its_block_is_gone(three, liar, anvil, how):
    """One operator shows a transfer that never was in a canonical block: SEEN until the block is final, then GONE."""
    await three.watch(anvil.accounts[1])
    await three.passes()
    log = await made_up(anvil)
    liar.lie = showing(log)
    if how != "logs alone":
        above = {"blockNumber": hex(10**6)} if how == "with a receipt above finality" else {}
        forged = await forgery(anvil, {**log, **above}) | above

        def with_receipt(asked, answers):
            for call, answer in zip(asked, answers, strict=True):
                if call["params"] == [MADE_UP]:
                    answer["result"] = forged
            return answers

        liar.lie = both(showing(log), with_receipt)
    await three.passes()
    assert [("SEEN", ONE, MADE_UP)] == await three.seen()
    await anvil.finalize()
    await three.passes()
    assert [("GONE", ONE, MADE_UP)] == await three.seen()
    reports = {(report.state, report.version) for report in await three.register.read(three.rung)}
    assert {("GONE", 2)} == reports


async def test_what_is_in_its_block_is_not_gone(three, liar, anvil):
    """A transaction that no index knows, and whose block holds it, is open: it is FINAL once a receipt is shown."""
    await three.watch(anvil.accounts[1])
    await three.passes()
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await three.passes()
    await anvil.finalize()
    for proxy in (liar, *three.others):
        proxy.lie = changing(receipts, nothing)
    await three.passes()
    await again(three)
    assert [("SEEN", ONE, tx)] == await three.seen()
    for proxy in (liar, *three.others):
        proxy.lie = None
    await again(three)
    assert [("FINAL", ONE, tx)] == await three.seen()


EMPTY = changing(of("eth_getBlockByHash"), result(transactions=[]))


async def test_one_operator_empties_no_block(three, liar, anvil):
    """That a block does not hold a transaction needs the word of a quorum."""
    await three.watch(anvil.accounts[1])
    await three.passes()
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await three.passes()
    await anvil.finalize()
    liar.lie = both(changing(receipts, nothing), EMPTY)
    for proxy in three.others:
        proxy.lie = both(changing(receipts, nothing), changing(of("eth_getBlockByHash"), nothing))
    await three.passes()
    await again(three)
    assert [("SEEN", ONE, tx)] == await three.seen()


async def test_what_was_gone_and_is_real_comes_back(watcher, liar, anvil):
    """GONE by the word of the only operator, the transfer is FINAL when the next look at its block shows it."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await watcher.passes()
    liar.lie = both(changing(receipts, nothing), EMPTY)
    await anvil.finalize()
    await watcher.passes()
    assert [("GONE", ONE, tx)] == await watcher.seen()
    liar.lie = None
    await anvil.mine(30)
    watcher.scanner._sweep_at = 0.0
    await watcher.passes(2)
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    (row,) = await watcher.rows("SELECT version FROM sightings")
    assert 4 == row["version"]


async def test_nobody_waits_behind_what_cannot_be_settled(watcher, liar, anvil, monkeypatch):
    """However much in lower blocks is looked at in vain again and again, what waits longer has its turn before it."""
    monkeypatch.setattr(settler, "CLAIMS", 2)
    monkeypatch.setattr(settler, "BATCHES", 1)
    shop = anvil.accounts[1]
    await watcher.watch(shop)
    await watcher.passes()
    stuck = [await anvil.send_token(anvil.accounts[0], shop, 1, mine=True) for _ in range(4)]
    tx = await anvil.send_token(anvil.accounts[0], shop, ONE, mine=True)
    await anvil.finalize()

    def unknown(asked, answers):
        return [
            {**answer, "result": None} if call["params"] in [[each] for each in stuck] else answer
            for call, answer in zip(asked, answers, strict=True)
        ]

    liar.lie = unknown
    for _ in range(4):
        await watcher.scanner.look()
        await watcher.rows("UPDATE sightings SET next_look_at = next_look_at - interval '1 hour' RETURNING id")
    assert [("SEEN", 1, each) for each in stuck] + [("FINAL", ONE, tx)] == await watcher.seen()
