"""What several operators say together: whatever a minority says, it decides nothing."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier import agreement
from verifier.agreement import Unsettled
from verifier.domain import Header, Heads, Log, Receipt, Untrusted

LOG = Log("0x" + "55" * 20, ("0x" + "33" * 32,), "0x01", 0)
TRUE = Receipt("0x" + "11" * 32, 100, "0x" + "22" * 32, True, (LOG,))
FALSE = [
    replace(TRUE, block_hash="0x" + "99" * 32),
    replace(TRUE, block_number=99),
    replace(TRUE, succeeded=False),
    replace(TRUE, logs=()),
    *(
        replace(TRUE, logs=(replace(LOG, **change),))
        for change in (
            {"address": "0x" + "56" * 20},
            {"topics": ("0x" + "34" * 32,)},
            {"data": "0x02"},
            {"log_index": 1},
        )
    ),
]
DOWN = Untrusted("down")
WRONG = st.sampled_from([*FALSE, None, DOWN])


def heads(finalized, number=200, timestamp=1000):
    """What an operator has reached."""
    return Heads(Header(number, "0x" + "44" * 32, timestamp), finalized)


@pytest.mark.parametrize("other", FALSE)
def test_every_part_of_a_receipt_counts(other):
    """Two operators that differ in any part of a receipt do not agree."""
    with pytest.raises(Unsettled):
        agreement.receipt([TRUE, other], 2, finalized=100)


@given(quorum=st.integers(1, 4), liars=st.lists(WRONG, max_size=3), honest=st.integers(0, 4), seed=st.randoms())
def test_a_minority_decides_nothing(quorum, liars, honest, seed):
    """Fewer liars than the quorum never have a receipt of theirs decided, and enough honest operators always have."""
    votes = [*liars[: quorum - 1], *[TRUE] * honest]
    seed.shuffle(votes)
    try:
        found = agreement.receipt(votes, quorum, finalized=100)
    except (Unsettled, Untrusted):
        assert honest < quorum
    else:
        assert TRUE == found
        assert honest >= quorum


@given(quorum=st.integers(1, 4), votes=st.lists(st.sampled_from([TRUE, *FALSE, None, DOWN]), max_size=6))
def test_nothing_is_unknown_without_a_quorum(quorum, votes):
    """A transaction is unknown only if that many operators do not know it; asking on would not help what is settled."""
    settled = agreement.is_settled(votes, quorum)
    try:
        found = agreement.receipt(votes, quorum, finalized=100)
    except (Unsettled, Untrusted):
        assert not settled
    else:
        assert settled
        assert votes.count(found) >= quorum


@given(quorum=st.integers(1, 3), votes=st.lists(st.sampled_from([TRUE, *FALSE, None, DOWN]), min_size=1, max_size=4))
def test_above_the_final_height_one_word_is_shown(quorum, votes):
    """Where nothing is decided, what any operator sees is shown."""
    try:
        found = agreement.receipt(votes, quorum, finalized=98)
    except (Unsettled, Untrusted):
        found = None
    assert (found is not None) == any(isinstance(vote, Receipt) for vote in votes)


@given(
    told=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 50), st.integers(0, 10**6)), min_size=1, max_size=5),
    data=st.data(),
)
def test_a_height_is_reached_by_as_many_as_the_quorum(told, data):
    """The final height, the head and its time are each what a quorum has reached, and no more than that."""
    each = [heads(final, final + above, time) for final, above, time in told]
    quorum = data.draw(st.integers(1, len(each)))
    found = agreement.reached(each, quorum)
    for value, of in (
        (found.finalized, lambda one: one.finalized),
        (found.head.number, lambda one: one.head.number),
        (found.head.timestamp, lambda one: one.head.timestamp),
    ):
        assert sum(of(one) >= value for one in each) >= quorum
        assert sum(of(one) > value for one in each) < quorum


@given(votes=st.lists(st.sampled_from("abc"), max_size=6), quorum=st.integers(1, 4))
def test_agreed_is_one_thing_or_nothing(votes, quorum):
    """What is agreed was said by a quorum, and by a quorum nothing else was."""
    headers = [Header(ord(vote), vote, 0) for vote in votes]
    found = agreement.agreed(headers, quorum)
    enough = {header for header in headers if headers.count(header) >= quorum}
    assert enough == ({found} if found else enough if len(enough) > 1 else set())
