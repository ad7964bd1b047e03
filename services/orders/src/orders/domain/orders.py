"""What there is: merchants, orders, claims, transfers, refunds, debts, and the states they may be in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID, uuid5


class State(StrEnum):
    """Where an order stands."""

    PENDING = "PENDING"
    CONFIRMING = "CONFIRMING"
    PAID = "PAID"
    SETTLED = "SETTLED"
    REFUNDED = "REFUNDED"
    EXPIRED = "EXPIRED"


OrderKey = tuple[str, str]
TransferKey = tuple[int, str, int]

OPEN_STATES = frozenset({State.PENDING, State.CONFIRMING})
CLAIMABLE_STATES = OPEN_STATES | {State.EXPIRED}
# From → to; everything else is refused. The statements in store/ name the state they come from.
TRANSITIONS: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.CONFIRMING, State.PAID, State.EXPIRED}),
    State.CONFIRMING: frozenset({State.PENDING, State.PAID, State.EXPIRED}),
    State.PAID: frozenset({State.SETTLED, State.REFUNDED}),
    State.SETTLED: frozenset(),
    State.REFUNDED: frozenset(),
    State.EXPIRED: frozenset(),
}


class ClaimState(StrEnum):
    """What became of a claim."""

    OPEN = "OPEN"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"


@dataclass(frozen=True)
class Terms:
    """What a merchant whose orders have addresses of their own takes for paid; minor units."""

    tolerance_minor: int = 0
    credits_surplus: bool = False


@dataclass(frozen=True)
class Merchant:
    """Who gets paid: at one `wallet` (EIP-55), or at addresses below an extended public key; one of them is set."""

    id: str
    name: str
    wallet: str | None
    created_at: datetime
    xpub: str | None = None
    terms: Terms = Terms()


@dataclass(frozen=True)
class ApiKey:
    """What can be told of a key."""

    id: str
    merchant_id: str
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True)
class Claim:
    """Somebody's word that a transaction paid an order."""

    id: UUID
    tx_hash: str
    state: ClaimState
    reason: str
    confirming: bool
    seen_minor: int | None
    confirmations: int | None
    block_number: int | None
    updated_at: datetime


@dataclass(frozen=True)
class Confirming:
    """A transfer that would pay, in a block that is not final; minor units."""

    tx_hash: str
    amount_minor: int
    block_number: int
    confirmations: int


@dataclass(frozen=True)
class Order:
    """An order as it stands; amounts in minor units.

    `received_minor` is what was credited or, while the order is not paid, is held for it.
    """

    id: str
    merchant_id: str
    asset: str
    chain: str
    amount_minor: int
    customer_wallet: str | None
    deposit_address: str
    metadata: str | None
    request_hash: bytes
    created_block: int | None
    state: State
    received_minor: int
    refunded_minor: int
    late_minor: int
    tx_hash: str | None
    paid_at: datetime | None
    created_at: datetime
    expires_at: datetime
    settled_at: datetime | None
    settlement_batch_id: UUID | None
    last_claim: Claim | None = None
    deposit_index: int | None = None
    reversed_minor: int = 0
    surplus_minor: int = 0
    confirming: Confirming | None = None

    @property
    def key(self) -> OrderKey:
        """(id, merchant id), the primary key and the order in which rows are locked."""
        return (self.id, self.merchant_id)

    @property
    def deposit_path(self) -> str | None:
        """Path of an address of its own below the merchant's extended public key."""
        return None if self.deposit_index is None else f"0/{self.deposit_index}"


@dataclass(frozen=True)
class Due:
    """An open order that is past its time, and the address that it was to be paid at: its own or a wallet."""

    id: str
    merchant_id: str
    chain: str
    asset: str
    address: str
    is_own: bool
    created_block: int | None
    created_at: datetime
    expires_at: datetime

    @property
    def key(self) -> OrderKey:
        """(id, merchant id)"""
        return (self.id, self.merchant_id)


@dataclass(frozen=True)
class NewOrder:
    """What is asked for, checked and in canonical form."""

    merchant_id: str
    id: str
    asset: str
    chain: str
    amount_minor: int
    customer_wallet: str | None
    metadata: str | None
    expires_in: timedelta | None

    @property
    def key(self) -> OrderKey:
        """(id, merchant id)"""
        return (self.id, self.merchant_id)

    def request_hash(self) -> bytes:
        """What two requests must share to be the same request."""
        seconds = None if self.expires_in is None else int(self.expires_in.total_seconds())
        metadata = None if self.metadata is None else json.loads(self.metadata)
        return fingerprint(self.asset, self.chain, self.amount_minor, self.customer_wallet, seconds, metadata)


def fingerprint(*parts: object) -> bytes:
    """SHA-256 of the parts in canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).digest()


# Never to be changed: what was booked under these ids would be booked again.
_IDS = UUID("61bbc9c3-9782-472d-85a1-f380970a688c")


def stable_id(*parts: str | int | UUID | None) -> UUID:
    """The id of what these parts name: the same whenever it is made, and another one for any other parts."""
    return uuid5(_IDS, json.dumps(parts, default=str))


@dataclass(frozen=True)
class Transfer:
    """One proved or seen Transfer log to the order's address; `amount_base` in base units."""

    chain_id: int
    tx_hash: str
    log_index: int
    block_number: int
    block_hash: str
    block_time: datetime
    sender: str
    amount_base: int
    amount_minor: int

    @property
    def key(self) -> TransferKey:
        """(chain id, transaction hash, log index): what pays once."""
        return (self.chain_id, self.tx_hash, self.log_index)


class RefundRefused(Exception):
    """A refund that the order does not allow; `reason` is `order_not_refundable` or `refund_exceeds_received`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Refund:
    """A refund as it was recorded; the `…_after` fields are what the first answer said."""

    id: str
    order_id: str
    merchant_id: str
    request_hash: bytes
    amount_minor: int
    state_after: State
    refunded_after: int


def refund_amount(order: Order, asked_minor: int | None) -> int:
    """How much a refund moves, minor units: what was asked, or all that is left. Errors: RefundRefused."""
    if order.state is not State.PAID:
        raise RefundRefused("order_not_refundable", f"the order is {order.state.value}, only a PAID one is refundable")
    left = _left(order)
    if left <= 0 or (asked_minor is not None and asked_minor > left):
        asked = "all" if asked_minor is None else asked_minor
        raise RefundRefused("refund_exceeds_received", f"{max(0, left)} minor units are left, {asked} were asked for")
    return left if asked_minor is None else asked_minor


def _left(order: Order) -> int:
    """What can be refunded: what the chain took back cannot."""
    return order.received_minor - order.refunded_minor - order.reversed_minor


def state_after_refund(order: Order, amount_minor: int) -> State:
    """REFUNDED when nothing is left, else PAID."""
    return State.REFUNDED if _left(order) == amount_minor else State.PAID


@dataclass(frozen=True)
class Debt:
    """An outbox row: an effect another service has to confirm. `payload` is a serialized message of its contract."""

    event_id: UUID
    subject: str
    merchant_id: str
    asset: str
    payload: bytes
    traceparent: str = ""


@dataclass(frozen=True)
class SettlementBatch:
    """One run of the scheduler for one merchant and asset."""

    id: UUID
    merchant_id: str
    asset: str
    order_count: int
    total_minor: int
    created_at: datetime


@dataclass(frozen=True)
class Page:
    """A keyset position: newest first, strictly before (created_at, id)."""

    created_at: datetime
    id: str


def metadata_problem(text: str) -> str | None:
    """Why `text` is no JSON object, or None."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return "must be a JSON object"
    return None if isinstance(value, dict) else "must be a JSON object"


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
