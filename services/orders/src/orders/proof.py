"""What proves a refund: a transfer of the merchant's own, once. Pure: no clock, no database, no network."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from orders.domain import Outcome, Transfer, Verdict


class ProofState(StrEnum):
    """What became of a transaction that was named for a refund."""

    OPEN = "OPEN"
    CONFIRMED = "CONFIRMED"
    REFUTED = "REFUTED"


@dataclass(frozen=True)
class Shown:
    """A refund as it stands; `state` is that of the transaction named last. Minor units, EIP-55 addresses."""

    id: str
    order_id: str
    merchant_id: str
    chain: str
    asset: str
    amount_minor: int
    reason: str
    to_address: str
    from_address: str | None
    tx_hash: str | None
    attempt: int
    state: ProofState | None
    state_reason: str
    created_at: datetime
    confirmed_at: datetime | None


@dataclass(frozen=True)
class Proof:
    """A transaction to be proved and what it must show: `amount_minor` to `to_address`, not before block `paid_block`.

    `from_address` is None where anybody may send; `wallet` is the merchant's, None where it has none.
    """

    claim_id: UUID
    debt_id: UUID
    refund_id: str
    merchant_id: str
    amount_minor: int
    to_address: str
    from_address: str | None
    wallet: str | None
    deposit_address: str
    paid_block: int


@dataclass(frozen=True)
class Ruling:
    """What a verdict does to a proof; `transfer` is the one that confirms."""

    state: ProofState
    reason: str
    transfer: Transfer | None = None


def rule(proof: Proof, verdict: Verdict, used: AbstractSet[tuple[int, str, int]], wallets: AbstractSet[str]) -> Ruling:
    """What becomes of an open proof.

    `used` are the transfers that have proved a refund, may have sent an item of suspense back, or paid an order of this
    merchant; `wallets` are those of all merchants, as far as a sender has one.

    A transfer that pays an order of the merchant proves none of its refunds, and the other way round: what pays goes to
    an address where the merchant is paid, and a refund to the address where its order was paid is never confirmed. With
    one wallet there is no other such address. Where each order has one, a refund could be declared to that of another
    order; the money then pays that order when it is final, and is among `used`.
    """
    if verdict.outcome is Outcome.WAITING:
        return Ruling(ProofState.OPEN, verdict.reason)
    if verdict.outcome is Outcome.REJECTED:
        return Ruling(ProofState.REFUTED, verdict.reason)
    if proof.to_address == proof.deposit_address:
        return Ruling(ProofState.REFUTED, "wrong_recipient")
    assert verdict.transfers, "a final verdict proves at least one transfer"
    misfits = [(_misfit(proof, transfer, used, wallets), transfer) for transfer in verdict.transfers]
    fitting = next((transfer for reason, transfer in misfits if reason is None), None)
    if fitting is None:
        return Ruling(ProofState.REFUTED, _nearest(reason for reason, _ in misfits if reason))
    return Ruling(ProofState.CONFIRMED, "", fitting)


def _misfit(
    proof: Proof, transfer: Transfer, used: AbstractSet[tuple[int, str, int]], wallets: AbstractSet[str]
) -> str | None:
    """Why a transfer to the refund's address does not prove it, or None."""
    if proof.from_address not in (None, transfer.sender):
        return "wrong_sender"
    # What another merchant's wallet sent is that merchant's refund, whatever was declared: else anybody who copies its
    # hash could use up the transfer first.
    if transfer.sender in wallets and transfer.sender != proof.wallet:
        return "wrong_sender"
    if transfer.amount_minor != proof.amount_minor:
        return "wrong_amount"
    if transfer.block_number < proof.paid_block:
        return "mined_before_order"
    return "already_used" if transfer.key in used else None


# When several transfers of a transaction do not fit, that of the one which came nearest is told.
_REASONS = ("already_used", "mined_before_order", "wrong_amount", "wrong_sender")


def _nearest(reasons: Iterable[str]) -> str:
    return min(reasons, key=_REASONS.index)
