"""What orders are and what may become of them. Pure: no clock, no database, no network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID


class State(StrEnum):
    """Where an order stands."""

    PENDING = "PENDING"
    CONFIRMING = "CONFIRMING"
    PAID = "PAID"
    SETTLED = "SETTLED"
    REFUNDED = "REFUNDED"
    EXPIRED = "EXPIRED"


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
class Merchant:
    """Who gets paid; `wallet` is an EIP-55 address."""

    id: str
    name: str
    wallet: str
    created_at: datetime


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
class Order:
    """An order as it stands; amounts in minor units."""

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

    @property
    def key(self) -> tuple[str, str]:
        """(id, merchant id), the primary key and the order in which rows are locked."""
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
    def key(self) -> tuple[str, str]:
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
    def key(self) -> tuple[int, str, int]:
        """(chain id, transaction hash, log index): what pays once."""
        return (self.chain_id, self.tx_hash, self.log_index)


class Outcome(StrEnum):
    """What the chain says of a claim."""

    FINAL = "FINAL"
    WAITING = "WAITING"
    REJECTED = "REJECTED"


@dataclass(frozen=True)
class Verdict:
    """The verifier's word on one claim; `reason` is a slug for WAITING and REJECTED."""

    claim_id: UUID
    outcome: Outcome
    reason: str = ""
    transfers: tuple[Transfer, ...] = ()
    block_number: int | None = None
    head_number: int | None = None
    traceparent: str = ""

    def onward(self, traceparent: str) -> Verdict:
        """The same, to be traced further under another span."""
        return replace(self, traceparent=traceparent)


@dataclass(frozen=True)
class Decision:
    """What a verdict does to a claim and its order; `paid` and `late` are exclusive."""

    claim_state: ClaimState
    reason: str
    confirming: bool = False
    seen_minor: int | None = None
    confirmations: int | None = None
    block_number: int | None = None
    paid: Transfer | None = None
    late: Transfer | None = None


# With the height of the chain at creation known, the clocks are only a second wall against an endpoint that lagged.
CLOCK_TOLERANCE = timedelta(seconds=15)


def judge(order: Order, verdict: Verdict, used: AbstractSet[tuple[int, str, int]]) -> Decision:
    """What becomes of an open claim on `order`; `used` are the transfers that have paid an order or came late."""
    if order.state not in CLAIMABLE_STATES:
        return Decision(ClaimState.REJECTED, "order_closed")
    if verdict.outcome is Outcome.REJECTED:
        return Decision(ClaimState.REJECTED, verdict.reason)
    misfits = [(misfit(order, transfer, used), transfer) for transfer in verdict.transfers]
    fitting = next((transfer for reason, transfer in misfits if reason is None), None)
    shown = fitting or max((item for _, item in misfits), key=lambda item: item.amount_minor, default=None)
    seen = None if shown is None or shown.amount_minor < 0 else shown.amount_minor
    if verdict.outcome is Outcome.WAITING:
        return _wait(order, verdict, fitting, seen)
    assert verdict.transfers, "a final verdict proves at least one transfer"
    if fitting is None:
        return Decision(ClaimState.REJECTED, _worst(reason for reason, _ in misfits if reason), seen_minor=seen)
    if is_late(order, fitting):
        return Decision(ClaimState.REJECTED, "late", seen_minor=seen, block_number=fitting.block_number, late=fitting)
    return Decision(ClaimState.ACCEPTED, "", seen_minor=seen, block_number=fitting.block_number, paid=fitting)


def _wait(order: Order, verdict: Verdict, fitting: Transfer | None, seen: int | None) -> Decision:
    confirmations = None
    if verdict.block_number and verdict.head_number:
        confirmations = max(0, verdict.head_number - verdict.block_number + 1)
    return Decision(
        ClaimState.OPEN,
        verdict.reason,
        confirming=fitting is not None and order.state in OPEN_STATES and not is_late(order, fitting),
        seen_minor=seen,
        confirmations=confirmations,
        block_number=verdict.block_number or None,
    )


def misfit(order: Order, transfer: Transfer, used: AbstractSet[tuple[int, str, int]]) -> str | None:
    """Why a transfer to the order's address does not pay it, or None.

    The address is the merchant's one wallet, so only the exact amount counts: with anything looser, anybody could
    claim somebody else's larger transfer.
    """
    if transfer.key in used:
        return "already_used"
    if order.customer_wallet is not None and order.customer_wallet != transfer.sender:
        return "payer_mismatch"
    if transfer.amount_minor < 0 or transfer.amount_minor > order.amount_minor:
        return "overpaid"
    if transfer.amount_minor < order.amount_minor:
        return "underpaid"
    if _mined_before(order, transfer):
        return "mined_before_order"
    return None


# When several transfers of a transaction do not fit, the first of these is told.
_REASONS = ("mined_before_order", "underpaid", "overpaid", "already_used", "payer_mismatch")


def _worst(reasons: Iterable[str]) -> str:
    return min(reasons, key=_REASONS.index)


def _mined_before(order: Order, transfer: Transfer) -> bool:
    """Heights tell it exactly; without one, clocks do, and a block's time is cut to whole seconds."""
    created = order.created_at.replace(microsecond=0)
    if order.created_block is None:
        return transfer.block_time < created
    return transfer.block_number <= order.created_block or transfer.block_time < created - CLOCK_TOLERANCE


def is_late(order: Order, transfer: Transfer) -> bool:
    """Whether the money came after the order's time."""
    return order.state is State.EXPIRED or transfer.block_time > order.expires_at


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
    left = order.received_minor - order.refunded_minor
    assert left > 0, "a PAID order has something left"
    if asked_minor is not None and asked_minor > left:
        raise RefundRefused("refund_exceeds_received", f"{left} minor units are left, {asked_minor} were asked for")
    return left if asked_minor is None else asked_minor


def state_after_refund(order: Order, amount_minor: int) -> State:
    """REFUNDED when nothing is left, else PAID."""
    return State.REFUNDED if order.refunded_minor + amount_minor == order.received_minor else State.PAID


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
