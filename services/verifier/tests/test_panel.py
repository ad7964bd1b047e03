"""What one operator does to a payment: one of two cannot credit it wrongly, one of three cannot even hold it up."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from services.verifier.tests.malicious import (
    LIES,
    blocks,
    body,
    both,
    by_tag,
    changing,
    complaint,
    delayed,
    dropped,
    failed,
    fails,
    flood,
    forged_ids,
    frozen,
    hidden_log,
    html,
    logs,
    malicious,
    moved,
    nothing,
    now_and_then,
    receipts,
    result,
    short,
    status,
    truncated,
    wrong_chain,
)
from verifier.domain import CHAIN_UNAVAILABLE, Final, Rejected, Waiting

MORE = f"0x{10**24:064x}"
FINALIZED = by_tag("finalized")
LATEST = by_tag("latest")


def until_soon():
    """429 with the date at which to come again."""
    soon = datetime.now(UTC) + timedelta(seconds=2)
    return status(429, Retry_After=format_datetime(soon, usegmt=True))


def final_is_head(asked, answers):
    """Every block is said to be final at once."""
    for answer in blocks(asked, answers, "finalized"):
        answer["result"] = blocks(asked, answers, "latest")[0]["result"]
    return answers


# What one of two operators does while a final payment waits. Each lie is made anew: some remember.
ONE_OF_TWO = {
    "it raises the amount": lambda: changing(receipts, logs(data=MORE)),
    "it hides the log, which would refute the claim": lambda: changing(receipts, hidden_log),
    "it says that the transaction failed": lambda: changing(receipts, failed),
    "it does not know the transaction": lambda: changing(receipts, nothing),
    "it has the payment in another block, by height too": lambda: both(
        LIES["orphaned receipt"], LIES["wrong hash at height"]
    ),
    "it tells another block at the height": lambda: LIES["wrong hash at height"],
    "it tells another time of the block": lambda: changing(blocks, result(timestamp="0x1")),
    "it has no final block": lambda: LIES["finalized 0"],
    "it is down": lambda: status(500),
    "it ends every connection": lambda: dropped,
    "it wants fewer calls, for a second": lambda: status(429, Retry_After="1"),
    "it wants fewer calls, until a date": until_soon,
    "it wants fewer receipts, and fewer of nothing else": lambda: changing(receipts, fails(-32005, "limit exceeded")),
    "it wants fewer batches": lambda: complaint(-32005),
    "it answers with a page": lambda: html,
    "it cuts its answers": lambda: truncated,
    "it sends 500 MB": lambda: flood,
    "it leaves out an answer": lambda: short,
    "it answers for other ids": lambda: forged_ids,
    "it answers for another chain": lambda: wrong_chain,
    "it answers with bytes": lambda: body(b"\xff\xfe"),
}
# What one of three operators does, which the two others outvote.
ONE_OF_THREE = {
    "it raises the amount": lambda: changing(receipts, logs(data=MORE)),
    "it hides the log": lambda: changing(receipts, hidden_log),
    "it says that the transaction failed": lambda: changing(receipts, failed),
    "it does not know the transaction": lambda: changing(receipts, nothing),
    "its final block stands still": lambda: frozen(FINALIZED),
    "its final block runs ahead": lambda: both(changing(FINALIZED, moved(1000)), changing(LATEST, moved(2000))),
    "its final block is the head": lambda: final_is_head,
    "it hangs": lambda: delayed(30),
    "it works every second time": lambda: now_and_then(status(500)),
}


@pytest.mark.parametrize("lie", ONE_OF_TWO.values(), ids=ONE_OF_TWO)
async def test_one_of_two_credits_nothing(scene, lie):
    """Safety: while one of two operators does this, a final payment is neither credited nor refuted: it waits."""
    panel = await scene.panel("ann", "ben")
    await panel.heads()
    scene.lie(ben=lie())
    assert [CHAIN_UNAVAILABLE.reason] * 3 == [(await scene.verify(panel)).reason for _ in range(3)]


@pytest.mark.parametrize("lie", ONE_OF_TWO.values(), ids=ONE_OF_TWO)
async def test_the_payment_is_credited_once_the_fault_ends(scene, lie):
    """Liveness: when the operator stops doing this the payment is credited, with nobody's help."""
    panel = await scene.panel("ben", "ann")
    scene.lie(ben=lie())
    await scene.verify(panel)
    scene.lie(ben=None)
    await scene.credits(panel)


@pytest.mark.parametrize("lie", ONE_OF_THREE.values(), ids=ONE_OF_THREE)
async def test_one_of_three_makes_nothing_final(scene, lie):
    """Safety: whatever the first of three operators does, what is not final is not credited, nor said to be final."""
    panel = await scene.panel("ben", "ann", "cid")
    scene.lie(ben=lie())
    await scene.pay()
    for _ in range(4):
        assert not isinstance(await scene.verify(panel), Final | Rejected)
        assert (await panel.heads()).finalized <= await scene.anvil.finalized()


@pytest.mark.parametrize("lie", ONE_OF_THREE.values(), ids=ONE_OF_THREE)
async def test_one_of_three_holds_up_nothing(scene, lie):
    """Liveness: whatever the first of three operators does, and goes on doing, two payments are credited."""
    panel = await scene.panel("ben", "ann", "cid")
    scene.lie(ben=lie())
    await scene.credits(panel, bound=5)
    await scene.pay()
    await scene.anvil.finalize()
    await panel.heads()
    await scene.credits(panel, bound=5)


async def told_by_one_of(scene, count, lie):
    """What comes of a final payment in one look, while the first of `count` operators tells this lie."""
    async with malicious(scene.anvil.url, lie) as liar:
        honest = {f"honest{number}": scene.anvil.url for number in range(count - 1)}
        return await scene.verify(scene.make_panel(liar=liar.url, **honest))


async def test_no_lie_of_one_of_two_is_believed(scene):
    """Safety: with each lie that we know, told by one of two operators, a final payment waits."""
    async with asyncio.timeout(60):
        outcomes = await asyncio.gather(*(told_by_one_of(scene, 2, lie) for lie in LIES.values()))
    assert {} == {name: each for name, each in zip(LIES, outcomes, strict=True) if not isinstance(each, Waiting)}


async def test_no_lie_of_one_of_three_holds_up_a_payment(scene):
    """Liveness: each lie that we know, told by one of three operators, is outvoted within one look."""
    async with asyncio.timeout(60):
        outcomes = await asyncio.gather(*(told_by_one_of(scene, 3, lie) for lie in LIES.values()))
    assert {} == {name: each for name, each in zip(LIES, outcomes, strict=True) if not scene.is_true(each)}
