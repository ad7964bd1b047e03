"""What is booked and how. Pure: the standard library only.

Amounts are minor units as `int`; times are aware datetimes in UTC.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from uuid import UUID

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_POSTINGS = 1000

# What is kept of something refused: enough to see what it was, never as much as somebody cares to send.
MAX_KEPT_PAYLOAD = 65_536
MAX_KEPT_ID = 64
MAX_DETAIL = 200


class EventType(StrEnum):
    """What happened to the money."""

    ORDER_PAID = "ORDER_PAID"
    ORDER_REFUNDED = "ORDER_REFUNDED"
    SUSPENSE_RECEIVED = "SUSPENSE_RECEIVED"
    SUSPENSE_RELEASED = "SUSPENSE_RELEASED"
    PAYMENT_REVERSED = "PAYMENT_REVERSED"


class Bucket(StrEnum):
    """One of the accounts that a merchant has per asset: two pairs, each of which sums to zero."""

    MERCHANT = "merchant"
    CLEARING = "clearing"
    SUSPENSE = "suspense"
    SUSPENSE_CLEARING = "suspense_clearing"


class Direction(StrEnum):
    """Side of an entry. A balance is Σ CREDIT − Σ DEBIT."""

    CREDIT = "CREDIT"
    DEBIT = "DEBIT"


class Outcome(StrEnum):
    """What became of one posting."""

    POSTED = "POSTED"
    ALREADY_POSTED = "ALREADY_POSTED"
    CONFLICT = "CONFLICT"
    INVALID = "INVALID"


class Reason(StrEnum):
    """Why something was refused."""

    CONFLICT = "CONFLICT"
    INVALID = "INVALID"
    UNPARSEABLE = "UNPARSEABLE"


# The side of `merchant` or, for what concerns suspense, of `suspense`; the pair's other bucket takes the other one.
SIDE = {
    EventType.ORDER_PAID: Direction.CREDIT,
    EventType.ORDER_REFUNDED: Direction.DEBIT,
    EventType.SUSPENSE_RECEIVED: Direction.CREDIT,
    EventType.SUSPENSE_RELEASED: Direction.DEBIT,
    EventType.PAYMENT_REVERSED: Direction.DEBIT,
}
# Money in suspense may belong to no order; what pays, refunds or reverses always has one.
WITHOUT_ORDER = frozenset({EventType.SUSPENSE_RECEIVED, EventType.SUSPENSE_RELEASED})


@dataclass(frozen=True, slots=True)
class Posting:
    """One event to book.

    `event_id_text` is the id as the caller wrote it; `tx_hash` may be empty, `order_id` for a type of WITHOUT_ORDER.
    """

    event_id: UUID
    event_type: EventType
    merchant_id: str
    order_id: str
    asset: str
    amount_minor: int
    tx_hash: str
    effective_at: datetime
    event_id_text: str
    traceparent: str = ""

    @property
    def payload_hash(self) -> bytes:
        """SHA-256 of everything that must not change under one event id; the trace context may."""
        # No field can hold a line feed, so that two contents never make one text.
        fields = (
            self.event_type,
            self.merchant_id,
            self.order_id,
            self.asset,
            str(self.amount_minor),
            self.tx_hash,
            str(microseconds(self.effective_at)),
        )
        return sha256("\n".join(fields).encode()).digest()

    @property
    def side(self) -> Direction:
        """The side of the entry in the first bucket of the event's pair."""
        return SIDE[self.event_type]

    def described(self) -> str:
        """JSON for people."""
        return json.dumps(
            {
                "event_id": str(self.event_id),
                "event_type": self.event_type,
                "merchant_id": self.merchant_id,
                "order_id": self.order_id,
                "asset": self.asset,
                "amount_minor": self.amount_minor,
                "tx_hash": self.tx_hash,
                "effective_at": self.effective_at.isoformat(),
            }
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that is not booked, kept for people. `event_id_text` is empty where none could be read."""

    reason: Reason
    event_id_text: str
    detail: str
    payload: str
    traceparent: str = ""

    @property
    def digest(self) -> bytes:
        """The same for the same thing refused for the same reason."""
        return sha256(f"{self.reason}\n{self.payload}".encode()).digest()

    @property
    def kept_payload(self) -> str:
        """What is stored of the payload."""
        return _storable(self.payload, MAX_KEPT_PAYLOAD)

    @property
    def kept_id(self) -> str:
        """The event id as far as it can be stored and answered with."""
        return _storable(self.event_id_text, MAX_KEPT_ID)

    @property
    def kept_detail(self) -> str:
        """Why, at a bounded length."""
        return _storable(self.detail, MAX_DETAIL)


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome for one posting; `traceparent` is the context to go on with."""

    event_id_text: str
    outcome: Outcome
    detail: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Balances:
    """A merchant's balances of an asset, in minor units, and the time that they hold for."""

    merchant: int
    clearing: int
    suspense: int
    as_of: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the books."""

    entry_id: UUID
    event_id: UUID
    event_type: EventType
    merchant_id: str
    order_id: str
    asset: str
    bucket: Bucket
    direction: Direction
    amount_minor: int
    balance_after: int
    tx_hash: str
    created_at: datetime
    effective_at: datetime
    seq: int
    account_id: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page of entries ends: the next one is what is older. Orders as the entries are listed."""

    created_at: datetime
    seq: int
    account_id: int


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule of the books that does not hold, for a merchant's asset or, without an account, for an asset as a whole.

    `account_id` is that of the first bucket of the pair: `merchant` or `suspense`.
    """

    rule: str
    asset: str
    account_id: int | None = None


def conflict(posting: Posting) -> Refusal:
    """The refusal of a posting whose id is booked with another content."""
    detail = "the event id is booked with another content"
    return Refusal(Reason.CONFLICT, posting.event_id_text, detail, posting.described(), posting.traceparent)


def microseconds(time: datetime) -> int:
    """Microseconds since 1970, exact."""
    return (time - EPOCH) // timedelta(microseconds=1)


def from_microseconds(value: int) -> datetime:
    """The time of `microseconds`. Errors: OverflowError past the years 1 … 9999."""
    return EPOCH + timedelta(microseconds=value)


def _storable(text: str, length: int) -> str:
    """PostgreSQL stores no NUL."""
    return text[:length].replace("\0", "\N{REPLACEMENT CHARACTER}")
