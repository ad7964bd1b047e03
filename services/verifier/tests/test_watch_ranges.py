"""No block is skipped: not by down-time, refusals, endpoints that lag or lie, nor for an address that comes late."""

import copy
import gzip
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from services.verifier.tests.malicious import malicious
from verifier.domain import ChainFailure, Untrusted
from verifier.watch import ranges
from verifier.watch.ranges import RangeSize

ONE = 10**18
HASH = "0x" + "77" * 32


def logs_asked(requests):
    """The filters of the logs that are asked for."""
    return [item["params"][0] for item in requests if item["method"] == "eth_getLogs"]


def width(query):
    """How many blocks a filter asks for."""
    return int(query["toBlock"], 16) - int(query["fromBlock"], 16) + 1


def changing_logs(change):
    """A lie that changes the list of logs."""

    def lie(requests, answers):
        told = copy.deepcopy(answers)
        for question, answer in zip(requests, told, strict=True):
            if question["method"] == "eth_getLogs":
                answer["result"] = change(answer["result"])
        return told

    return lie


def refusing(largest, error):
    """Refuses ranges of more blocks than this."""

    def lie(requests, answers):
        told = copy.deepcopy(answers)
        for question, answer in zip(requests, told, strict=True):
            if question["method"] == "eth_getLogs" and width(question["params"][0]) > largest:
                del answer["result"]
                answer["error"] = error
        return told

    return lie


no_logs = changing_logs(lambda _: [])


async def mine_slowly(anvil, blocks, seconds):
    """Blocks with so many seconds between them, by the chain's clock."""
    await anvil.rpc("anvil_mine", hex(blocks), hex(seconds))


async def stretch(anvil, blocks):
    """Adds so many empty blocks at once: to mine them takes anvil time by the square of their number."""
    state = json.loads(gzip.decompress(bytes.fromhex((await anvil.rpc("anvil_dumpState"))[2:])))
    newest = max(state["blocks"], key=lambda block: int(block["header"]["number"], 16))
    head, at = int(newest["header"]["number"], 16), int(newest["header"]["timestamp"], 16)
    for n in range(1, blocks + 1):
        header = {**newest["header"], "number": hex(head + n), "timestamp": hex(at + n)}
        state["blocks"].append({**newest, "header": header, "transactions": []})
    state["block"]["number"] = hex(head + blocks)
    state["best_block_number"] = head + blocks
    await anvil.rpc("anvil_loadState", "0x" + gzip.compress(json.dumps(state).encode(), 1).hex())


async def time_of(anvil, number):
    """A block's time."""
    header = await anvil.rpc("eth_getBlockByNumber", hex(number), False)
    return datetime.fromtimestamp(int(header["timestamp"], 16), UTC)


async def pay(anvil, amount=ONE, to=1):
    """A payment, mined at once."""
    return await anvil.send_token(anvil.accounts[0], anvil.accounts[to], amount, mine=True)


async def test_down_time_is_caught_up_without_a_gap(watcher, make_watcher, liar, anvil):
    """Payments in every part of a long stretch that nobody looked at are found after it, each once, in ranges."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    start = (await watcher.covered())[0]
    for amount in range(1, 7):
        await pay(anvil, amount)
        await anvil.mine(199)
    asked = []
    liar.lie = lambda requests, answers: asked.extend(map(covered, logs_asked(requests))) or answers
    second = await make_watcher(liar.url)
    second.scanner._reader._sizes[True] = RangeSize(100)
    await second.scanner.look()
    assert [("FINAL", amount) for amount in range(1, 7)] == [entry[:2] for entry in await second.seen()]
    assert await anvil.finalized() == (await second.covered())[0]
    first_look = list(range(start + 1, await anvil.head() + 1))
    heights = [number for blocks in asked for number in blocks]
    assert first_look == heights[: len(first_look)]
    assert len(asked) > 5
    assert start + 1 == (await second.register.coverage(56)).position.first


async def test_ten_thousand_blocks_are_caught_up(watcher, liar, anvil):
    """After down-time of 10 000 blocks what was paid before, in the middle and at its end is FINAL, in a few calls."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    start = (await watcher.covered())[0]
    paid = [await pay(anvil, 1)]
    for amount in (2, 3):
        await anvil.mine()
        await stretch(anvil, 5000)
        paid.append(await pay(anvil, amount))
    await anvil.finalize()
    assert await anvil.head() > start + 10_000
    calls = liar.calls["eth_getLogs"]
    await watcher.passes()
    assert [("FINAL", amount, tx) for amount, tx in zip((1, 2, 3), paid, strict=True)] == await watcher.seen()
    assert (await anvil.finalized(), start + 1) == (
        (await watcher.covered())[0],
        (await watcher.register.coverage(56)).position.first,
    )
    assert liar.calls["eth_getLogs"] - calls <= 24


@pytest.mark.parametrize(
    "error",
    [
        {"code": -32005, "message": "query returned more than 10000 results"},
        {"code": -32602, "message": "Log response size exceeded. this block range should work: [0x1, 0x9]"},
        {"code": -32003, "message": "response too large"},
    ],
    ids=["results", "range", "size"],
)
async def test_refused_ranges_are_cut_and_grow_back(watcher, liar, anvil, error):
    """A range that is refused is halved until it is taken, nothing is skipped, and later ranges grow again."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await pay(anvil)
    await anvil.mine(120)
    last = await pay(anvil, 2)
    await anvil.finalize()
    asked = []
    refuse = refusing(20, error)
    liar.lie = lambda requests, answers: asked.extend(map(width, logs_asked(requests))) or refuse(requests, answers)
    await watcher.passes()
    assert [("FINAL", ONE, tx), ("FINAL", 2, last)] == await watcher.seen()
    taken = [blocks for blocks in asked if blocks <= 20]
    assert max(asked) > 100
    assert max(taken[1:]) > taken[0]
    assert await anvil.finalized() == (await watcher.covered())[0]


RANGE_REFUSED = {"code": -32000, "message": "exceed maximum block range"}


async def test_an_endpoint_that_takes_one_block_at_once_is_not_waited_for_between_blocks(watcher, liar, anvil):
    """What one may be asked for at once says nothing of how often: it is asked block by block without a pause."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await pay(anvil)
    await anvil.mine(30)
    liar.lie = refusing(1, RANGE_REFUSED)
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    assert await anvil.finalized() == (await watcher.covered())[0]


async def test_a_range_that_one_operator_refuses_is_not_cut_for_the_others(make_watcher, liar, anvil):
    """An operator with a small limit does not make the ranges small that the others take."""
    await anvil.mine(10)
    async with malicious(anvil.url) as ben, malicious(anvil.url) as cid:
        watcher = await make_watcher(ann=liar.url, ben=ben.url, cid=cid.url)
        await watcher.watch(anvil.accounts[1])
        await watcher.passes()
        tx = await pay(anvil)
        await anvil.mine(200)
        asked = []
        ben.lie = lambda requests, answers: asked.extend(map(width, logs_asked(requests))) or answers
        liar.lie = refusing(1, RANGE_REFUSED)
        await watcher.scanner.look()
        assert [("FINAL", ONE, tx)] == await watcher.seen()
        assert await anvil.finalized() == (await watcher.covered())[0]
        assert max(asked) > 200


async def test_a_long_tail_in_small_ranges_ends_a_pass(watcher, liar, anvil, monkeypatch):
    """Where more is not final than a step looks through, the pass ends, and what becomes final is found."""
    monkeypatch.setattr("verifier.watch.scanner.RANGES_PER_STEP", 3)
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    final = await anvil.rpc("eth_getBlockByNumber", "finalized", False)
    frozen, small = by_tag("finalized", number=final["number"], hash=final["hash"]), refusing(4, RANGE_REFUSED)
    tx = await pay(anvil)
    await anvil.mine(30)
    liar.lie = lambda requests, answers: small(requests, frozen(requests, answers))
    await watcher.passes(2)
    assert ["SEEN"] == await watcher.states()
    liar.lie = small
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()


async def test_a_body_that_is_too_large_is_cut(watcher, liar, anvil):
    """An answer past the cap on bodies, or HTTP 413, makes the range smaller and breaks nothing."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await pay(anvil)
    await anvil.mine(60)
    answers = [web.Response(status=413), web.Response(body=b"[" + b" " * (9 * 1024 * 1024) + b"]")]

    def swell(requests, told):
        if any(width(query) > 30 for query in logs_asked(requests)) and answers:
            return answers.pop()
        return told

    liar.lie = swell
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    assert [] == answers


async def test_an_endpoint_without_logs_moves_no_cursor(watcher, liar, anvil, until):
    """Where eth_getLogs is refused nothing is taken for looked through; it is when it is served again."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    before = await watcher.covered()
    tx = await pay(anvil)
    await anvil.mine(60)
    for error in ({"code": -32601, "message": "no"}, {"code": -32005, "message": "limit exceeded"}):
        liar.lie = refusing(0, error)
        await watcher.passes(2)
        assert before == await watcher.covered()

    async def found():
        await watcher.passes()
        return await watcher.seen() == [("FINAL", ONE, tx)]

    liar.lie = None
    await until(found)


async def test_an_endpoint_that_is_away_moves_no_cursor(watcher, liar, anvil, until):
    """While the endpoint fails nothing is looked through, and nothing is lost by it."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    before = await watcher.covered()
    tx = await pay(anvil)
    await anvil.finalize()
    liar.lie = lambda *_: web.Response(status=503)
    with pytest.raises(Exception, match="status 503"):
        await watcher.passes()
    assert before == await watcher.covered()
    liar.lie = None

    async def found():
        with suppress(ChainFailure):  # a failing endpoint is left alone for a moment
            await watcher.passes()
        return await watcher.seen() == [("FINAL", ONE, tx)]

    await until(found)


async def test_logs_that_leave_out_what_was_seen_take_nothing_back(watcher, liar, anvil):
    """A lagging endpoint's empty logs are no reorganisation while the block stands; the proof needs no logs."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await pay(anvil)
    await watcher.passes()
    liar.lie = no_logs
    await watcher.passes(2)
    assert [("SEEN", ONE, tx)] == await watcher.seen()
    await anvil.finalize()
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()


async def test_a_hidden_log_is_found_by_the_sweep(watcher, liar, anvil):
    """What the first look was not shown is found by the second, some blocks later, and proved like the rest."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    liar.lie = no_logs
    tx = await pay(anvil)
    await anvil.mine(30)
    watcher.scanner._sweep_at = float("inf")
    await watcher.passes()
    assert [] == await watcher.seen()
    liar.lie = None
    watcher.scanner._sweep_at = 0.0
    await watcher.passes(2)
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    covered, swept = await watcher.covered()
    assert 12 == covered - swept


@pytest.fixture
async def two(make_watcher, liar, anvil):
    """A scanner over two operators, the first of which may lie; `asked` has whose logs it read, and up to where."""
    await anvil.mine(10)
    async with malicious(anvil.url) as honest:
        made = await make_watcher(ann=liar.url, ben=honest.url)
        made.honest, made.asked = honest, []
        read = made.panel.logs

        async def logs(*arguments, **options):
            found = await read(*arguments, **options)
            made.asked.append((found.operator, found.end.number))
            return found

        made.panel.logs = logs
        yield made


async def test_what_one_operator_hides_another_shows(two, liar, anvil):
    """A log that one operator always hides is found by the sweep of another, which looks at what the first showed."""
    await two.watch(anvil.accounts[1], from_block=await anvil.head())
    await two.passes()
    liar.lie = no_logs
    tx = await pay(anvil)
    await anvil.mine(30)
    two.scanner._sweep_at = 0.0
    await two.passes(2)
    assert [("FINAL", ONE, tx)] == await two.seen()
    head, (_, swept) = await anvil.head(), await two.covered()
    assert {"ann"} == {operator for operator, last in two.asked if last == head}
    assert {"ben"} == {operator for operator, last in two.asked if last == swept}


async def test_the_past_of_an_address_is_shown_by_both(two, liar, anvil):
    """No sweep comes by again where a new address looks back, so both operators are asked at once."""
    await two.watch(anvil.accounts[2], from_block=await anvil.head())
    tx = await pay(anvil)
    await anvil.mine(30)
    await two.passes()
    liar.lie = no_logs
    await two.watch(anvil.accounts[1])
    await two.passes()
    assert [("FINAL", ONE, tx)] == await two.seen()


async def test_what_is_too_much_for_the_second_look_is_not_skipped(two, liar, anvil):
    """Where only the second operator cuts a range the sweep and the look back count as far as it went."""
    await two.watch(anvil.accounts[1], from_block=await anvil.head())
    await two.passes()
    liar.lie, two.honest.lie = no_logs, refusing(4, RANGE_REFUSED)
    await anvil.mine(20)
    swept, late = await pay(anvil, 1), await pay(anvil, 2, to=2)
    await anvil.mine(20)
    two.scanner._sweep_at = 0.0
    await two.passes()
    assert [("FINAL", 1, swept)] == await two.seen()
    two.scanner._reader._sizes[True] = RangeSize()
    await two.watch(anvil.accounts[2])
    await two.passes()
    assert [("FINAL", 1, swept), ("FINAL", 2, late)] == await two.seen()


async def test_an_operator_without_logs_holds_nobody_up(two, anvil):
    """Where only one operator serves logs it is asked twice; addresses are caught up and blocks are swept."""
    two.honest.lie = refusing(0, {"code": -32601, "message": "no"})
    tx = await pay(anvil)
    await anvil.mine(30)
    await two.watch(anvil.accounts[1])
    await two.passes()
    assert [("FINAL", ONE, tx)] == await two.seen()
    await anvil.mine(30)
    two.scanner._sweep_at = 0.0
    await two.passes()
    assert (await two.covered())[0] - 12 == (await two.covered())[1]


async def test_an_operator_that_contradicts_is_passed_over(two, liar, anvil):
    """A made-up log holds up nothing: its operator is not asked for a while, and the money of the other is found."""
    await two.watch(anvil.accounts[1], from_block=await anvil.head())
    await two.passes()

    def forge(logs):
        return [{**log, "blockHash": HASH} for log in logs]

    liar.lie = changing_logs(forge)
    tx = await pay(anvil)
    await anvil.mine()
    await two.passes(2)
    assert [("SEEN", ONE, tx)] == await two.seen()


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


def covered(query):
    """The heights that a filter asks for."""
    return range(int(query["fromBlock"], 16), int(query["toBlock"], 16) + 1)


def by_tag(tag, **fields):
    """A lie about the block of a tag."""

    def lie(requests, answers):
        return [
            {**answer, "result": {**answer["result"], **fields}} if question["params"][:1] == [tag] else answer
            for question, answer in zip(requests, answers, strict=True)
        ]

    return lie


@pytest.mark.parametrize("told", ["zero", "backwards", "above the head"])
async def test_a_final_height_that_cannot_be_true_settles_nothing(watcher, liar, anvil, told):
    """With `finalized` 0, gone back or above the head nothing is seen, final or moved; an alert is; then it heals."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    before = await watcher.covered()
    tx = await pay(anvil)
    await anvil.finalize()
    number = {"zero": 0, "backwards": before[0] - 1, "above the head": 10**6}[told]
    liar.lie = by_tag("finalized", number=hex(number))
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
    liar.lie = by_tag("finalized", number=hex((await watcher.covered())[0] - 1))
    with pytest.raises(Untrusted, match="which was looked through"):
        await second.passes()


async def test_frozen_finality_shows_and_credits_nothing(watcher, liar, anvil):
    """While `finalized` stands still payments are SEEN and not FINAL; they are when it moves on."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    final = await anvil.rpc("eth_getBlockByNumber", "finalized", False)
    liar.lie = by_tag("finalized", number=final["number"], hash=final["hash"])
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


async def test_an_address_that_comes_late_is_caught_up(watcher, anvil):
    """Paid before it was watched: found from `from_block` on, and nothing before it."""
    early = await pay(anvil, 1)
    start = await anvil.head()
    tx = await pay(anvil, 2)
    await watcher.watch(anvil.accounts[2])
    await anvil.mine(30)
    await watcher.passes()
    await watcher.watch(anvil.accounts[1], from_block=start)
    assert 1 == (await watcher.register.coverage(56)).catching_up
    await watcher.passes(2)
    assert [("FINAL", 2, tx)] == await watcher.seen()
    assert early != tx
    assert 0 == (await watcher.register.coverage(56)).catching_up


async def test_a_start_that_is_only_a_time_is_found_by_the_blocks_times(watcher, anvil):
    """With `from_block` 0 the past begins 15 s before `from_time`, by the times of the blocks."""
    await pay(anvil, 1)
    await mine_slowly(anvil, 100, 1)
    tx = await pay(anvil, 2)
    when = await time_of(anvil, await anvil.head())
    await anvil.mine(30)
    await watcher.watch(anvil.accounts[2])
    await watcher.passes()
    await watcher.watch(anvil.accounts[1], from_block=0, from_time=when)
    await watcher.passes()
    assert [("FINAL", 2, tx)] == await watcher.seen()
    (row,) = await watcher.rows("SELECT from_block FROM watches WHERE from_time = $1", when)
    age = when - await time_of(anvil, row["from_block"])
    assert timedelta(seconds=15) < age <= timedelta(seconds=17)


async def test_a_long_past_is_looked_through_step_by_step(watcher, make_watcher, liar, anvil, monkeypatch):
    """What was looked back through stands when the process ends in the middle; the head is followed meanwhile."""
    monkeypatch.setattr("verifier.watch.scanner.RANGES_PER_STEP", 1)
    monkeypatch.setattr(ranges, "FIRST_SIZE", 40)
    old = await pay(anvil, 1)
    await anvil.mine(200)
    await watcher.watch(anvil.accounts[2])
    await watcher.passes()
    watcher.scanner._reader._sizes = {True: RangeSize(40), False: RangeSize(40)}
    await watcher.watch(anvil.accounts[1], from_block=2)
    fresh = await pay(anvil, 3, to=2)
    await watcher.scanner.look()
    assert {("SEEN", 3, fresh), ("FINAL", 1, old)} == set(await watcher.seen())
    (row,) = await watcher.rows("SELECT looked_number FROM watches WHERE from_block = 2")
    assert 42 == row["looked_number"]
    second = await make_watcher(liar.url)
    await second.passes()
    assert 0 == (await second.register.coverage(56)).catching_up


async def test_a_range_that_is_cut_takes_no_address_back(watcher, liar, anvil, monkeypatch):
    """Of two pasts in a range that is refused the newer is not begun with anew when only the older one is looked at."""
    monkeypatch.setattr("verifier.watch.scanner.RANGES_PER_STEP", 1)
    await watcher.watch(anvil.accounts[2])
    await anvil.mine(60)
    await watcher.passes()
    await watcher.watch(anvil.accounts[1], from_block=2)
    await watcher.watch(anvil.accounts[3], from_block=40)
    liar.lie = refusing(8, RANGE_REFUSED)
    await watcher.scanner.look()
    rows = await watcher.rows("SELECT looked_number FROM watches WHERE from_block > 1 ORDER BY from_block")
    older, newer = [row["looked_number"] for row in rows]
    assert (True, 40) == (2 < older <= 10, newer)


async def test_an_earlier_start_is_looked_back_to(watcher, anvil):
    """A second watch of an address that begins earlier finds what was paid in between, and nothing twice."""
    first = await pay(anvil, 1)
    middle = await anvil.head()
    second = await pay(anvil, 2)
    await anvil.mine(20)
    await watcher.watch(anvil.accounts[1], from_block=middle)
    await watcher.passes()
    assert [("FINAL", 2, second)] == await watcher.seen()
    await watcher.watch(anvil.accounts[1], from_block=middle - 1)
    await watcher.passes()
    assert [("FINAL", 1, first), ("FINAL", 2, second)] == await watcher.seen()


async def test_an_address_whose_time_is_over_is_let_go(watcher, anvil):
    """Past `until` by the chain's clock and by ours, and only then, payments are not reported; until then they are."""
    await watcher.watch(anvil.accounts[1], until=datetime.now(UTC) + timedelta(hours=1))
    await watcher.watch(anvil.accounts[2])
    await watcher.passes()
    await mine_slowly(anvil, 100, 3600)
    await watcher.passes()
    tx = await pay(anvil, 1)
    await anvil.finalize()
    await watcher.passes()
    assert [("FINAL", 1, tx)] == await watcher.seen()
    await watcher.rows("UPDATE watches SET until = now() WHERE until IS NOT NULL RETURNING address")
    await mine_slowly(anvil, 60, 10)
    watcher.scanner._sweep_at = 0.0
    await watcher.passes()
    assert 1 == (await watcher.register.coverage(56)).watched
    await pay(anvil, 2)
    await anvil.finalize()
    await watcher.passes()
    assert [("FINAL", 1, tx)] == await watcher.seen()


async def test_an_address_that_is_watched_again_has_no_gap(watcher, anvil):
    """A later `until` for an address that was let go finds also what was paid while nobody looked."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    await watcher.watch(anvil.accounts[1], until=past)
    await watcher.watch(anvil.accounts[2])
    await watcher.passes()
    await mine_slowly(anvil, 30, 10)
    await watcher.passes()
    assert 1 == (await watcher.register.coverage(56)).watched
    tx = await pay(anvil)
    await anvil.mine(30)
    await watcher.passes()
    assert [] == await watcher.seen()
    await watcher.watch(anvil.accounts[1], until=None)
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
