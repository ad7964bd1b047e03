"""What cannot be true moves no cursor, settles nothing and is never FINAL."""

import copy

import pytest

from services.verifier.tests.malicious import by_tag, changing, malicious, result
from services.verifier.tests.test_watch_ranges import HASH, ONE, changing_logs, covered, logs_asked, pay
from verifier.domain import Untrusted
from verifier.watch.ranges import RangeSize

LIES = {
    "end unknown": lambda asked, answers: [
        {**answer, "result": None} if is_end(question, asked) else answer
        for question, answer in zip(asked, answers, strict=True)
    ],
    "outside of the range": changing_logs(lambda logs: [{**log, "blockNumber": "0x1"} for log in logs]),
    "removed": changing_logs(lambda logs: [{**log, "removed": True} for log in logs]),
    "another block": changing_logs(lambda logs: [{**log, "blockHash": HASH} for log in logs]),
    "two blocks": changing_logs(lambda logs: logs + [{**log, "blockHash": HASH, "logIndex": "0x9"} for log in logs]),
    "one index twice": changing_logs(lambda logs: logs + [{**log, "transactionHash": HASH} for log in logs]),
    "pending": changing_logs(lambda logs: [{**log, "blockHash": None} for log in logs]),
    "no list": changing_logs(lambda _: None),
    "no data": changing_logs(lambda logs: [{key: log[key] for key in log if key != "data"} for log in logs]),
}


def is_end(question, asked):
    """Whether this asks for the block at the end of the range of logs."""
    ends = {query["toBlock"] for query in logs_asked(asked)}
    return question["method"] == "eth_getBlockByNumber" and question["params"][0] in ends


@pytest.mark.parametrize("name", LIES)
async def test_logs_that_cannot_be_true_move_no_cursor(watcher, liar, anvil, name):
    """A range whose answer contradicts itself or the headers is not looked through; it is once the lie ends."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    before = await watcher.covered()
    tx = await pay(anvil)
    await anvil.mine(4)  # the payment's block is final and the end of nothing
    liar.lie = LIES[name]
    await watcher.passes(2)
    assert ([], before) == (await watcher.seen(), await watcher.covered())
    liar.lie = None
    await anvil.mine()
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()


async def test_an_endpoint_that_is_behind_the_head_shows_what_is_final(watcher, liar, anvil):
    """Where the head is not known yet the final part is looked through all the same, and proved."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await pay(anvil)
    await anvil.finalize()
    head = hex(await anvil.head())
    liar.lie = lambda asked, answers: [
        {**answer, "result": None} if question["params"][:1] == [head] else answer
        for question, answer in zip(asked, answers, strict=True)
    ]
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    assert await anvil.finalized() == (await watcher.covered())[0]


async def test_the_end_of_a_final_range_is_the_block_that_others_know(watcher, liar, anvil):
    """Logs up to a final block of another hash than the canonical one move no cursor."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    before = await watcher.covered()
    tx = await pay(anvil)
    await anvil.mine(10)
    watcher.scanner._reader._sizes[True] = RangeSize(3)
    liar.lie = lambda asked, answers: [
        {**answer, "result": {**answer["result"], "hash": HASH}} if is_end(question, asked) else answer
        for question, answer in zip(asked, answers, strict=True)
    ]
    await watcher.passes(2)
    assert ([], before) == (await watcher.seen(), await watcher.covered())
    liar.lie = None
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()


async def test_a_made_up_payment_is_never_final(watcher, liar, anvil):
    """A log that is in no receipt is SEEN at most on one endpoint's word, and GONE when its transaction is proved."""
    await watcher.watch(anvil.accounts[2])
    await watcher.passes()
    tx = await pay(anvil)
    (log,) = await anvil.rpc("eth_getLogs", {"fromBlock": hex(await anvil.head()), "address": anvil.token})
    made_up = {**log, "topics": [*log["topics"][:2], "0x" + anvil.accounts[2][2:].lower().rjust(64, "0")]}
    number = int(log["blockNumber"], 16)

    def lie(requests, answers):
        told = copy.deepcopy(answers)
        for question, answer in zip(requests, told, strict=True):
            if question["method"] == "eth_getLogs" and number in covered(question["params"][0]):
                answer["result"] = [made_up]
        return told

    liar.lie = lie
    await watcher.passes()
    assert [("SEEN", ONE, tx)] == await watcher.seen()
    await anvil.finalize()
    await watcher.passes()
    assert [("GONE", ONE, tx)] == await watcher.seen()


@pytest.mark.parametrize("told", ["zero", "backwards", "above the head"])
async def test_a_final_height_that_cannot_be_true_settles_nothing(watcher, liar, anvil, told):
    """With `finalized` 0, gone back or above the head nothing is seen, final or moved; an alert is; then it heals."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    before = await watcher.covered()
    tx = await pay(anvil)
    await anvil.finalize()
    number = {"zero": 0, "backwards": before[0] - 1, "above the head": 10**6}[told]
    liar.lie = changing(by_tag("finalized"), result(number=hex(number)))
    with pytest.raises(Untrusted):
        await watcher.passes()
    assert ([], before) == (await watcher.seen(), await watcher.covered())
    liar.lie = None
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()


async def test_a_final_height_below_the_cursor_is_not_believed_after_a_restart(watcher, make_watcher, liar, anvil):
    """The cursor remembers what was final: a new process that is told less scans nothing."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    await anvil.mine(5)
    await watcher.passes()
    second = await make_watcher(liar.url)
    liar.lie = changing(by_tag("finalized"), result(number=hex((await watcher.covered())[0] - 1)))
    with pytest.raises(Untrusted, match="which was looked through"):
        await second.passes()


async def test_frozen_finality_shows_and_credits_nothing(watcher, liar, anvil):
    """While `finalized` stands still payments are SEEN and not FINAL; they are when it moves on."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    final = await anvil.rpc("eth_getBlockByNumber", "finalized", False)
    liar.lie = changing(by_tag("finalized"), result(number=final["number"], hash=final["hash"]))
    tx = await pay(anvil)
    await anvil.mine(50)
    await watcher.passes()
    assert ["SEEN"] == await watcher.states()
    assert (int(final["number"], 16), await anvil.head()) == (
        (await watcher.covered())[0],
        (await watcher.register.coverage(56)).position.scanned,
    )
    liar.lie = None
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()


async def test_a_lie_about_an_amount_is_never_final(make_watcher, liar, anvil, until):
    """Larger amounts in the logs and receipts of one operator: they are SEEN, and what is FINAL is what both prove."""
    await anvil.mine(10)

    def enlarge(logs):
        return [{**log, "data": "0x" + format(int(log["data"], 16) * 8, "064x")} for log in logs]

    def lie(asked, answers):
        for question, answer in zip(asked, answers, strict=True):
            if question["method"] == "eth_getLogs":
                answer["result"] = enlarge(answer["result"])
            elif question["method"] == "eth_getTransactionReceipt" and answer["result"]:
                answer["result"]["logs"] = enlarge(answer["result"]["logs"])
        return answers

    async with malicious(anvil.url) as honest:
        watcher = await make_watcher(ann=liar.url, ben=honest.url)
        await watcher.watch(anvil.accounts[1], from_block=await anvil.head())
        await watcher.passes()
        liar.lie = lie
        tx = await pay(anvil)
        await watcher.passes()
        await anvil.finalize()
        await watcher.passes(2)
        assert ("SEEN", 8 * ONE, tx) in await watcher.seen()
        assert "FINAL" not in await watcher.states()
        liar.lie = None

        async def settled():
            await watcher.passes()
            return "SEEN" not in await watcher.states()

        await until(settled)
        assert [("FINAL", ONE, tx), ("GONE", 8 * ONE, tx)] == sorted(await watcher.seen())
