"""Until when all is known to have been found: for a chain, and for an address in a time."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY

from kit.errors import Fault
from ospay.verifier.v1 import verifier_pb2 as pb
from services.verifier.tests.conftest import CHAINS
from services.verifier.tests.malicious import DROPPED, by_tag, changing, malicious, result
from services.verifier.tests.test_watch_reorgs import deep
from services.verifier.tests.test_watch_rpc import ONE, Client, watch
from verifier.domain import ChainFailure
from verifier.watch import progress
from verifier.watch.store.cursors import Fenced
from verifier.watch.watching import Span, SpanState

NOT_WATCHED, CHAIN_BEHIND = SpanState.NOT_WATCHED, SpanState.CHAIN_BEHIND
ADDRESS_BEHIND, DONE = SpanState.ADDRESS_BEHIND, SpanState.DONE
BEFORE = datetime(2020, 1, 1, tzinfo=UTC)
NEVER = datetime(2100, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def every_pass(monkeypatch, liar):
    """Each pass notes how far it came, to the moment: its newest block is ahead of the clock."""
    monkeypatch.setattr(progress, "NOTE_SECONDS", 0.0)
    liar.lie = head_at(NEVER)


def head_at(time):
    """A lie: the newest block is of this time."""
    return changing(by_tag("latest"), result(timestamp=hex(int(time.timestamp()))))


def unknown_above(height):
    """A lie: logs of blocks above, and these themselves when they are asked for by number, are not known."""

    def lie(asked, answers):
        for question, answer in zip(asked, answers, strict=True):
            first = question["params"][0] if question["params"] else ""
            number = isinstance(first, str) and question["method"] == "eth_getBlockByNumber" and first.startswith("0x")
            if number and int(first, 16) > height:
                answer["result"] = None
        return answers

    return lie


def stand_still(watcher):
    """The head has been what it is for eleven seconds."""
    watcher.scanner._progress._head_since -= 11.0


async def clock(watcher):
    """The time, by the database."""
    return (await watcher.rows("SELECT clock_timestamp() AS now"))[0]["now"]


async def reached(watcher):
    """Until when the chain was looked through."""
    return (await watcher.register.coverage(56)).looked_through_at


async def check(watcher, address, until, since=BEFORE):
    """The state of one span."""
    (state,) = await watcher.register.check([Span(56, address.lower(), since, until)])
    return state


async def test_it_is_the_time_of_the_head(watcher, liar, anvil):
    """A chain was looked through up to its newest block's time; ahead of the clock it is not believed."""
    await watcher.watch(anvil.accounts[1])
    assert await reached(watcher) is None
    time = (await clock(watcher)).replace(microsecond=0) - 5 * SECOND
    liar.lie = head_at(time)
    await watcher.passes()
    assert await reached(watcher) == time
    liar.lie = head_at(NEVER)
    before = await clock(watcher)
    await watcher.passes()
    assert before < await reached(watcher) < await clock(watcher)


async def test_where_the_chain_stands_still_it_goes_on(watcher, liar, anvil):
    """With no new block for ten seconds, it is so long before each pass; with one it is the time of that again."""
    await watcher.watch(anvil.accounts[1])
    late = (await clock(watcher)).replace(microsecond=0) - timedelta(hours=1)
    liar.lie = head_at(late)
    await watcher.passes()
    assert await reached(watcher) == late
    stand_still(watcher)
    for _ in range(2):
        before = await clock(watcher)
        await watcher.passes()
        assert before - 11 * SECOND < await reached(watcher) < (await clock(watcher)) - 10 * SECOND
    await anvil.mine()
    await watcher.passes()
    assert await reached(watcher) == late


async def test_a_head_that_another_operator_is_past_is_late(make_watcher, anvil):
    """Of two that have to agree one stands still: the chain does not, and only its head's own time counts."""
    await anvil.finalize()
    async with malicious(anvil.url) as ann, malicious(anvil.url) as ben:
        watcher = await make_watcher(ann=ann.url, ben=ben.url)
        await watcher.watch(anvil.accounts[1])
        late = (await clock(watcher)).replace(microsecond=0) - timedelta(hours=1)
        height = await anvil.head()
        await anvil.mine()
        ann.lie = head_at(late)
        ben.lie = changing(by_tag("latest"), result(timestamp=hex(int(late.timestamp())), number=hex(height)))
        await watcher.passes()
        stand_still(watcher)
        await watcher.passes()
        assert await reached(watcher) == late


async def test_an_operator_that_is_behind_the_head_stops_nothing(make_watcher, liar, anvil):
    """What is final is noted when the tail cannot be read, and who scans has got at the chain."""
    await anvil.mine(20)
    async with malicious(anvil.url) as ann, malicious(anvil.url) as ben:
        watcher = await make_watcher(ann=ann.url, ben=ben.url)
        await watcher.watch(anvil.accounts[1])
        await watcher.passes()
        await watcher.rows("UPDATE cursors SET looked_through_at = $1 RETURNING chain_id", BEFORE)
        height = await anvil.head()
        await anvil.mine(20)
        ann.lie = ben.lie = unknown_above(height + 18)
        watcher.scanner.looked_at = 0.0
        with suppress(ChainFailure):
            await watcher.passes()
        assert BEFORE < await reached(watcher)
        assert watcher.scanner.looked_at > 0.0


async def test_a_slow_pass_counts_from_its_beginning(watcher, liar, anvil):
    """What is mined while a pass reads is not looked through by it."""
    await watcher.watch(anvil.accounts[1])
    began = await clock(watcher)

    async def slowly(answers):
        while await clock(watcher) < began + SECOND:
            pass
        return answers

    await watcher.passes()
    stand_still(watcher)
    liar.lie = lambda asked, answers: slowly(head_at(BEFORE)(asked, answers))
    await watcher.passes()
    assert await reached(watcher) < began - 9 * SECOND


@pytest.mark.parametrize("down", [lambda *_: DROPPED, "logs"])
async def test_what_cannot_be_read_is_not_looked_through(watcher, liar, anvil, until, down):
    """With the endpoint away, or without its logs, it stands still, and goes on when they are back."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    before = await reached(watcher)
    liar.lie = without_logs if down == "logs" else down
    for _ in range(2):
        with suppress(ChainFailure):
            await watcher.passes()
    assert await reached(watcher) == before
    liar.lie = head_at(NEVER)

    async def goes_on():
        with suppress(ChainFailure):
            await watcher.passes()
        return await reached(watcher) > before

    await until(goes_on)


def without_logs(asked, answers):
    """An error for every question for logs."""
    for call, answer in zip(asked, answers, strict=True):
        if call["method"] == "eth_getLogs":
            del answer["result"]
            answer["error"] = {"code": -32000, "message": "no"}
    return answers


async def test_replicas_tell_the_same(watcher, make_watcher, liar, anvil):
    """A stand-by tells what the leader has noted, a new leader goes on, and who has lost the lead notes nothing."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    before = await reached(watcher)
    second = await make_watcher(liar.url)
    assert await reached(second) == before
    with pytest.raises(Fenced):
        await watcher.passes()
    assert await reached(second) == before
    await second.passes()
    assert await reached(watcher) > before


async def test_an_address_counts_from_when_it_has_joined(watcher, liar, anvil):
    """Unknown, then behind until a pass that began after it was caught up, whatever was looked through before."""
    first, other = anvil.accounts[1:3]
    await watcher.watch(first)
    await watcher.passes()
    until = (await reached(watcher)) - 3 * SECOND
    assert (DONE, NOT_WATCHED) == (await check(watcher, first, until), await check(watcher, other, until))
    await watcher.watch(other, from_block=1)
    assert await check(watcher, other, until) is ADDRESS_BEHIND
    liar.lie = head_at(until + 2 * SECOND)
    await watcher.passes()
    # It is caught up, but what was noted is from before: nobody can tell whether the pass has seen it.
    assert [("WATCHED",)] * 2 == [tuple(row) for row in await watcher.rows("SELECT state FROM watches")]
    assert await check(watcher, other, until) is ADDRESS_BEHIND
    liar.lie = head_at(NEVER)
    await watcher.passes()
    assert await check(watcher, other, until) is DONE


async def test_a_span_waits_for_its_end(watcher, anvil):
    """What ends later than was looked through is behind; of a chain that nobody has looked at, everything is."""
    await watcher.watch(anvil.accounts[1])
    assert await check(watcher, anvil.accounts[1], BEFORE) is CHAIN_BEHIND
    await watcher.passes()
    at = await reached(watcher)
    assert await check(watcher, anvil.accounts[1], at) is CHAIN_BEHIND
    assert await check(watcher, anvil.accounts[1], at - timedelta(microseconds=1)) is DONE


async def test_a_report_is_waited_for_until_it_is_confirmed(watcher, liar, anvil, until):
    """A transfer that was found holds the spans that its block lies in, on its address, while its report is open."""
    await watcher.watch(*anvil.accounts[1:3])
    await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await watcher.passes()
    (row,) = await watcher.rows("SELECT id, version, block_time FROM sightings")
    time = row["block_time"]

    async def looked_through():
        await watcher.passes()
        return await reached(watcher) > time + SECOND

    await until(looked_through)
    assert await check(watcher, anvil.accounts[1], time) is ADDRESS_BEHIND
    assert await check(watcher, anvil.accounts[1], time - SECOND) is DONE
    assert await check(watcher, anvil.accounts[1], time + SECOND, since=time + SECOND) is DONE
    assert await check(watcher, anvil.accounts[2], time) is DONE
    await watcher.register.confirm([(row["id"], row["version"])])
    assert await check(watcher, anvil.accounts[1], time) is DONE


async def test_a_time_that_is_over_is_done(watcher, liar, anvil, until):
    """An address that is watched no more was looked through to its end, however far the chain has been since."""
    over = (await clock(watcher)) - SECOND
    await watcher.watch(anvil.accounts[1], until=over)

    async def ended():
        await anvil.finalize()
        await watcher.passes()
        return [("ENDED",)] == [tuple(row) for row in await watcher.rows("SELECT state FROM watches")]

    await until(ended)
    assert await check(watcher, anvil.accounts[1], NEVER) is DONE


async def test_another_chain_is_looked_through_anew(watcher, anvil):
    """When the chain has changed beyond finality nothing is known of the new one until a pass has come to its head."""
    await watcher.watch(anvil.accounts[1])
    await anvil.finalize()
    await watcher.passes()
    before = await reached(watcher)
    await deep(anvil, 8)
    await watcher.scanner.look()
    assert await reached(watcher) is None
    assert await check(watcher, anvil.accounts[1], BEFORE) is CHAIN_BEHIND
    await watcher.passes(2)
    assert await reached(watcher) > before


NO_ENDPOINT = """
[chains.OTHER]
chain_id = 97
rpc_url_env = "OTHER_RPC_URL"
finality = "finalized"
block_seconds = 1

[chains.OTHER.assets.USDT]
contract = "0x337610d27c682E347C9cD60BD4b3b107C9d34dDd"
base_decimals = 18
minor_decimals = 6
"""


def span(address, chain="BSC", since=BEFORE, until=BEFORE + SECOND, asset="", token=None):
    """A span of long ago."""
    message = pb.Span(chain=chain, address=address, asset=asset, token=token)
    message.from_time.FromDatetime(since)
    message.until.FromDatetime(until)
    return message


async def test_spans_are_answered_in_their_order(start_verifier, anvil, until):
    """Without an endpoint a chain is not served, without a configuration it is behind, as an address is for an asset
    without one or with another; coverage tells how far it is."""
    await anvil.mine(10)
    client = Client(await start_verifier(anvil.url, chains=CHAINS + NO_ENDPOINT))
    first, other = anvil.accounts[1:3]
    assert not (await client.coverage()).HasField("looked_through_at")
    await client.watch(watch(first))
    asked = [span(first), span(first, "OTHER"), span("0x" + other[2:].upper()), span(first, "NOPE"), span(first)]
    asked += [span(first, asset="USDT"), span(first, asset="USDC"), span(first, "OTHER", asset="USDC")]
    usdt = pb.Token(chain_id=56, contract=anvil.token, base_decimals=18, minor_decimals=6)
    tokens = [usdt] + [pb.Token() for _ in range(4)]
    for token, field, value in zip(
        tokens[1:],
        ("chain_id", "contract", "base_decimals", "minor_decimals"),
        (97, first, 6, 2),
        strict=True,
    ):
        token.CopyFrom(usdt)
        setattr(token, field, value)
    asked += [span(first, asset="USDT", token=token) for token in tokens]

    async def told():
        return list((await client.call("CheckSpans", pb.CheckSpansRequest(spans=asked))).states)

    async def done():
        return (await told())[0] == pb.SPAN_STATE_DONE

    await until(done)
    states = ["DONE", "NOT_SERVED", "NOT_WATCHED", "CHAIN_BEHIND", "DONE", "DONE", "ADDRESS_BEHIND", "NOT_SERVED"]
    states += ["DONE"] + 4 * ["ADDRESS_BEHIND"]
    assert states == [pb.SpanState.Name(state).removeprefix("SPAN_STATE_") for state in await told()]
    assert (await client.coverage()).looked_through_at.ToDatetime(UTC) > BEFORE + SECOND

    async def shown():
        return bool(REGISTRY.get_sample_value("verifier_looked_through_timestamp_seconds", {"chain": "BSC"}))

    await until(shown)
    far = span(first)
    far.until.seconds = 2**62
    for spans in ([], [span(first)] * 1001, [span("0x12")], [far], [pb.Span(chain="BSC", address=first)]):
        with pytest.raises(Fault) as refused:
            await client.call("CheckSpans", pb.CheckSpansRequest(spans=spans))
        assert "invalid_request" == refused.value.reason


async def test_a_replica_without_the_endpoint_answers_for_those_that_have_it(start_verifier, anvil, until):
    """What others look through is served, whatever this one is configured with."""
    await anvil.mine(10)
    client = Client(await start_verifier(anvil.url, CHAINS + NO_ENDPOINT))
    address = anvil.accounts[1]
    await client.watch(watch(address))

    async def told(by):
        return list((await by.call("CheckSpans", pb.CheckSpansRequest(spans=[span(address)]))).states)

    async def done():
        return await told(client) == [pb.SPAN_STATE_DONE]

    await until(done)
    other = Client(await start_verifier("", CHAINS + NO_ENDPOINT, env={"OTHER_RPC_URL": "http://127.0.0.1:1"}))
    assert [pb.SPAN_STATE_DONE] == await told(other)
