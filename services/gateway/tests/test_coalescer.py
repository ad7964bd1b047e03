"""The coalescer: nothing waits on a timer, lanes take turns, every wait has a bound."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from gateway.coalescer import Coalescer
from kit.errors import Fault, Kind


class Far:
    """The far side: answers a batch when told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self._answers: list[asyncio.Future[list[str | Fault]]] = []

    async def send(self, items: list[str]) -> list[str | Fault]:
        self.batches.append(items)
        self._answers.append(asyncio.get_running_loop().create_future())
        return await self._answers[-1]

    def answer(self, index: int) -> None:
        self._answers[index].set_result([f"done {item}" for item in self.batches[index]])

    def fail(self, index: int, error: Exception) -> None:
        self._answers[index].set_exception(error)


async def settled() -> None:
    """Lets the loop run until what is due has happened."""
    for _ in range(5):
        await asyncio.sleep(0)


def submit(coalescer: Coalescer[str, str], lane: str, *items: str) -> list[asyncio.Task[str]]:
    """Each item from a request of its own."""
    return [asyncio.create_task(coalescer.submit(lane, item)) for item in items]


async def test_what_arrives_together_goes_together() -> None:
    """Requests of one turn of the loop are one batch, and each gets its own result."""
    far = Far()
    waiting = submit(Coalescer(far.send), "m", "a", "b", "c")
    await settled()
    far.answer(0)
    assert far.batches == [["a", "b", "c"]]
    assert await asyncio.gather(*waiting) == ["done a", "done b", "done c"]


async def test_collects_while_two_are_under_way() -> None:
    """A third batch starts only when one of two is answered, with all that came meanwhile."""
    far = Far()
    coalescer = Coalescer(far.send)
    tasks = []
    for item in ("a", "b", "c", "d"):
        tasks += submit(coalescer, "m", item)
        await settled()
    assert far.batches == [["a"], ["b"]]
    far.answer(0)
    await settled()
    assert far.batches == [["a"], ["b"], ["c", "d"]]
    far.answer(1)
    far.answer(2)
    assert await asyncio.gather(*tasks) == ["done a", "done b", "done c", "done d"]


async def test_a_small_batch_waits_for_the_one_under_way() -> None:
    """While a batch is under way another goes when it is large enough, or when that one is answered."""
    far = Far()
    coalescer = Coalescer(far.send, min_ahead=3)
    tasks = submit(coalescer, "m", "a")
    await settled()
    tasks += submit(coalescer, "m", "b", "c")
    await settled()
    assert far.batches == [["a"]]
    far.answer(0)
    await settled()
    assert far.batches == [["a"], ["b", "c"]]
    tasks += submit(coalescer, "m", "d", "e", "f")
    await settled()
    assert far.batches == [["a"], ["b", "c"], ["d", "e", "f"]]
    far.answer(1)
    far.answer(2)
    assert await asyncio.gather(*tasks) == [f"done {item}" for item in "abcdef"]


async def test_lanes_take_turns() -> None:
    """One merchant with a hundred waiting does not hold up another with one."""
    far = Far()
    coalescer = Coalescer(far.send, max_batch=10, max_in_flight=1)
    first = submit(coalescer, "z", "first")
    await settled()
    tasks = submit(coalescer, "busy", *(f"busy{n}" for n in range(100)))
    tasks += submit(coalescer, "small", "small0", "small1")
    tasks += submit(coalescer, "other", "other0")
    await settled()
    far.answer(0)
    await settled()
    lanes = Counter(item.rstrip("0123456789") for item in far.batches[1])
    assert lanes == {"busy": 7, "small": 2, "other": 1}
    assert len(far.batches[1]) == 10
    for task in [*first, *tasks]:
        task.cancel()


async def test_caller_that_goes_away_fails_nobody() -> None:
    """Others of its batch get their results; one that left before the sending is not sent."""
    far = Far()
    coalescer = Coalescer(far.send, max_in_flight=1)
    leaver, stayer = submit(coalescer, "m", "leaver", "stayer")
    await settled()
    early, late = submit(coalescer, "m", "early", "late")
    await settled()
    leaver.cancel()
    early.cancel()
    await settled()
    far.answer(0)
    await settled()
    far.answer(1)
    assert [await stayer, await late] == ["done stayer", "done late"]
    assert far.batches == [["leaver", "stayer"], ["late"]]


async def test_full_backlog_is_refused_at_the_longest_lane() -> None:
    """The merchant with the longest queue is the one that is told to wait, whoever comes."""
    far = Far()
    coalescer = Coalescer(far.send, max_in_flight=1, max_backlog=4)
    first = submit(coalescer, "z", "first")
    await settled()
    busy = submit(coalescer, "busy", "b0", "b1", "b2", "b3")
    await settled()
    too_much = submit(coalescer, "busy", "b4")
    small = submit(coalescer, "small", "s0")
    outcomes = await asyncio.gather(*too_much, busy[3], return_exceptions=True)
    assert [outcome.reason for outcome in outcomes] == ["overloaded", "overloaded"]
    far.answer(0)
    await settled()
    far.answer(1)
    assert await small[0] == "done s0"
    assert await asyncio.gather(*busy[:3]) == ["done b0", "done b1", "done b2"]
    assert await first[0] == "done first"


async def test_a_queue_that_stands_is_cut_short() -> None:
    """A burst may wait; when the queue has not been empty for a while, half a batch may, until it is empty again."""
    now = [0.0]
    far = Far()
    coalescer = Coalescer(far.send, max_batch=2, max_in_flight=1, max_backlog=10, clock=lambda: now[0])
    first = submit(coalescer, "m", "a", "b")
    await settled()
    burst = submit(coalescer, "m", *(f"burst{n}" for n in range(8)))
    await settled()
    now[0] = 0.6
    (refused,) = submit(coalescer, "m", "too much")
    with pytest.raises(Fault) as caught:
        await refused
    assert caught.value.reason == "overloaded"
    for index in range(5):
        far.answer(index)
        await settled()
    assert [f"done burst{n}" for n in range(8)] == await asyncio.gather(*burst)
    again = submit(coalescer, "m", "c", "d", *(f"again{n}" for n in range(8)))
    await settled()
    for index in range(5, 10):
        far.answer(index)
        await settled()
    assert len(await asyncio.gather(*first, *again)) == 12


async def test_who_waited_too_long_is_told_so() -> None:
    """An item that no batch had room for in time is refused and never sent."""
    now = [0.0]
    far = Far()
    coalescer = Coalescer(far.send, max_in_flight=1, max_wait=2.5, clock=lambda: now[0])
    (first,) = submit(coalescer, "m", "first")
    await settled()
    (late,) = submit(coalescer, "m", "late")
    await settled()
    now[0] = 3.0
    far.answer(0)
    with pytest.raises(Fault) as caught:
        await late
    assert (caught.value.kind, caught.value.reason) == (Kind.UNAVAILABLE, "overloaded")
    assert far.batches == [["first"]]
    assert await first == "done first"


async def test_each_item_has_its_own_error() -> None:
    """A fault among the results concerns its item only."""

    async def send(items: list[str]) -> list[str | Fault]:
        return [Fault(Kind.CONFLICT, "no", item) if item == "bad" else item for item in items]

    outcomes = await asyncio.gather(*submit(Coalescer(send), "m", "good", "bad"), return_exceptions=True)
    assert outcomes[0] == "good"
    assert outcomes[1].reason == "no"


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Fault(Kind.UNAVAILABLE, "unavailable", "down"), "unavailable"), (ValueError("bug"), "internal")],
)
async def test_failed_batch_fails_its_items_and_no_more(error: Exception, reason: str) -> None:
    """Every item of it gets an error of its own, and the next batch goes out."""
    far = Far()
    coalescer = Coalescer(far.send, max_in_flight=1)
    tasks = submit(coalescer, "m", "a", "b")
    await settled()
    (after,) = submit(coalescer, "m", "after")
    await settled()
    far.fail(0, error)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [reason, reason] == [outcome.reason for outcome in outcomes]
    assert outcomes[0] is not outcomes[1]
    await settled()
    far.answer(1)
    assert await after == "done after"


async def test_short_answer_is_an_error_of_all() -> None:
    """Results that cannot be matched to their items are given to nobody."""

    async def send(items: list[str]) -> list[str | Fault]:
        return list(items[:-1])

    outcomes = await asyncio.gather(*submit(Coalescer(send), "m", "a", "b"), return_exceptions=True)
    assert [outcome.reason for outcome in outcomes] == ["internal", "internal"]
