"""Looking through blocks: which endpoint is asked, and which refusals are passed on."""

import pytest

from services.verifier.tests.malicious import (
    blocks,
    changing,
    dropped,
    fails,
    hidden_found_log,
    moved,
    nothing,
    of,
    result,
    status,
)
from verifier.domain import Untrusted
from verifier.jsonrpc import MethodRefused, RangeTooLarge, Unavailable
from verifier.panel import Health

LOGS = of("eth_getLogs")


def at_the_end(asked, told):
    """The block at the range's end, which is asked for by height."""
    return blocks(asked, told)[:1]


TOO_LARGE = changing(LOGS, fails(-32000, "exceed maximum block range"))
REFUSED = changing(LOGS, fails(-32601))


async def look_through(scene, panel, first=1, last=0, **more):
    """What the panel finds on the shop's address up to the final block."""
    last = last or await scene.anvil.finalized()
    return await panel.logs(first, last, [scene.anvil.token.lower()], [scene.shop.lower()], **more)


async def test_what_is_found(scene):
    """The transfer, its block, the block at the range's end and that at the cursor, by one batch to one operator."""
    panel = await scene.panel("ann", "ben")
    final = await scene.anvil.finalized()
    found = await look_through(scene, panel, cursor=3)
    (log,) = found.logs
    receipt = await scene.anvil.receipt(scene.tx)
    assert (scene.tx, int(receipt["blockNumber"], 16), receipt["blockHash"]) == (
        log.tx_hash,
        log.block_number,
        log.block_hash,
    )
    assert (f"0x{10**18:064x}", scene.anvil.token.lower()) == (log.log.data, log.log.address)
    assert ("ann", final, 3) == (found.operator, found.end.number, found.cursor.number)
    assert (1, 0) == (scene.proxies["ann"].batches, scene.proxies["ben"].batches)


async def test_without_recipients_all_are_found(scene):
    """With nobody named every transfer of the token is shown, also one to somebody else."""
    other = await scene.anvil.send_token(scene.anvil.accounts[0], scene.anvil.accounts[2], 1, mine=True)
    await scene.anvil.finalize()
    panel = await scene.panel("ann")
    found = await panel.logs(1, await scene.anvil.finalized(), [scene.anvil.token.lower()], None)
    assert [scene.tx, other] == [log.tx_hash for log in found.logs]
    assert [scene.tx] == [log.tx_hash for log in (await look_through(scene, panel)).logs]


async def test_another_operator_finds_what_the_first_left_out(scene):
    """A log that one operator hides is shown by another, who is asked by `not_by`."""
    panel = await scene.panel("ben", "ann")
    scene.lie(ben=changing(LOGS, hidden_found_log))
    assert ("ben", ()) == ((first := await look_through(scene, panel)).operator, first.logs)
    second = await look_through(scene, panel, not_by="ben")
    assert ("ann", [scene.tx]) == (second.operator, [log.tx_hash for log in second.logs])


async def test_the_only_operator_sweeps_after_itself(scene):
    """Where there is no other operator, `not_by` is the same one."""
    panel = await scene.panel("ann")
    assert "ann" == (await look_through(scene, panel, not_by="ann")).operator


async def test_a_sweep_waits_for_the_other_operator(scene):
    """Where the other operator is away, the first is not asked in its place: a sweep by itself would prove nothing."""
    panel = await scene.panel("ben", "ann")
    scene.lie(ann=dropped)
    with pytest.raises(Unavailable):
        await look_through(scene, panel, not_by="ben")
    assert 0 == scene.proxies["ben"].batches


async def test_looking_fails_over(scene):
    """An endpoint that is down, or does not serve eth_getLogs, is passed over, and asked last from then on."""
    panel = await scene.panel("ben", "cid", "ann")
    scene.lie(ben=dropped, cid=REFUSED)
    for _ in range(3):
        assert "ann" == (await look_through(scene, panel)).operator
    assert 1 == scene.proxies["cid"].calls["eth_getLogs"]
    scene.lie(ann=REFUSED)
    with pytest.raises((MethodRefused, Unavailable)):
        await look_through(scene, panel)


async def test_who_is_away_is_not_taken_for_one_without_logs(scene):
    """That nobody else serves logs is not said while another operator, who does, is away."""
    panel = await scene.panel("ann", "ben", "cid")
    scene.lie(ben=dropped, cid=REFUSED)
    with pytest.raises(Unavailable):
        await look_through(scene, panel, not_by="ann")


async def test_a_range_that_is_too_large_for_one_is_shown_by_another(scene):
    """A refusal is passed on, so that the range is cut, when nobody takes it: also where the others are away."""
    panel = await scene.panel("ben", "ann")
    scene.lie(ben=TOO_LARGE)
    assert "ann" == (await look_through(scene, panel)).operator
    for other in (TOO_LARGE, REFUSED, dropped):
        scene.lie(ann=other)
        with pytest.raises(RangeTooLarge):
            await look_through(scene, panel)


async def test_who_is_doubted_is_asked_after_the_others(scene):
    """Another operator shows a range in its place, and it does when no other can."""
    panel = await scene.panel("ben", "ann")
    assert "ann" == (await look_through(scene, panel, doubted=["ben"])).operator
    scene.lie(ann=dropped)
    assert "ben" == (await look_through(scene, panel, doubted=["ben"])).operator


async def test_a_smaller_range_of_others_comes_before_who_is_doubted(scene):
    """Who takes any range and contradicts does not keep the range from being cut to what the others take."""
    panel = await scene.panel("ben", "ann")
    scene.lie(ann=TOO_LARGE)
    with pytest.raises(RangeTooLarge):
        await look_through(scene, panel, doubted=["ben"])


async def test_who_does_not_know_the_cursor_is_not_believed(scene):
    """A node that is not as far as blocks that were looked through is passed over for the next."""
    panel = await scene.panel("ben", "ann")
    final = await scene.anvil.finalized()
    scene.lie(ben=changing(lambda asked, told: blocks(asked, told)[1:], nothing))
    assert "ann" == (await look_through(scene, panel, last=final - 1, cursor=final)).operator


@pytest.mark.parametrize(
    "lie",
    [
        changing(LOGS, lambda answer: answer["result"][0].update(blockNumber="0x1", blockHash="0x" + "77" * 32)),
        changing(LOGS, lambda answer: answer["result"][0].update(blockNumber="0xffff")),
        changing(at_the_end, moved(1)),
        changing(at_the_end, nothing),
        changing(at_the_end, result(hash="0x" + "77" * 32)),
    ],
    ids=["a log before the range", "a log after the range", "another end", "no end", "the end's hash is not the log's"],
)
async def test_a_range_that_contradicts_itself_is_not_believed(scene, lie):
    """Logs outside the range, an end that is none or another block than its logs': the next endpoint is asked."""
    panel = await scene.panel("ben", "ann")
    at = int((await scene.anvil.receipt(scene.tx))["blockNumber"], 16)
    scene.lie(ben=lie)
    assert "ann" == (await look_through(scene, panel, first=at, last=at)).operator
    with pytest.raises(Untrusted):
        await scene.make_panel(ben=scene.proxies["ben"].url).logs(
            at, at, [scene.anvil.token.lower()], [scene.shop.lower()]
        )


async def test_who_serves_logs_is_known_from_the_start(scene):
    """At its first answer each endpoint is tried; one that is down then is tried when it is there."""
    panel = await scene.panel("ann", "ben", "cid")
    scene.lie(ben=REFUSED, cid=status(500))
    assert Health.DEGRADED is await panel.look()
    assert [True, False, None] == [node.logs_served for node in panel.nodes]
    scene.lie(ben=None, cid=None)
    while Health.OK is not await panel.look():
        pass
    assert [True, False, True] == [node.logs_served for node in panel.nodes]
    assert [1, 1, 1] == [proxy.calls["eth_getLogs"] for proxy in scene.proxies.values()]
