"""What needs the word of several operators, what the word of one is enough for, and who is asked."""

from dataclasses import replace

import pytest

from chains import PinnedBlock
from services.verifier.tests.malicious import (
    HASH,
    both,
    by_tag,
    changing,
    delayed,
    dropped,
    fails,
    flood,
    frozen,
    huge,
    logs,
    moved,
    now_and_then,
    receipts,
    reordered,
    result,
    status,
    where,
    wrong_chain,
)
from verifier.domain import CHAIN_UNAVAILABLE, Final, Rejected, RejectReason, Waiting
from verifier.jsonrpc import MAX_BODY_BYTES, TooLarge
from verifier.metrics import DISAGREEMENTS
from verifier.node import LAG_BLOCKS
from verifier.panel import Health

FAKE = "0x" + "fa" * 32
MORE = f"0x{10**24:064x}"
FINALIZED = by_tag("finalized")
LATEST = by_tag("latest")
HUGE_RECEIPTS = where("eth_getTransactionReceipt", huge)


async def test_a_forged_payment_by_one_of_two_never_counts(scene):
    """A receipt for a transaction that never was, in a real final block under its real hash, is one operator's word."""
    panel = await scene.panel("ben", "ann")
    scene.lie(ben=await scene.forgery(FAKE))
    assert CHAIN_UNAVAILABLE.reason == (await scene.verify(panel, FAKE)).reason
    scene.lie(ben=None)
    assert "not_found" == (await scene.verify(panel, FAKE)).reason


async def test_one_endpoint_alone_is_believed_with_the_same_forgery(scene):
    """Why there is a quorum: told by the only endpoint, the same forgery is a payment."""
    panel = await scene.panel("ben")
    scene.lie(ben=await scene.forgery(FAKE))
    assert isinstance(await scene.verify(panel, FAKE), Final)


async def test_an_operator_has_one_voice(scene):
    """Two endpoints of one operator that tell the same forgery are no quorum of two."""
    await scene.panel("ben", "ann")
    scene.lie(ben=await scene.forgery(FAKE))
    ben, ann = scene.proxies["ben"].url, scene.proxies["ann"].url
    panel = scene.make_panel(ben=[ben, f"{ben}/2"], ann=ann)
    assert (("ben", "ann"), 2) == (panel.operators, panel.quorum)
    assert {Waiting} == {type(await scene.verify(panel, FAKE)) for _ in range(3)}


async def test_a_forged_payment_by_one_of_three_is_outvoted(scene):
    """Two operators that do not know a transaction outvote the one that forges it, also when it is given up."""
    panel = await scene.panel("ben", "ann", "cid")
    scene.lie(ben=await scene.forgery(FAKE))
    assert "not_found" == (await scene.verify(panel, FAKE)).reason
    assert Rejected(RejectReason.GIVEN_UP) == await scene.verify(panel, FAKE, give_up_at=1)


async def test_giving_up_needs_a_quorum(scene):
    """An unknown transaction is given up neither on one operator's word, nor by one operator's clock."""
    panel = await scene.panel("ben", "ann")
    scene.lie(ben=dropped)
    assert isinstance(await scene.verify(panel, HASH, give_up_at=1), Waiting)
    scene.lie(ben=None)
    head = await scene.anvil.rpc("eth_getBlockByNumber", "latest", False)
    in_an_hour = int(head["timestamp"], 16) + 3600
    panel = await scene.panel("ben", "ann")
    scene.lie(ben=changing(LATEST, result(timestamp="0xffffffff")))
    assert "not_found" == (await scene.verify(panel, HASH, give_up_at=in_an_hour)).reason
    scene.lie(ben=None)
    assert Rejected(RejectReason.GIVEN_UP) == await scene.verify(panel, HASH, give_up_at=1)


@pytest.mark.parametrize("too_large", [HUGE_RECEIPTS, changing(receipts, fails(-32003))], ids=["cap", "refused"])
async def test_a_receipt_that_nobody_can_read_is_given_up_by_a_quorum(scene, too_large):
    """Larger than any answer may be, it is looked for until its time is over, and not given up on one's word."""
    panel = await scene.panel("ben", "ann")
    scene.lie(ben=too_large, ann=too_large)
    assert CHAIN_UNAVAILABLE.reason == (await scene.verify(panel)).reason
    assert Rejected(RejectReason.GIVEN_UP) == await scene.verify(panel, give_up_at=1)
    scene.lie(ann=None)
    assert CHAIN_UNAVAILABLE.reason == (await scene.verify(panel, give_up_at=1)).reason
    scene.lie(ben=None)
    await scene.credits(panel)
    scene.lie(ben=too_large, ann=too_large)
    assert scene.is_true(await scene.verify(panel, give_up_at=1))


async def test_what_is_left_out_beside_huge_receipts_is_not_given_up(scene):
    """What was not asked for alone may be small: only of a receipt that was it is said that it is too large."""
    panel = await scene.panel("ben", "ann")
    others = [f"0x{number:064x}" for number in range(5)]
    scene.lie(ben=HUGE_RECEIPTS, ann=HUGE_RECEIPTS)
    _, told = await panel.receipts([*others, scene.tx])
    assert [True] * 4 + [False] * 2 == [told[each].lasts for each in [*others, scene.tx]]


async def test_what_one_operator_sees_is_shown_and_no_more(scene):
    """With one of two operators down a payment that is not final shows as seen; once final it waits for the other."""
    panel = await scene.panel("ann", "ben")
    await panel.heads()
    await scene.pay()
    scene.lie(ben=status(500))
    seen = await scene.verify(panel)
    assert ("not_final", [10**18]) == (seen.reason, [transfer.amount_base for transfer in seen.transfers])
    await scene.anvil.finalize()
    assert isinstance(await scene.verify(panel), Waiting)
    scene.lie(ben=None)
    await scene.credits(panel)


async def test_a_quorum_that_is_lost_and_comes_back(scene):
    """With two of three operators gone a final payment waits; when one of them is back it is credited."""
    panel = await scene.panel("ann", "ben", "cid")
    await panel.heads()
    scene.lie(ben=dropped, cid=status(503))
    assert CHAIN_UNAVAILABLE.reason == (await scene.verify(panel)).reason
    assert Health.UNAVAILABLE is await panel.look()
    scene.lie(cid=None)
    await scene.credits(panel)
    assert Health.DEGRADED is await panel.look()


async def test_two_that_flap_credit_what_is_true(scene):
    """Two operators of whom each fails every second time credit a payment late and rightly, or when they stop."""
    panel = await scene.panel("ann", "ben")
    scene.lie(ann=now_and_then(status(500)), ben=now_and_then(dropped))
    for _ in range(5):
        outcome = await scene.verify(panel)
        assert isinstance(outcome, Waiting) or scene.is_true(outcome)
    scene.lie(ann=None, ben=None)
    await scene.credits(panel)


async def test_two_liars_of_three_that_disagree_are_no_quorum(scene):
    """Two operators that lie differently credit nothing, and hide nothing once one of them stops."""
    panel = await scene.panel("ben", "cid", "ann")
    scene.lie(ben=changing(receipts, logs(data=MORE)), cid=changing(receipts, logs(data=f"0x{10**25:064x}")))
    assert CHAIN_UNAVAILABLE.reason == (await scene.verify(panel)).reason
    scene.lie(cid=None)
    await scene.credits(panel)


async def test_an_operator_that_lags_holds_finality_back(scene):
    """What only one of two operators calls final is not: the payment shows as seen until the other has it too."""
    panel = await scene.panel("ann", "ben")
    scene.lie(ben=frozen(FINALIZED))
    await panel.heads()
    await scene.pay()
    await scene.anvil.finalize()
    assert ["not_final"] * 3 == [(await scene.verify(panel)).reason for _ in range(3)]
    scene.lie(ben=None)
    await scene.credits(panel)


async def test_an_operator_somewhat_behind_is_in_order(scene):
    """One of three that is a few blocks behind what the others call final holds nothing up and is no fault."""
    panel = await scene.panel("ben", "ann", "cid")
    scene.lie(ben=changing(FINALIZED, moved(-3)))
    assert await scene.anvil.finalized() == (await panel.heads()).finalized
    assert Health.OK is await panel.look()
    await scene.credits(panel)
    assert await scene.anvil.finalized() == panel.mark


async def test_an_operator_is_as_far_as_the_farthest_of_its_endpoints(scene):
    """A second endpoint that is a few blocks behind the first makes the chain no worse, whoever answers last."""
    await scene.panel("ann", "ben")
    scene.lie(ann=delayed(0.05), ben=changing(FINALIZED, moved(-3)))
    ann, ben = scene.proxies["ann"].url, scene.proxies["ben"].url
    for order in ([ann, ben], [ben, ann]):
        panel = scene.make_panel(ann=order)
        await panel.look()
        assert await scene.anvil.finalized() == panel.mark
        assert Health.OK is await panel.look()
    scene.lie(ann=None, ben=delayed(0.05, changing(FINALIZED, moved(-3))))
    assert [Health.OK] * 2 == [await panel.look() for _ in range(2)]


async def test_an_operator_far_behind_is_not(scene):
    """One of three whose final block is hundreds behind is shown as a fault, and holds nothing up."""
    panel = await scene.panel("ben", "ann", "cid")
    await scene.anvil.mine(LAG_BLOCKS + 10)
    scene.lie(ben=changing(FINALIZED, moved(-LAG_BLOCKS - 1)))
    await panel.heads()
    assert Health.DEGRADED is await panel.look()
    assert "was final before" in panel.fault(panel.nodes[0])
    await scene.credits(panel)


async def test_what_a_quorum_called_final_stays_so(scene):
    """When those who are left call less final than a quorum did, nothing is decided until they have caught up."""
    panel = await scene.panel("ann", "ben", "cid")
    scene.lie(cid=changing(FINALIZED, moved(-3)))
    assert Health.OK is await panel.look()
    scene.lie(ann=dropped)
    assert Health.UNAVAILABLE is await panel.look()
    assert "was final before" in panel.error
    assert CHAIN_UNAVAILABLE.reason == (await scene.verify(panel)).reason
    await scene.anvil.mine(3)
    await scene.credits(panel)
    assert Health.DEGRADED is await panel.look()


async def test_a_final_height_out_of_the_blue_is_not_remembered(scene):
    """A head and a final block far in the future, told by one of two: nobody believes it, nor holds it against it."""
    panel = await scene.panel("ben", "ann")
    scene.lie(ben=both(changing(FINALIZED, moved(10**6)), changing(LATEST, moved(10**7))))
    for _ in range(2):
        assert (await panel.heads()).finalized <= await scene.anvil.finalized()
    scene.lie(ben=None)
    await scene.credits(panel)
    assert panel.mark == await scene.anvil.finalized()


async def test_answers_in_another_order_are_the_same_answers(scene):
    """A batch may be answered in any order: operators that differ in that alone agree."""
    panel = await scene.panel("ben", "ann")
    scene.lie(ben=reordered)
    assert scene.is_true(await scene.verify(panel))


async def test_of_500_mb_a_few_caps_are_read(scene):
    """An endpoint that floods every answer costs some caps of one body, not one for each of fifty receipts."""
    panel = await scene.panel("ben")
    scene.lie(ben=flood)
    with pytest.raises(TooLarge):
        await panel.receipts([f"0x{number:064x}" for number in range(50)])
    assert scene.proxies["ben"].sent < 15 * MAX_BODY_BYTES
    scene.lie(ben=None)
    await scene.credits(panel)


async def test_a_limited_operator_is_left_alone_and_payments_go_on(scene):
    """After `429 Retry-After: 5` of one of three operators nothing is asked of it, and the others go on."""
    panel = await scene.panel("ben", "ann", "cid")
    scene.lie(ben=status(429, Retry_After="5"))
    for _ in range(3):
        await scene.credits(panel)
    assert 1 == scene.proxies["ben"].batches


async def test_the_wrong_chain_after_the_start_is_outvoted(scene):
    """An operator that is swapped for another chain while we run is not asked for anything but its chain."""
    panel = await scene.panel("ben", "ann", "cid")
    assert Health.OK is await panel.look()
    scene.lie(ben=wrong_chain)
    await scene.credits(panel)
    assert Health.DEGRADED is await panel.look()
    assert "answers for chain id 1, not 56" in panel.fault(panel.nodes[0])


async def test_an_endpoint_without_the_pinned_block_is_not_used(scene, bsc):
    """Another block at the pinned height, or none, and nothing that the endpoint says counts; with it all does."""
    first = await scene.anvil.rpc("eth_getBlockByNumber", "0x1", False)
    pinned = replace(bsc, pinned_block=PinnedBlock(1, first["hash"]))
    beyond = replace(bsc, pinned_block=PinnedBlock(10**9, first["hash"]))
    panel = await scene.panel("ben", "ann", chain=pinned)
    panel.mark = await scene.anvil.finalized()
    scene.lie(ben=changing(lambda asked, answers: [each for each in answers if is_block(each, 1)], result(hash=HASH)))
    assert CHAIN_UNAVAILABLE.reason == (await scene.verify(panel)).reason
    assert "has another block 1 than is pinned" in panel.fault(panel.nodes[0])
    scene.lie(ben=None)
    await scene.credits(panel)
    alone = await scene.panel("ann", chain=beyond)
    assert isinstance(await scene.verify(alone), Waiting)
    assert Health.UNAVAILABLE is await alone.look()
    assert "which is pinned" in alone.error


def is_block(answer, number):
    """Whether an answer is the block at this height."""
    found = answer.get("result")
    return isinstance(found, dict) and found.get("number") == hex(number)


async def test_a_contradiction_is_counted_and_degrades(scene):
    """A liar that is outvoted is counted, named, asked last from then on, and shown as not believed for a while."""
    panel = await scene.panel("ben", "ann", "cid")
    scene.lie(ben=changing(receipts, logs(data=MORE)))
    before = DISAGREEMENTS.labels("BSC")._value.get()
    await scene.credits(panel)
    assert before + 1 == DISAGREEMENTS.labels("BSC")._value.get()
    scene.lie(ben=None)
    assert Health.DEGRADED is await panel.look()
    assert ["", "", "it was outvoted by the other operators"] == sorted(panel.fault(node) for node in panel.nodes)
    asked = scene.proxies["ben"].calls["eth_getTransactionReceipt"]
    await scene.credits(panel)
    assert asked == scene.proxies["ben"].calls["eth_getTransactionReceipt"]


async def test_too_few_that_agree_are_counted(scene):
    """A final payment that only one of two operators shows waits, and is counted each time."""
    panel = await scene.panel("ben", "ann")
    scene.lie(ben=changing(receipts, lambda answer: answer.update(result=None)))
    before = DISAGREEMENTS.labels("BSC")._value.get()
    assert CHAIN_UNAVAILABLE.reason == (await scene.verify(panel)).reason
    assert before + 1 == DISAGREEMENTS.labels("BSC")._value.get()
    assert Health.OK is await panel.look()


async def test_one_endpoint_costs_what_it_cost_before(scene):
    """With a quorum of one a final payment takes two batches to the first endpoint and none to those that stand by."""
    panel = await scene.panel("ann", "ben", quorum=1)
    assert scene.is_true(await scene.verify(panel))
    assert (2, 0) == (scene.proxies["ann"].batches, scene.proxies["ben"].batches)
    assert [4, 4] == scene.proxies["ann"].sizes
    await panel.head_number()
    assert (3, 0) == (scene.proxies["ann"].batches, scene.proxies["ben"].batches)


async def test_reads_fail_over_in_the_order_of_configuration(scene):
    """With a quorum of one the next endpoint answers for one that is down, also of the same operator, and at once."""
    await scene.panel("ann", "ben")
    ann, ben = scene.proxies["ann"].url, scene.proxies["ben"].url
    panel = scene.make_panel(ann=[ann, f"{ben}/second"], cid=scene.anvil.url, quorum=1)
    scene.lie(ann=dropped)
    assert scene.is_true(await scene.verify(panel))
    assert await scene.anvil.head() == await panel.head_number()
    assert scene.proxies["ben"].batches > 0
    scene.lie(ben=dropped)
    await scene.credits(panel)
