"""The pure parts: content hashes, times, cursors, what is kept of refusals."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import Fault
from ledger import cursor
from ledger.domain import (
    EventType,
    Outcome,
    Position,
    Posting,
    Reason,
    Refusal,
    conflict,
    from_microseconds,
    microseconds,
)

names = st.from_regex(r"[A-Za-z0-9_.:-]{1,64}", fullmatch=True)
times = st.datetimes(timezones=st.just(UTC))
postings = st.builds(
    Posting,
    event_id=st.uuids(),
    event_type=st.sampled_from(EventType),
    merchant_id=names,
    order_id=names,
    asset=st.from_regex(r"[A-Z0-9]{2,12}", fullmatch=True),
    amount_minor=st.integers(1, 2**63 - 1),
    tx_hash=st.from_regex(r"(0x[0-9a-f]{64})?", fullmatch=True),
    effective_at=times,
    event_id_text=st.text(),
    traceparent=st.text(),
)
positions = st.builds(Position, times, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))


def content(posting: Posting) -> tuple:
    """Everything that must not change under one event id."""
    return (
        posting.event_type,
        posting.merchant_id,
        posting.order_id,
        posting.asset,
        posting.amount_minor,
        posting.tx_hash,
        posting.effective_at,
    )


@given(postings, postings)
def test_hash_is_equal_only_for_equal_content(one: Posting, other: Posting) -> None:
    """Two contents have one hash exactly when they are the same."""
    assert (content(one) == content(other)) == (one.payload_hash == other.payload_hash)


@given(postings, postings, st.data())
def test_hash_sees_every_field(one: Posting, other: Posting, data: st.DataObject) -> None:
    """Changing any one field of the content changes the hash."""
    names_of_fields = ["event_type", "merchant_id", "order_id", "asset", "amount_minor", "tx_hash", "effective_at"]
    field = data.draw(st.sampled_from(names_of_fields))
    changed = replace(one, **{field: getattr(other, field)})
    assert (getattr(one, field) == getattr(other, field)) == (one.payload_hash == changed.payload_hash)


@given(postings, st.text(), st.uuids())
def test_hash_ignores_the_trace_and_the_spelling(one: Posting, text: str, event_id: UUID) -> None:
    """The trace context and how the id is written are not content."""
    assert one.payload_hash == replace(one, traceparent=text, event_id_text=text, event_id=event_id).payload_hash


def test_hash_stays_what_it_is() -> None:
    """Hashes are on disk: another way to make them would turn every known event into a conflict."""
    posting = Posting(
        UUID(int=1), EventType.ORDER_PAID, "m", "o", "USDT", 5, "", datetime(2026, 1, 1, tzinfo=UTC), "", ""
    )
    assert posting.payload_hash.hex()[:16] == "a73ddbeb28b47d67"


@given(st.datetimes(timezones=st.timezones()))
def test_microseconds_are_exact(time: datetime) -> None:
    """A time survives its number, whatever its zone."""
    try:
        there = time.astimezone(UTC)
    except OverflowError:
        return
    assert there == from_microseconds(microseconds(time))


@given(positions, st.text())
def test_cursor_is_read_back(position: Position, listing: str) -> None:
    """A token means its position, in its listing."""
    assert position == cursor.decode(cursor.encode(position, listing=listing), listing=listing)


@given(st.one_of(st.text(min_size=1), st.from_regex(r"[A-Za-z0-9_-]{38}", fullmatch=True)))
def test_what_is_no_cursor_is_refused(token: str) -> None:
    """Any other text is `invalid_cursor`."""
    with pytest.raises(Fault, match="invalid_cursor"):
        cursor.decode(token, listing="m o")


@given(positions)
def test_cursor_of_another_listing_is_refused(position: Position) -> None:
    """A token of one listing is none of another."""
    with pytest.raises(Fault, match="invalid_cursor"):
        cursor.decode(cursor.encode(position, listing="m1 "), listing="m2 ")


def test_no_token_is_the_start() -> None:
    """The empty token asks for the first page."""
    assert cursor.decode("", listing="m ") is None


@given(st.text(), st.text(), st.text())
def test_what_is_kept_of_a_refusal_can_be_stored(event_id: str, detail: str, payload: str) -> None:
    """Bounded, without NUL."""
    refusal = Refusal(Reason.INVALID, event_id * 50, detail * 50, payload * 50)
    kept = refusal.kept_id + refusal.kept_detail + refusal.kept_payload
    assert "\0" not in kept
    assert len(refusal.kept_id) <= 64
    assert len(refusal.kept_detail) <= 200
    assert refusal.digest == replace(refusal, traceparent="t", detail="another").digest


@given(postings)
def test_conflict_names_the_posting(posting: Posting) -> None:
    """The refusal of a conflict says what was tried."""
    refusal = conflict(posting)
    assert (Reason.CONFLICT, posting.event_id_text) == (refusal.reason, refusal.event_id_text)
    assert f'"amount_minor": {posting.amount_minor},' in refusal.payload


def test_every_refusal_of_a_posting_is_an_outcome() -> None:
    """What is refused item by item is answered by the same name."""
    assert [Outcome(reason) for reason in (Reason.CONFLICT, Reason.INVALID)] == [Outcome.CONFLICT, Outcome.INVALID]
