"""protobuf ↔ domain: whatever comes in becomes a posting or a refusal, never an exception."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import Fault
from ledger import contract
from ledger.domain import WITHOUT_ORDER, EventType, Posting, Reason, Refusal
from ospay.ledger.v1 import ledger_pb2 as pb

int64 = st.integers(-(2**63), 2**63 - 1)
int32 = st.integers(-(2**31), 2**31 - 1)
timestamps = st.builds(Timestamp, seconds=int64, nanos=int32)
anything = st.builds(
    pb.Posting,
    event_id=st.one_of(st.text(), st.uuids().map(str)),
    event_type=st.one_of(int32, st.sampled_from([1, 2, 3, 4, 5])),
    merchant_id=st.one_of(st.text(), st.just("m1")),
    order_id=st.one_of(st.text(), st.sampled_from(["", "o1"])),
    asset=st.one_of(st.text(), st.just("USDT")),
    amount_minor=int64,
    tx_hash=st.one_of(st.text(), st.just("")),
    effective_at=st.one_of(st.none(), timestamps),
    traceparent=st.text(),
)


@given(st.lists(anything, max_size=5))
def test_anything_is_a_posting_or_a_refusal(messages: list[pb.Posting]) -> None:
    """One item for each message, and what is a posting has values that can be booked."""
    items = contract.items_of(messages)
    assert len(messages) == len(items)
    for item in items:
        assert len(item.traceparent) <= 64
        if isinstance(item, Posting):
            assert item.amount_minor >= 1
            assert item.merchant_id
            assert item.order_id or item.event_type in WITHOUT_ORDER
        else:
            assert item.detail


@given(timestamps)
def test_time_is_read_or_refused(timestamp: Timestamp) -> None:
    """A time within the years 2 … 9998 is read to the microsecond, any other is named as a bad field."""
    try:
        time = contract.time_of(timestamp, "as_of")
    except Fault as fault:
        refused = fault
    else:
        nanos = timestamp.nanos - timestamp.nanos % 1000
        assert Timestamp(seconds=timestamp.seconds, nanos=nanos) == contract.timestamp_of(time)
        return
    assert [violation.field for violation in refused.violations] == ["as_of"]


@pytest.mark.parametrize(
    "time", [datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]
)
def test_first_and_last_time(time: datetime) -> None:
    """The ends of the calendar survive."""
    assert time == contract.time_of(contract.timestamp_of(time), "as_of")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"event_id": "17"}, "event_id"),
        ({"event_type": 0}, "event_type"),
        ({"event_type": 6}, "event_type"),
        ({"event_type": 1, "order_id": ""}, "order_id"),
        ({"event_type": 2, "order_id": ""}, "order_id"),
        ({"event_type": 5, "order_id": ""}, "order_id"),
        ({"event_type": 3, "order_id": "o\n"}, "order_id"),
        ({"merchant_id": ""}, "merchant_id"),
        ({"merchant_id": "m\n"}, "merchant_id"),
        ({"order_id": "o" * 65}, "order_id"),
        ({"asset": "usdt"}, "asset"),
        ({"amount_minor": 0}, "amount_minor"),
        ({"amount_minor": -1}, "amount_minor"),
        ({"tx_hash": "0x12"}, "tx_hash"),
        ({"tx_hash": "0x" + "AB" * 32}, "tx_hash"),
        ({"effective_at": Timestamp(seconds=2**60)}, "effective_at"),
        ({"effective_at": Timestamp(seconds=-62135596800)}, "effective_at"),
        ({"traceparent": "t" * 65}, "traceparent"),
    ],
    ids=str,
)
def test_refusal_names_the_field(
    posting: Callable[..., Posting], message: Callable[[Posting], pb.Posting], change: dict, field: str
) -> None:
    """Each rule of the contract is kept, and what breaks it is named."""
    given_message = message(posting())
    if isinstance(change.get("effective_at"), Timestamp):
        given_message.effective_at.CopyFrom(change["effective_at"])
    else:
        for name, value in change.items():
            setattr(given_message, name, value)
    [item] = contract.items_of([given_message])
    assert isinstance(item, Refusal)
    assert Reason.INVALID is item.reason
    assert item.detail.startswith(f"{field}: ")
    assert given_message.event_id in item.payload


@pytest.mark.parametrize("event_type", EventType)
def test_every_type_has_its_name_in_the_contract(
    posting: Callable[..., Posting], message: Callable[[Posting], pb.Posting], event_type: EventType
) -> None:
    """What is read of each type is what was meant; money in suspense may belong to no order."""
    given_posting = posting(event_type=event_type, order="" if event_type in WITHOUT_ORDER else "o1")
    assert [given_posting] == contract.items_of([message(given_posting)])


def test_posting_survives_the_wire(posting: Callable[..., Posting], message: Callable[[Posting], pb.Posting]) -> None:
    """A posting is read as it was written."""
    given_posting = posting(2**63 - 1, traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    data = message(given_posting).SerializeToString()
    assert [given_posting] == contract.items_of([pb.Posting.FromString(data)])
