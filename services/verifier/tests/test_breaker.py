"""An endpoint is left alone method by method, for as long as it asks, and then tried by one call."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from services.verifier.tests.malicious import changing, complaint, fails, status
from verifier.breaker import FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS, Breaker
from verifier.domain import ChainFailure
from verifier.jsonrpc import (
    Call,
    JsonRpc,
    MethodRefused,
    RangeTooLarge,
    RateLimited,
    Unavailable,
    _retry_after,
    open_session,
)

HEAD = Call("eth_blockNumber")
LOGS = Call("eth_getLogs", ({"fromBlock": "0x0", "toBlock": "0x0"},))


class Clock:
    """Time by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    """Time by hand."""
    return Clock()


def refuses(breaker):
    """Whether a call is refused now."""
    try:
        breaker.check()
    except ChainFailure:
        return True
    return False


def test_closed_open_half_open(clock):
    """A failure opens it for a pause; then one call is let through, and its end closes it or opens it for longer."""
    breaker = Breaker(clock)
    assert (True, False) == (breaker.closed, refuses(breaker))
    breaker.fail(Unavailable("down"))
    assert (False, True) == (breaker.closed, refuses(breaker))
    clock.now = 0.25
    assert not refuses(breaker)
    breaker.enter()
    assert refuses(breaker)  # one call is on its way
    breaker.fail(Unavailable("down"))
    clock.now = 0.5
    assert refuses(breaker)
    clock.now = 0.75
    assert not refuses(breaker)
    breaker.enter()
    breaker.succeed()
    assert (True, False) == (breaker.closed, refuses(breaker))


def test_pauses_double_up_to_a_bound_and_start_anew(clock):
    """The pause after the tenth failure in a row is two seconds; after a success the next is the first again."""
    breaker = Breaker(clock)
    for _ in range(10):
        breaker.fail(Unavailable("down"))
    clock.now = LAST_PAUSE_SECONDS - 0.01
    assert refuses(breaker)
    clock.now = LAST_PAUSE_SECONDS
    assert not refuses(breaker)
    breaker.succeed()
    breaker.fail(Unavailable("down"))
    clock.now += 0.25
    assert not refuses(breaker)


def test_what_the_endpoint_asks_for_counts(clock):
    """A rate limit's own pause is kept, where it is longer."""
    breaker = Breaker(clock)
    breaker.fail(RateLimited(7.0))
    clock.now = 6.9
    assert refuses(breaker)
    clock.now = 7.0
    assert not refuses(breaker)


def test_a_call_that_nobody_waits_for_lets_the_next_one_try(clock):
    """A try that is cancelled neither closes the breaker nor keeps others from trying."""
    breaker = Breaker(clock)
    breaker.fail(Unavailable("down"))
    clock.now = 1.0
    breaker.enter()
    breaker.abandon()
    assert (False, False) == (breaker.closed, refuses(breaker))


@pytest_asyncio.fixture
async def client(liar):
    """A client of the proxy."""
    async with open_session() as session:
        yield JsonRpc(liar.url, chain="BSC", chain_id=56, session=session, concurrency=4)


def date(seconds):
    """A Retry-After by date."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("code", "headers", "low", "high"),
    [
        (429, {"Retry_After": "7"}, 7, 7),
        (429, {"Retry_After": date(600)}, 30, 30),
        (429, {"Retry_After": date(-600)}, 0, 0),
        (429, {"Retry_After": "3600"}, 30, 30),
        (429, {"Retry_After": "soon"}, 2, 2),
        (429, {"Retry_After": "-1"}, 2, 2),
        (429, {}, 2, 2),
        (503, {"Retry_After": "9"}, 9, 9),
    ],
)
async def test_retry_after(client, liar, code, headers, low, high):
    """Seconds or a date, at most thirty seconds; what makes no sense is two."""
    liar.lie = status(code, **headers)
    with pytest.raises(RateLimited) as limited:
        await client.batch([HEAD])
    assert low <= limited.value.pause <= high


async def test_retry_after_by_date(client, liar):
    """The pause is what is left until the date."""
    liar.lie = status(429, Retry_After=date(10))
    with pytest.raises(RateLimited) as limited:
        await client.batch([HEAD])
    assert 8 < limited.value.pause <= 10


@given(st.text(max_size=60) | st.from_regex(r"\A\w{3}, \d{1,3} \w{3} \d{1,9} \d+:\d+:\d+ [+-]?\w{1,12}\Z"))
def test_any_retry_after_is_a_pause(text):
    """Whatever the header holds, the pause is between nothing and thirty seconds."""
    assert 0 <= _retry_after(text) <= 30


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (-32005, "over ten requests per second", RateLimited),
        (-32601, "the method eth_getLogs does not exist", MethodRefused),
        (-32004, "method not supported", MethodRefused),
    ],
)
async def test_a_refused_method_blocks_no_other(client, liar, code, message, expected):
    """A method that is refused is left alone, and the others of the same endpoint go on."""
    liar.lie = changing(where_called("eth_getLogs"), fails(code, message))
    assert expected is type((await client.batch([LOGS]))[0])
    asked = liar.calls["eth_getLogs"]
    with pytest.raises(expected):
        await client.batch([LOGS])
    with pytest.raises(expected):
        await client.batch([HEAD, LOGS])
    assert asked == liar.calls["eth_getLogs"]
    assert client.answers
    assert b'"0x0"' == bytes((await client.batch([HEAD]))[0])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (-32005, "query returned more than 10000 results"),
        (-32000, "exceed maximum block range: 5000"),
        (-32602, "Log response size exceeded"),
    ],
)
async def test_a_range_that_is_too_large_blocks_nothing(client, liar, code, message):
    """A refusal of the range is about the question: the next one is asked at once."""
    liar.lie = changing(where_called("eth_getLogs"), fails(code, message))
    for asked in (1, 2):
        assert RangeTooLarge is type((await client.batch([LOGS]))[0])
        assert asked == liar.calls["eth_getLogs"]


async def test_a_batch_that_is_refused_for_its_logs_blocks_no_other(client, liar):
    """One error for the whole of a batch with eth_getLogs in it is about eth_getLogs."""
    liar.lie = complaint(-32601)
    with pytest.raises(MethodRefused):
        await client.batch([HEAD, LOGS])
    liar.lie = None
    assert (b'"0x0"', True) == (bytes((await client.batch([HEAD]))[0]), client.answers)
    with pytest.raises(MethodRefused):
        await client.batch([LOGS])


@pytest.mark.parametrize("lie", [status(500), status(429, Retry_After="1"), complaint(-32005)])
async def test_an_endpoint_that_refuses_all_is_left_alone(client, liar, lie):
    """What is not about one method is about the endpoint."""
    liar.lie = lie
    with pytest.raises(ChainFailure):
        await client.batch([HEAD])
    with pytest.raises(ChainFailure):
        await client.batch([LOGS])
    assert (1, False) == (liar.batches, client.answers)


async def test_one_call_tries_for_all(client, liar):
    """Of twenty that call after the pause one is let through; they all may when it was answered."""
    liar.lie = status(500)
    with pytest.raises(Unavailable):
        await client.batch([HEAD])
    await asyncio.sleep(FIRST_PAUSE_SECONDS)
    told = await asyncio.gather(*(client.batch([HEAD]) for _ in range(20)), return_exceptions=True)
    assert {Unavailable} == {type(each) for each in told}
    assert 2 == liar.batches
    liar.lie = None
    await asyncio.sleep(2 * FIRST_PAUSE_SECONDS)
    await client.batch([HEAD])
    await asyncio.gather(*(client.batch([HEAD]) for _ in range(20)))
    assert 23 == liar.batches


def where_called(method):
    """The answers to a method, whatever they are."""
    return lambda asked, told: [each for call, each in zip(asked, told, strict=True) if call["method"] == method]
