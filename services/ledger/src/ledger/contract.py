"""protobuf ↔ domain, for the rpcs and for the messages on the bus alike."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from kit import errors
from kit.errors import Fault
from kit.server import check
from ledger.domain import (
    EPOCH,
    WITHOUT_ORDER,
    Bucket,
    Direction,
    Entry,
    EventType,
    Outcome,
    Posting,
    Reason,
    Refusal,
    Result,
    microseconds,
)
from ospay.ledger.v1 import ledger_pb2 as pb

EVENT_TYPES = {
    pb.EVENT_TYPE_ORDER_PAID: EventType.ORDER_PAID,
    pb.EVENT_TYPE_ORDER_REFUNDED: EventType.ORDER_REFUNDED,
    pb.EVENT_TYPE_SUSPENSE_RECEIVED: EventType.SUSPENSE_RECEIVED,
    pb.EVENT_TYPE_SUSPENSE_RELEASED: EventType.SUSPENSE_RELEASED,
    pb.EVENT_TYPE_PAYMENT_REVERSED: EventType.PAYMENT_REVERSED,
}
EVENT_TYPES_OUT = {value: key for key, value in EVENT_TYPES.items()}
BUCKETS_OUT = {
    Bucket.MERCHANT: pb.BUCKET_MERCHANT,
    Bucket.CLEARING: pb.BUCKET_CLEARING,
    Bucket.SUSPENSE: pb.BUCKET_SUSPENSE,
    Bucket.SUSPENSE_CLEARING: pb.BUCKET_SUSPENSE_CLEARING,
}
DIRECTIONS_OUT = {Direction.CREDIT: pb.DIRECTION_CREDIT, Direction.DEBIT: pb.DIRECTION_DEBIT}
OUTCOMES_OUT = {
    Outcome.POSTED: pb.POST_OUTCOME_POSTED,
    Outcome.ALREADY_POSTED: pb.POST_OUTCOME_ALREADY_POSTED,
    Outcome.CONFLICT: pb.POST_OUTCOME_CONFLICT,
    Outcome.INVALID: pb.POST_OUTCOME_INVALID,
}
MAX_TRACEPARENT = 64
FIRST_SECOND = microseconds(datetime(2, 1, 1, tzinfo=UTC)) // 1_000_000
LAST_SECOND = microseconds(datetime(9999, 1, 1, tzinfo=UTC)) // 1_000_000


def posting_of(message: pb.Posting, field: str = "") -> Posting:
    """A checked posting; `field` is the path to it.

    Errors: Fault INVALID for a time that is none, and for no order where the event must have one.
    """
    event_type = EVENT_TYPES[message.event_type]
    if not message.order_id and event_type not in WITHOUT_ORDER:
        raise errors.invalid(f"{field}order_id", f"must not be empty for {event_type}")
    return Posting(
        event_id=UUID(message.event_id),
        event_type=event_type,
        merchant_id=message.merchant_id,
        order_id=message.order_id,
        asset=message.asset,
        amount_minor=message.amount_minor,
        tx_hash=message.tx_hash,
        effective_at=time_of(message.effective_at, f"{field}effective_at"),
        event_id_text=message.event_id,
        traceparent=message.traceparent,
    )


def items_of(messages: Iterable[pb.Posting]) -> list[Posting | Refusal]:
    """Each posting, checked by itself, or why it is refused."""
    return [_item_of(message) for message in messages]


def _item_of(message: pb.Posting) -> Posting | Refusal:
    try:
        check(message)
        return posting_of(message)
    except Fault as fault:
        fields = {field.name: str(value) for field, value in message.ListFields() if field.name != "traceparent"}
        traceparent = message.traceparent if len(message.traceparent) <= MAX_TRACEPARENT else ""
        return Refusal(Reason.INVALID, message.event_id, fault.detail, json.dumps(fields), traceparent)


def unparseable(data: bytes, detail: str) -> Refusal:
    """The refusal of a message that is no batch of postings."""
    return Refusal(Reason.UNPARSEABLE, "", detail, base64.b64encode(data).decode())


def response_of(results: Iterable[Result]) -> pb.BatchPostResponse:
    """The results, in their order."""
    return pb.BatchPostResponse(results=[result_of(result) for result in results])


def result_of(result: Result) -> pb.PostResult:
    """One result."""
    return pb.PostResult(
        event_id=result.event_id_text,
        outcome=OUTCOMES_OUT[result.outcome],
        detail=result.detail,
        traceparent=result.traceparent,
    )


def entry_of(entry: Entry) -> pb.Entry:
    """One line of the books."""
    return pb.Entry(
        entry_id=str(entry.entry_id),
        event_id=str(entry.event_id),
        event_type=EVENT_TYPES_OUT[entry.event_type],
        merchant_id=entry.merchant_id,
        order_id=entry.order_id,
        asset=entry.asset,
        bucket=BUCKETS_OUT[entry.bucket],
        direction=DIRECTIONS_OUT[entry.direction],
        amount_minor=entry.amount_minor,
        balance_after_minor=str(entry.balance_after),
        tx_hash=entry.tx_hash,
        created_at=timestamp_of(entry.created_at),
        effective_at=timestamp_of(entry.effective_at),
        seq=entry.seq,
    )


def timestamp_of(time: datetime) -> Timestamp:
    """Exact."""
    seconds, rest = divmod(microseconds(time), 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def time_of(timestamp: Timestamp, field: str) -> datetime:
    """The time, nanoseconds below one microsecond cut off. Errors: Fault INVALID outside the years 2 … 9998."""
    if not 0 <= timestamp.nanos < 1_000_000_000:
        raise errors.invalid(field, "nanos must be within 0 … 999999999")
    # asyncpg takes Python's first and last datetime for PostgreSQL's infinities, and reads those without a zone.
    if not FIRST_SECOND <= timestamp.seconds < LAST_SECOND:
        raise errors.invalid(field, "must be within the years 2 … 9998")
    return EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)
