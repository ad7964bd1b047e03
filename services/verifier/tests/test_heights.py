"""The height of a new order: one read for it, by the word of one where the chain can have come so far."""

import time

import pytest

from services.verifier.tests.malicious import both, by_tag, changing, dropped, frozen, of, result
from verifier.agreement import Unsettled

NUMBER = of("eth_blockNumber")
FAR_AHEAD = changing(NUMBER, lambda answer: answer.update(result=hex(10**9)))


async def test_one_does_not_make_the_height_of_a_new_order_alone(scene):
    """A height far above what a quorum has told is not believed of one: an order made with it could never be paid."""
    panel = await scene.panel("ben", "ann")
    scene.lie(ben=FAR_AHEAD)
    await panel.heads()
    assert await scene.anvil.head() == await panel.head_number()
    await scene.anvil.mine()
    assert await scene.anvil.head() == await panel.head_number()
    assert (1, 2) == tuple(scene.proxies[name].calls["eth_blockNumber"] for name in ("ben", "ann"))


@pytest.mark.parametrize("lie", [dropped, FAR_AHEAD], ids=["away", "as far ahead"])
async def test_a_height_that_nobody_confirms_is_none(scene, lie):
    """With the other operator away there is no height, and clocks decide; as many as the quorum are believed."""
    panel = await scene.panel("ben", "ann")
    await panel.heads()
    scene.lie(ben=FAR_AHEAD, ann=lie)
    if lie is FAR_AHEAD:
        assert 10**9 == await panel.head_number()
    else:
        with pytest.raises(Unsettled):
            await panel.head_number()


async def test_a_chain_that_leaps_has_a_height(scene):
    """A thousand blocks at once are more than the chain's pace: the operators confirm them to one another."""
    panel = await scene.panel("ann", "ben")
    await panel.heads()
    await scene.anvil.mine(1000)
    assert await scene.anvil.head() == await panel.head_number()
    assert (2, 2) == (scene.proxies["ann"].batches, scene.proxies["ben"].batches)


async def test_a_height_at_the_chains_pace_is_asked_of_one(scene):
    """What the chain reaches by its pace costs one batch to one operator; a single one is always believed."""
    panel = await scene.panel("ann", "ben")
    await panel.heads()
    await scene.anvil.mine(20)
    assert await scene.anvil.head() == await panel.head_number()
    assert (2, 1) == (scene.proxies["ann"].batches, scene.proxies["ben"].batches)
    alone = await scene.panel("cid")
    await alone.heads()
    await scene.anvil.mine(1000)
    assert await scene.anvil.head() == await alone.head_number()
    assert 2 == scene.proxies["cid"].batches


async def test_a_quorum_that_is_late_makes_nobody_a_liar(scene):
    """Where the slower of two is a minute behind, the height of the one that is not is believed, of it alone."""
    panel = await scene.panel("ann", "ben")
    head = await scene.anvil.head()
    late = hex(int(time.time()) - 60)
    scene.lie(
        ben=both(frozen(by_tag("finalized")), changing(by_tag("latest"), result(number=hex(head), timestamp=late)))
    )
    await panel.heads()
    await scene.anvil.mine(100)
    assert head == (await panel.heads()).head.number
    assert await scene.anvil.head() == await panel.head_number()
    assert (3, 2) == (scene.proxies["ann"].batches, scene.proxies["ben"].batches)
