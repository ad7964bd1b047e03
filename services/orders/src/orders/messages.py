"""The messages that orders owes to others, in their contracts."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from kit import telemetry
from orders.domain import Debt, Order, Outcome, Refund, Transfer, Verdict
from ospay.ledger.v1 import ledger_pb2
from ospay.verifier.v1 import verifier_pb2

PAYMENT_CLAIMED = "ospay.orders.v1.payment_claimed"
ORDER_PAID = "ospay.orders.v1.order_paid"
ORDER_REFUNDED = "ospay.orders.v1.order_refunded"


def claim_debt(
    order: Order,
    claim_id: UUID,
    tx_hash: str,
    traceparent: str,
    give_up_at: datetime,
    *,
    recipient: str | None = None,
    debt_id: UUID | None = None,
) -> Debt:
    """The verification of a claim; of a refund's transaction, with its recipient and a debt of another id."""
    claim = verifier_pb2.Claim(
        claim_id=str(claim_id),
        chain=order.chain,
        asset=order.asset,
        tx_hash=tx_hash,
        recipient=recipient or order.deposit_address,
        traceparent=traceparent,
    )
    claim.give_up_at.FromDatetime(give_up_at)
    payload = claim.SerializeToString()
    return Debt(debt_id or claim_id, PAYMENT_CLAIMED, order.merchant_id, order.asset, payload, traceparent)


def paid_debt(order: Order, transfer: Transfer, event_id: UUID, traceparent: str) -> Debt:
    """The booking of a payment: the amount is the chain's."""
    posting = ledger_pb2.Posting(
        event_id=str(event_id),
        event_type=ledger_pb2.EVENT_TYPE_ORDER_PAID,
        merchant_id=order.merchant_id,
        order_id=order.id,
        asset=order.asset,
        amount_minor=transfer.amount_minor,
        tx_hash=transfer.tx_hash,
        traceparent=traceparent,
    )
    posting.effective_at.FromDatetime(transfer.block_time)
    return Debt(event_id, ORDER_PAID, order.merchant_id, order.asset, posting.SerializeToString(), traceparent)


def refunded_debt(order: Order, refund: Refund, event_id: UUID, tx_hash: str | None, made_at: datetime) -> Debt:
    """The booking of a refund."""
    posting = ledger_pb2.Posting(
        event_id=str(event_id),
        event_type=ledger_pb2.EVENT_TYPE_ORDER_REFUNDED,
        merchant_id=order.merchant_id,
        order_id=order.id,
        asset=order.asset,
        amount_minor=refund.amount_minor,
        tx_hash=tx_hash or "",
        traceparent=telemetry.traceparent(),
    )
    posting.effective_at.FromDatetime(made_at)
    return Debt(
        event_id, ORDER_REFUNDED, order.merchant_id, order.asset, posting.SerializeToString(), posting.traceparent
    )


_WAIT_REASONS = {
    verifier_pb2.WAIT_REASON_NOT_FOUND: "not_found",
    verifier_pb2.WAIT_REASON_NOT_FINAL: "not_final",
    verifier_pb2.WAIT_REASON_CHAIN_UNAVAILABLE: "chain_unavailable",
}
_REJECT_REASONS = {
    verifier_pb2.REJECT_REASON_TX_FAILED: "tx_failed",
    verifier_pb2.REJECT_REASON_WRONG_TOKEN: "wrong_token",
    verifier_pb2.REJECT_REASON_WRONG_RECIPIENT: "wrong_recipient",
    verifier_pb2.REJECT_REASON_NO_TRANSFER: "no_transfer",
    verifier_pb2.REJECT_REASON_GIVEN_UP: "given_up",
}


def to_verdict(message: verifier_pb2.Verdict) -> Verdict:
    """The verifier's word in our terms. Errors: ValueError for what this version does not understand."""
    claim_id = UUID(message.claim_id)
    match message.WhichOneof("outcome"):
        case "final" if message.final.transfers:
            transfers = tuple(_transfer(item) for item in message.final.transfers)
            return Verdict(claim_id, Outcome.FINAL, transfers=transfers, traceparent=message.traceparent)
        case "waiting" if message.waiting.reason in _WAIT_REASONS:
            return Verdict(
                claim_id,
                Outcome.WAITING,
                _WAIT_REASONS[message.waiting.reason],
                tuple(_transfer(item) for item in message.waiting.transfers),
                block_number=message.waiting.block_number or None,
                head_number=message.waiting.head_number or None,
                traceparent=message.traceparent,
            )
        case "rejected" if message.rejected.reason in _REJECT_REASONS:
            reason = _REJECT_REASONS[message.rejected.reason]
            return Verdict(claim_id, Outcome.REJECTED, reason, traceparent=message.traceparent)
    raise ValueError(f"verdict on {claim_id} without an outcome that is known here")


def _transfer(message: verifier_pb2.Transfer) -> Transfer:
    return Transfer(
        chain_id=message.chain_id,
        tx_hash=message.tx_hash,
        log_index=message.log_index,
        block_number=message.block_number,
        block_hash=message.block_hash,
        block_time=message.block_time.ToDatetime(UTC),
        sender=message.sender,
        amount_base=int(message.amount_base),
        amount_minor=message.amount_minor,
    )
