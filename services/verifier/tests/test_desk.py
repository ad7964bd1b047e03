"""The queue and the waiting set: bounded, one job per claim, nothing looked at before its time."""

import asyncio

import pytest

from verifier.desk import BATCH, Closed, Desk, QueueFull
from verifier.domain import Claim, Final, Verdict, Waiting, WaitReason

NOT_FOUND = Waiting(WaitReason.NOT_FOUND)
UNAVAILABLE = Waiting(WaitReason.CHAIN_UNAVAILABLE)
FINAL = Final(())


class Clock:
    """A monotonic clock that is set by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def claim(number):
    """A claim of its own."""
    return Claim(f"c{number}", "BSC", "USDT", 56, "0x", f"0x{number:064x}", "0x", 0)


def not_final(height):
    """Waiting for a height."""
    return Waiting(WaitReason.NOT_FINAL, (), height)


@pytest.fixture
def clock():
    """Time by hand."""
    return Clock()


@pytest.fixture
def desk(clock):
    """A desk with room for four."""
    return Desk("BSC", 4, clock)


async def parked(desk, waiting, number=0):
    """A job that waits."""
    desk.ask([claim(number)])
    (job,) = await desk.next_batch()
    job.answer(Verdict(job.claim, waiting, ""))
    desk.settle(job, waiting)
    return job


async def queued(desk):
    """What is queued now, without waiting."""
    taking = asyncio.create_task(desk.next_batch())
    await asyncio.sleep(0)
    if taking.done():
        return taking.result()
    taking.cancel()
    return []


async def test_a_full_queue_takes_nothing_of_a_batch(desk):
    """All or nothing: a batch that does not fit leaves no trace."""
    desk.ask([claim(1), claim(2), claim(3)])
    with pytest.raises(QueueFull):
        desk.ask([claim(4), claim(5)])
    desk.ask([claim(1), claim(2), claim(3), claim(4)])
    assert len(await desk.next_batch()) == 4


async def test_the_bus_waits_for_room_and_gives_up_in_time(desk):
    """The consumer is held while the queue is full, goes on when there is room, and is not held for ever."""
    await desk.take([claim(n) for n in range(4)], 1)
    with pytest.raises(TimeoutError):
        await desk.take([claim(4)], 0.01)
    taking = asyncio.create_task(desk.take([claim(5), claim(6)], 5))
    await asyncio.sleep(0)
    assert not taking.done()
    assert len(await desk.next_batch()) == 4
    await taking
    assert [job.claim.claim_id for job in await desk.next_batch()] == ["c5", "c6"]


async def test_batches_are_bounded(clock):
    """A worker takes at most two hundred at once."""
    desk = Desk("BSC", 1000, clock)
    await desk.take([claim(n) for n in range(2 * BATCH + 20)], 1)
    assert [len(await desk.next_batch()) for _ in range(3)] == [BATCH, BATCH, 20]


async def test_who_asks_goes_first(desk):
    """Somebody waits for an rpc, nobody for a message."""
    await desk.take([claim(1), claim(2)], 1)
    desk.ask([claim(3)])
    assert [job.claim.claim_id for job in await desk.next_batch()] == ["c3", "c1", "c2"]


async def test_a_claim_is_one_job_wherever_it_is(desk):
    """Queued, in hand or waiting: the same claim again joins it."""
    first, second = desk.ask([claim(1)])[0], desk.ask([claim(1)])[0]
    await desk.take([claim(1)], 1)
    (job,) = await desk.next_batch()
    assert job.by_bus
    third = desk.ask([claim(1)])[0]
    assert await queued(desk) == []
    verdict = Verdict(job.claim, NOT_FOUND, "")
    assert job.answer(verdict)
    assert [verdict] * 3 == await asyncio.gather(first, second, third)
    desk.settle(job, NOT_FOUND)
    assert desk.waiting_count == 1
    desk.ask([claim(1)])
    assert [job] == await queued(desk)
    assert desk.waiting_count == 0


async def test_who_asks_between_answer_and_settling_is_not_forgotten(desk):
    """A listener that comes when its look is over gets the next one."""
    desk.ask([claim(1)])
    (job,) = await desk.next_batch()
    job.answer(Verdict(job.claim, FINAL, ""))
    desk.ask([claim(1)])
    desk.settle(job, FINAL)
    assert [job] == await queued(desk)


async def test_heights(desk):
    """A claim comes back when its block is final and not before."""
    low, high = await parked(desk, not_final(10), 1), await parked(desk, not_final(12), 2)
    assert desk.wants_head
    desk.release(9, recovered=False)
    assert await queued(desk) == []
    desk.release(11, recovered=False)
    assert [low] == await queued(desk)
    desk.release(12, recovered=False)
    assert [high] == await queued(desk)
    assert not desk.wants_head


async def test_unknown_claims_pause_longer_and_longer(desk, clock):
    """1, 2, 4 … 30 seconds; no head is read for them."""
    job = await parked(desk, NOT_FOUND)
    pauses = []
    for _ in range(7):
        assert not desk.wants_head
        began = clock.now
        pauses.append(job.due - began)
        clock.now = job.due - 0.01
        desk.release(0, recovered=True)
        assert await queued(desk) == []
        clock.now = job.due
        desk.release(0, recovered=False)
        assert [job] == await queued(desk)
        desk.settle(job, NOT_FOUND)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


async def test_recovery_brings_the_unavailable_back_at_once(desk):
    """When the endpoint is back nobody waits for the end of a pause."""
    job, unknown = await parked(desk, UNAVAILABLE, 1), await parked(desk, NOT_FOUND, 2)
    assert desk.wants_head
    desk.release(0, recovered=True)
    assert [job] == await queued(desk)
    assert desk.waiting_count == 1
    assert unknown.due == 1


async def test_a_full_waiting_set_lets_the_oldest_unknown_go(desk):
    """Claims that nobody knows cannot keep those out that are mined; and the set stays bounded."""
    for number in range(4):
        await parked(desk, NOT_FOUND, number)
    await parked(desk, not_final(10), 4)
    assert desk.waiting_count == 4
    assert len([desk.ask([claim(n)]) for n in (1, 2, 3, 4)]) == 4
    assert [job.claim.claim_id for job in await queued(desk)] == ["c4", "c3", "c2", "c1"]


async def test_a_set_full_of_mined_claims_lets_the_newcomer_go(desk):
    """Nothing better is there to be let go: orders asks again."""
    for number in range(4):
        await parked(desk, not_final(10), number)
    await parked(desk, not_final(10), 4)
    await parked(desk, NOT_FOUND, 5)
    assert desk.waiting_count == 4
    desk.release(10, recovered=False)
    assert len(await queued(desk)) == 4


async def test_close_ends_every_wait(desk):
    """Workers, the watcher, the consumer and callers all return when the process stops."""
    waiting = [asyncio.create_task(desk.next_batch()), asyncio.create_task(desk.anything_parked())]
    await asyncio.sleep(0)
    (future,) = desk.ask([claim(0)])
    await asyncio.sleep(0)
    await desk.take([claim(n) for n in range(1, 5)], 1)
    taking = asyncio.create_task(desk.take([claim(9)], 5))
    await asyncio.sleep(0)
    (in_hand,) = await waiting[0]
    assert in_hand.claim.claim_id == "c0"
    desk.close()
    await waiting[1]
    await asyncio.sleep(0)
    assert await desk.next_batch() == []
    assert future.cancelled()
    with pytest.raises(Closed):
        await taking
    with pytest.raises(Closed):
        desk.ask([claim(1)])


async def test_what_is_awaited(desk):
    """Claims that are queued, in hand or wait for a height are decided soon; those that pause may not be."""
    await parked(desk, NOT_FOUND, 1)
    await parked(desk, not_final(10), 2)
    await desk.take([claim(3)], 1)
    assert {claim(n).proof_key for n in (2, 3)} == desk.awaited()
    (in_hand,) = await desk.next_batch()
    assert {claim(n).proof_key for n in (2, 3)} == desk.awaited()
    desk.settle(in_hand, FINAL)
    assert {claim(2).proof_key} == desk.awaited()
