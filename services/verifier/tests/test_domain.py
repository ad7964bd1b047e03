"""What counts as a transfer: the pure rules, without any part running."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.domain import (
    TRANSFER_TOPIC,
    Claim,
    Final,
    Header,
    Heads,
    Log,
    Receipt,
    Rejected,
    RejectReason,
    Untrusted,
    Waiting,
    WaitReason,
    believe_heads,
    decide,
)

TOKEN = "0x" + "55" * 20
SHOP = "0x" + "aa" * 20
PAYER = "0x" + "bb" * 20
OTHER = "0x" + "cc" * 20
TX = "0x" + "11" * 32
BLOCK = "0x" + "22" * 32
CLAIM = Claim("c", "BSC", "USDT", 56, TOKEN, TX, SHOP, give_up_at=1000)
HEADER = Header(100, BLOCK, 900)
HEADS = Heads(Header(110, "0x" + "33" * 32, 950), finalized=105)
APPROVAL = "0x8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925"


def padded(address):
    """An address as a topic."""
    return "0x" + "0" * 24 + address[2:]


def log(index=0, *, address=TOKEN, sender=PAYER, to=SHOP, amount=10**18, **overrides):
    """A Transfer log."""
    data = f"0x{amount:064x}"
    return replace(Log(address, (TRANSFER_TOPIC, padded(sender), padded(to)), data, index), **overrides)


def receipt(*logs, **overrides):
    """A successful receipt at height 100."""
    return replace(Receipt(TX, 100, BLOCK, True, tuple(logs)), **overrides)


def decided(found, *, heads=HEADS, headers=None, claim=CLAIM):
    """The outcome for a receipt."""
    return decide(claim, found, heads, {100: HEADER} if headers is None else headers)


@given(amount=st.integers(1, 2**256 - 1), index=st.integers(0, 2**31 - 1))
def test_any_amount_is_exact(amount, index):
    """Every amount that fits in 256 bits is proved to the last unit."""
    outcome = decided(receipt(log(index, amount=amount)))
    assert isinstance(outcome, Final)
    (transfer,) = outcome.transfers
    assert (amount, index, PAYER, SHOP, 900) == (
        transfer.amount_base,
        transfer.log_index,
        transfer.sender,
        transfer.recipient,
        transfer.block_time,
    )


DIRTY = "0x" + "0" * 23 + "1" + SHOP[2:]
NOT_TRANSFERS = {
    "zero value": log(amount=0),
    "approval": log(topics=(APPROVAL, padded(PAYER), padded(SHOP))),
    "dirty recipient": log(topics=(TRANSFER_TOPIC, padded(PAYER), DIRTY)),
    "dirty sender": log(topics=(TRANSFER_TOPIC, DIRTY, padded(SHOP))),
    "31 bytes": log(data="0x" + "01" * 31),
    "33 bytes": log(data="0x" + "01" * 33),
    "64 bytes": log(data="0x" + "01" * 64),
    "no data": log(data="0x"),
    "no topics": log(topics=()),
    "2 topics": log(topics=(TRANSFER_TOPIC, padded(PAYER))),
    "4 topics": log(topics=(TRANSFER_TOPIC, padded(PAYER), padded(SHOP), padded(SHOP))),
    "topics swapped": log(topics=(padded(PAYER), TRANSFER_TOPIC, padded(SHOP))),
}


@pytest.mark.parametrize("name", NOT_TRANSFERS)
def test_what_only_looks_like_a_transfer_is_nothing(name):
    """A log of the pinned contract that is not exactly a Transfer with an amount does not count, and spoils nothing."""
    bad = NOT_TRANSFERS[name]
    assert Rejected(RejectReason.NO_TRANSFER) == decided(receipt(bad))
    beside = decided(receipt(bad, log(7, amount=5)))
    assert isinstance(beside, Final)
    assert [(item.log_index, item.amount_base) for item in beside.transfers] == [(7, 5)]


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        ([], RejectReason.NO_TRANSFER),
        ([log(to=OTHER)], RejectReason.WRONG_RECIPIENT),
        ([log(to=OTHER, amount=0)], RejectReason.NO_TRANSFER),
        ([log(address=OTHER)], RejectReason.WRONG_TOKEN),
        ([log(address=OTHER, to=OTHER)], RejectReason.NO_TRANSFER),
        ([log(address=OTHER), log(1, to=OTHER)], RejectReason.WRONG_RECIPIENT),
        ([log(sender=SHOP, to=PAYER)], RejectReason.WRONG_RECIPIENT),
        ([log(address=TOKEN[:-1] + "6")], RejectReason.WRONG_TOKEN),
    ],
)
def test_why_nothing_counts(logs, expected):
    """A final transaction without a transfer that counts is refuted by what it moved instead."""
    assert Rejected(expected) == decided(receipt(*logs))


def test_every_transfer_of_a_transaction_is_told():
    """Several transfers to the recipient are all told, by log index; those to others are not."""
    outcome = decided(receipt(log(9, amount=3), log(2, amount=1), log(4, to=OTHER), log(5, address=OTHER)))
    assert isinstance(outcome, Final)
    assert [(item.log_index, item.amount_base) for item in outcome.transfers] == [(2, 1), (9, 3)]


def test_not_final_waits_whatever_it_holds():
    """Nothing is proved or refuted above the final height, and what is seen is told."""
    heads = replace(HEADS, finalized=99)
    for found in (receipt(log()), receipt(), receipt(succeeded=False)):
        outcome = decided(found, heads=heads)
        assert isinstance(outcome, Waiting)
        assert (
            outcome.reason,
            outcome.block_number,
            outcome.head_number,
            outcome.finalized_number,
        ) == (WaitReason.NOT_FINAL, 100, 110, 99)
        assert len(found.logs) == len(outcome.transfers)


def test_final_at_exactly_the_final_height():
    """The final block itself is final."""
    assert isinstance(decided(receipt(log()), heads=replace(HEADS, finalized=100)), Final)


def test_not_final_in_an_orphaned_block_shows_no_transfer():
    """What is seen in a block that is not canonical is not even shown."""
    outcome = decided(receipt(log(), block_hash="0x" + "99" * 32), heads=replace(HEADS, finalized=99))
    assert isinstance(outcome, Waiting)
    assert outcome.transfers == ()


@pytest.mark.parametrize(
    ("found", "headers"),
    [
        (receipt(log()), {}),
        (receipt(log()), {101: HEADER}),
        (receipt(log()), {100: replace(HEADER, hash="0x" + "99" * 32)}),
        (receipt(), {100: replace(HEADER, hash="0x" + "99" * 32)}),
        (receipt(log(), tx_hash="0x" + "12" * 32), None),
        (receipt(log(removed=True)), None),
        (receipt(log(), log(1, to=OTHER, removed=True)), None),
        (receipt(log(), succeeded=False), None),
    ],
)
def test_contradictions_are_not_believed(found, headers):
    """A receipt that contradicts the chain or itself neither proves nor refutes."""
    with pytest.raises(Untrusted):
        decided(found, headers=headers)


def test_failed_and_final_is_refuted():
    """A final transaction with status 0 moved nothing."""
    assert Rejected(RejectReason.TX_FAILED) == decided(receipt(succeeded=False))


@pytest.mark.parametrize(("time", "given_up"), [(999, False), (1000, False), (1001, True)])
def test_unknown_is_given_up_only_when_the_chains_time_has_passed(time, given_up):
    """Not found is unknown; only the chain's own time ends the waiting."""
    heads = replace(HEADS, head=replace(HEADS.head, timestamp=time))
    expected = Rejected(RejectReason.GIVEN_UP) if given_up else Waiting(WaitReason.NOT_FOUND, (), 0, 110, 105)
    assert expected == decided(None, heads=heads)


@pytest.mark.parametrize(("finalized", "mark"), [(None, 0), (0, 0), (-1, 0), (111, 0), (99, 100)])
def test_heads_that_cannot_be_true_are_not_believed(finalized, mark):
    """No final block, one above the head, one below what was final: fail closed."""
    with pytest.raises(Untrusted):
        believe_heads(HEADS.head, finalized, mark)


@given(finalized=st.integers(-5, 120), mark=st.integers(0, 120))
def test_believed_heads_never_go_back(finalized, mark):
    """Whatever is told: what is believed lies between the mark and the head."""
    try:
        heads = believe_heads(HEADS.head, finalized, mark)
    except Untrusted:
        return
    assert max(mark, 1) <= heads.finalized <= HEADS.head.number


@given(
    logs=st.lists(
        st.builds(
            Log,
            address=st.sampled_from([TOKEN, OTHER]),
            topics=st.lists(
                st.sampled_from([TRANSFER_TOPIC, APPROVAL, padded(SHOP), padded(OTHER), DIRTY]), max_size=4
            ).map(tuple),
            data=st.binary(max_size=40).map(lambda data: "0x" + data.hex()) | st.just(f"0x{7:064x}"),
            log_index=st.integers(0, 50),
        ),
        max_size=6,
        unique_by=lambda item: item.log_index,
    ),
    finalized=st.integers(95, 110),
    succeeded=st.booleans(),
)
def test_no_mixture_of_logs_is_wrongly_proved(logs, finalized, succeeded):
    """Whatever a receipt holds: Final only in a final block, of a success, and with a real Transfer to the shop."""
    found = receipt(*logs, succeeded=succeeded)
    try:
        outcome = decided(found, heads=replace(HEADS, finalized=finalized))
    except Untrusted:
        return
    if isinstance(outcome, Final):
        assert finalized >= 100
        assert succeeded
        real = {
            item.log_index
            for item in logs
            if item.address == TOKEN
            and len(item.topics) == 3
            and item.topics[0] == TRANSFER_TOPIC
            and item.topics[2] == padded(SHOP)
            and item.topics[1] in (padded(SHOP), padded(OTHER))
            and len(item.data) == 66
            and int(item.data, 16) > 0
        }
        assert real == {transfer.log_index for transfer in outcome.transfers}
