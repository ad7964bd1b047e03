"""An operator whose logs contradict the chain holds up no look back and no sweep while a third shows the same."""

from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from services.verifier.tests.malicious import changing, malicious, of
from verifier.watch.ranges import RangeSize

ONE = 10**18
HASH = "0x" + "77" * 32
LOGS = of("eth_getLogs")


def forge(answer):
    """Logs of a block that never was."""
    answer["result"] = [{**log, "blockHash": HASH} for log in answer["result"]]


def hide(answer):
    """No logs."""
    answer["result"] = []


def at_cursor(height, **fields):
    """A lie about the block at the cursor's height, told with logs only; without fields there is none."""

    def lie(asked, answers):
        if any(call["method"] == "eth_getLogs" for call in asked):
            for call, answer in zip(asked, answers, strict=True):
                if call["params"][:1] == [hex(height)]:
                    answer["result"] = {**answer["result"], **fields} if fields else None
        return answers

    return lie


@pytest_asyncio.fixture
async def panel(make_watcher, anvil):
    """`await panel("ann", "ben")` is a scanner over these operators, and what they lie by name."""
    await anvil.mine(10)
    async with AsyncExitStack() as stack:

        async def make(*names):
            proxies = {name: await stack.enter_async_context(malicious(anvil.url)) for name in names}
            return await make_watcher(**{name: proxy.url for name, proxy in proxies.items()}), proxies

        yield make


async def old_payment(watcher, anvil):
    """A payment to an address that nobody watched, far below the cursor."""
    await watcher.watch(anvil.accounts[2], from_block=await anvil.head())
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.mine(30)
    await watcher.passes()
    return tx


async def catching_up(watcher):
    """How many addresses have a past that was not looked through twice."""
    return (await watcher.register.coverage(56)).catching_up


@pytest.mark.parametrize("lie", ["another log", "another cursor", "no cursor"])
async def test_a_look_back_asks_a_third_where_the_second_contradicts(panel, anvil, lie):
    """What the second operator shows is not believed: the third takes its place, and the address is caught up."""
    watcher, proxies = await panel("ann", "ben", "cid")
    tx = await old_payment(watcher, anvil)
    cursor = (await watcher.covered())[0]
    lies = {
        "another log": changing(LOGS, forge),
        "another cursor": at_cursor(cursor, hash=HASH),
        "no cursor": at_cursor(cursor),
    }
    proxies["ben"].lie = lies[lie]
    watcher.scanner._reader._sizes[True] = RangeSize(15)  # the range ends below the cursor
    await watcher.watch(anvil.accounts[1])
    await watcher.passes(2)
    assert ([("FINAL", ONE, tx)], 0) == (await watcher.seen(), await catching_up(watcher))


async def test_a_sweep_asks_a_third_where_the_second_contradicts(panel, anvil):
    """A log that the first operator hid and the second forges is found by the third."""
    watcher, proxies = await panel("ann", "ben", "cid")
    await watcher.watch(anvil.accounts[1], from_block=await anvil.head())
    await watcher.passes()
    proxies["ann"].lie = changing(LOGS, hide)
    proxies["ben"].lie = changing(LOGS, forge)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.mine(30)
    for _ in range(2):
        watcher.scanner._sweep_at = 0.0
        await watcher.passes()
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    covered, swept = await watcher.covered()
    assert 12 == covered - swept


async def test_what_one_shows_does_not_wait_for_the_other(panel, anvil):
    """Of two operators one contradicts: what the other shows is paid, and the address is not taken for caught up."""
    watcher, proxies = await panel("ann", "ben")
    tx = await old_payment(watcher, anvil)
    proxies["ben"].lie = changing(LOGS, forge)
    await watcher.watch(anvil.accounts[1])
    await watcher.passes(2)
    assert ([("FINAL", ONE, tx)], 1) == (await watcher.seen(), await catching_up(watcher))
    proxies["ben"].lie = None
    await watcher.passes()
    assert ([("FINAL", ONE, tx)], 0) == (await watcher.seen(), await catching_up(watcher))


async def test_the_only_operator_is_asked_until_it_contradicts_no_more(panel, anvil):
    """With nobody else to ask nothing is taken for looked through and nothing is lost."""
    watcher, proxies = await panel("ann")
    tx = await old_payment(watcher, anvil)
    proxies["ann"].lie = changing(LOGS, forge)
    await watcher.watch(anvil.accounts[1])
    await watcher.passes(3)
    assert ([], 1) == (await watcher.seen(), await catching_up(watcher))
    proxies["ann"].lie = None
    await watcher.passes()
    assert ([("FINAL", ONE, tx)], 0) == (await watcher.seen(), await catching_up(watcher))
