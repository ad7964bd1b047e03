"""Addresses come late, begin earlier, end, and are watched again: no block of their time is skipped."""

from datetime import UTC, datetime, timedelta

from services.verifier.tests.malicious import blocks, changing, fails, nothing
from services.verifier.tests.test_watch_ranges import ONE, RANGE_REFUSED, pay, refusing
from verifier.watch import ranges
from verifier.watch.ranges import RangeSize


async def mine_slowly(anvil, blocks, seconds):
    """Blocks with so many seconds between them, by the chain's clock."""
    await anvil.rpc("anvil_mine", hex(blocks), hex(seconds))


async def time_of(anvil, number):
    """A block's time."""
    header = await anvil.rpc("eth_getBlockByNumber", hex(number), False)
    return datetime.fromtimestamp(int(header["timestamp"], 16), UTC)


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


def headers_below(number):
    """The answers to blocks below this height."""
    return lambda asked, answers: [
        answer for answer in blocks(asked, answers) if answer["result"] and int(answer["result"]["number"], 16) < number
    ]


def logs_below(number):
    """The answers to ranges of logs that begin below this height."""
    return lambda asked, answers: [
        answer
        for call, answer in zip(asked, answers, strict=True)
        if call["method"] == "eth_getLogs" and int(call["params"][0]["fromBlock"], 16) < number
    ]


async def test_a_recent_start_needs_no_old_block(watcher, liar, anvil):
    """A wallet that is registered now, at a node that has forgotten the chain's first blocks, is caught up."""
    await anvil.rpc("anvil_mine", hex(100), hex(10))
    start = await anvil.head()
    liar.lie = changing(headers_below(start - 60), nothing)
    await watcher.watch(anvil.accounts[1], from_block=0, from_time=await time_of(anvil, start))
    await watcher.passes(2)
    (row,) = await watcher.rows("SELECT state FROM watches")
    assert "WATCHED" == row["state"]


async def test_a_past_that_cannot_be_read_keeps_no_other_waiting(watcher, liar, anvil):
    """A wallet of long ago on a chain whose node is pruned: what came later is watched, and it still waits."""
    await anvil.mine(60)
    start = await anvil.head()
    liar.lie = changing(logs_below(start - 10), fails(4444, "pruned history unavailable"))
    await watcher.watch(anvil.accounts[2], from_block=0)
    await watcher.passes()
    await watcher.watch(anvil.accounts[1], from_block=start)
    tx = await pay(anvil)
    await anvil.mine(30)
    await watcher.passes(2)
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    liar.lie = None
    await watcher.passes(2)
    assert [] == await watcher.rows("SELECT * FROM watches WHERE state = 'CATCHING_UP'")


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
