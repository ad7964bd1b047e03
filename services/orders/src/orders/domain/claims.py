"""What the chain's word on a claim does to an order that is paid at its merchant's wallet."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

from .orders import CLAIMABLE_STATES, OPEN_STATES, ClaimState, Order, State, Transfer, TransferKey


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
        return self if traceparent == self.traceparent else replace(self, traceparent=traceparent)


@dataclass(frozen=True)
class Decision:
    """What a verdict does to a claim and its order; `paid` and `late` are exclusive."""

    claim_state: ClaimState
    reason: str
    confirming: bool = False
    seen_minor: int | None = None
    confirmations: int | None = None
    block_number: int | None = None
    head_number: int | None = None
    paid: Transfer | None = None
    late: Transfer | None = None


# With the height of the chain at creation known, the clocks are only a second wall against an endpoint that lagged.
CLOCK_TOLERANCE = timedelta(seconds=15)


def judge(
    order: Order, verdict: Verdict, used: AbstractSet[TransferKey], internal: AbstractSet[str] = frozenset()
) -> Decision:
    """What becomes of an open claim on `order`; `used` are the transfers that have paid an order or came late.

    Who sends from an address among `internal` is a merchant and no customer.
    """
    if order.state not in CLAIMABLE_STATES:
        return Decision(ClaimState.REJECTED, "order_closed")
    if verdict.outcome is Outcome.REJECTED:
        return Decision(ClaimState.REJECTED, verdict.reason)
    misfits = [(misfit(order, transfer, used, internal), transfer) for transfer in verdict.transfers]
    fitting = next((transfer for reason, transfer in misfits if reason is None), None)
    shown = fitting or max((item for _, item in misfits), key=lambda item: item.amount_minor, default=None)
    seen = None if shown is None or shown.amount_minor < 0 else shown.amount_minor
    if verdict.outcome is Outcome.WAITING:
        return wait(order, verdict, fitting, seen)
    assert verdict.transfers, "a final verdict proves at least one transfer"
    if fitting is None:
        return Decision(ClaimState.REJECTED, _worst(reason for reason, _ in misfits if reason), seen_minor=seen)
    if is_late(order, fitting):
        return Decision(ClaimState.REJECTED, "late", seen_minor=seen, block_number=fitting.block_number, late=fitting)
    return Decision(ClaimState.ACCEPTED, "", seen_minor=seen, block_number=fitting.block_number, paid=fitting)


def wait(order: Order, verdict: Verdict, fitting: Transfer | None, seen: int | None) -> Decision:
    """The claim stays open; with a transfer that would pay the order is CONFIRMING."""
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
        head_number=verdict.head_number,
    )


def misfit(order: Order, transfer: Transfer, used: AbstractSet[TransferKey], internal: AbstractSet[str]) -> str | None:
    """Why a transfer to the order's address does not pay it, or None.

    The address is the merchant's one wallet, so only the exact amount counts: with anything looser, anybody could
    claim somebody else's larger transfer.
    """
    if transfer.key in used:
        return "already_used"
    if transfer.sender in internal:
        return "internal"
    if order.customer_wallet is not None and order.customer_wallet != transfer.sender:
        return "payer_mismatch"
    if transfer.amount_minor < 0 or transfer.amount_minor > order.amount_minor:
        return "overpaid"
    if transfer.amount_minor < order.amount_minor:
        return "underpaid"
    if mined_before(order, transfer):
        return "mined_before_order"
    return None


# When several transfers of a transaction do not fit, the first of these is told.
_REASONS = ("mined_before_order", "underpaid", "overpaid", "already_used", "payer_mismatch", "internal")


def _worst(reasons: Iterable[str]) -> str:
    return min(reasons, key=_REASONS.index)


def mined_before(order: Order, transfer: Transfer) -> bool:
    """Whether the money moved before the order was made.

    Heights tell it exactly; without one, clocks do, and a block's time is cut to whole seconds.
    """
    created = order.created_at.replace(microsecond=0)
    if order.created_block is None:
        return transfer.block_time < created
    return transfer.block_number <= order.created_block or transfer.block_time < created - CLOCK_TOLERANCE


def is_late(order: Order, transfer: Transfer) -> bool:
    """Whether the money came after the order's time."""
    return order.state is State.EXPIRED or transfer.block_time > order.expires_at
