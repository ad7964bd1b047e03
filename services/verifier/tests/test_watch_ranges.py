"""No block is skipped: not by down-time, refusals, endpoints that lag or lie, nor for an address that comes late."""

import copy
import gzip
import json
from contextlib import suppress

import pytest
from aiohttp import web

from services.verifier.tests.malicious import by_tag, changing, malicious, result
from verifier.domain import ChainFailure
from verifier.watch.ranges import RangeSize

ONE = 10**18
HASH = "0x" + "77" * 32


def logs_asked(requests):
    """The filters of the logs that are asked for."""
    return [item["params"][0] for item in requests if item["method"] == "eth_getLogs"]


def width(query):
    """How many blocks a filter asks for."""
    return int(query["toBlock"], 16) - int(query["fromBlock"], 16) + 1


def covered(query):
    """The heights that a filter asks for."""
    return range(int(query["fromBlock"], 16), int(query["toBlock"], 16) + 1)


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
    frozen = changing(by_tag("finalized"), result(number=final["number"], hash=final["hash"]))
    small = refusing(4, RANGE_REFUSED)
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
