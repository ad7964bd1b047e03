"""From the services' messages to JSON."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.schemas.answers import (
    ChainStatus,
    Claim,
    Confirming,
    Merchant,
    Order,
    Payment,
    Refund,
    UnsignedTransaction,
)
from gateway.schemas.fields import (
    ChainHealth,
    ClaimStatus,
    KnownPolicy,
    KnownStatus,
    OrderStatus,
    PaymentState,
    RefundState,
    SurplusPolicy,
)
from ospay.orders.v1 import orders_pb2
from ospay.verifier.v1 import verifier_pb2

STATE_BY_STATUS: dict[KnownStatus, orders_pb2.OrderState.ValueType] = {
    "PENDING": orders_pb2.ORDER_STATE_PENDING,
    "CONFIRMING": orders_pb2.ORDER_STATE_CONFIRMING,
    "PAID": orders_pb2.ORDER_STATE_PAID,
    "SETTLED": orders_pb2.ORDER_STATE_SETTLED,
    "REFUNDED": orders_pb2.ORDER_STATE_REFUNDED,
    "EXPIRED": orders_pb2.ORDER_STATE_EXPIRED,
}
_STATUS_BY_STATE: dict[int, OrderStatus] = {state: status for status, state in STATE_BY_STATUS.items()}
_CLAIM_STATUS_BY_STATE: dict[int, ClaimStatus] = {
    orders_pb2.CLAIM_STATE_OPEN: "OPEN",
    orders_pb2.CLAIM_STATE_ACCEPTED: "ACCEPTED",
    orders_pb2.CLAIM_STATE_REJECTED: "REJECTED",
}
POLICY_BY_NAME: dict[KnownPolicy, orders_pb2.SurplusPolicy.ValueType] = {
    "SUSPENSE": orders_pb2.SURPLUS_POLICY_SUSPENSE,
    "CREDIT": orders_pb2.SURPLUS_POLICY_CREDIT,
}
_NAME_BY_POLICY: dict[int, SurplusPolicy] = {
    orders_pb2.SURPLUS_POLICY_UNSPECIFIED: "SUSPENSE",  # orders of the version before know no other
    orders_pb2.SURPLUS_POLICY_SUSPENSE: "SUSPENSE",
    orders_pb2.SURPLUS_POLICY_CREDIT: "CREDIT",
}
_PAYMENT_STATES: dict[int, PaymentState] = {
    orders_pb2.PAYMENT_STATE_CONFIRMING: "CONFIRMING",
    orders_pb2.PAYMENT_STATE_CREDITED: "CREDITED",
    orders_pb2.PAYMENT_STATE_HELD: "HELD",
    orders_pb2.PAYMENT_STATE_RETURNED: "RETURNED",
    orders_pb2.PAYMENT_STATE_DROPPED: "DROPPED",
    orders_pb2.PAYMENT_STATE_REVERSED: "REVERSED",
}
_REFUND_STATES: dict[int, RefundState] = {
    orders_pb2.REFUND_STATE_RECORDED: "RECORDED",
    orders_pb2.REFUND_STATE_CONFIRMED: "CONFIRMED",
    orders_pb2.REFUND_STATE_REFUTED: "REFUTED",
}
_CHAIN_HEALTHS: dict[int, ChainHealth] = {
    verifier_pb2.CHAIN_HEALTH_OK: "ok",
    verifier_pb2.CHAIN_HEALTH_DEGRADED: "degraded",
    verifier_pb2.CHAIN_HEALTH_UNAVAILABLE: "unavailable",
}
_NULL = msgspec.Raw(b"null")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def status_of(state: int) -> OrderStatus:
    """The name of an order's state."""
    return _STATUS_BY_STATE.get(state, "UNKNOWN")


def time_of(stamp: Timestamp) -> datetime:
    """The time, to the microsecond."""
    return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)


def merchant_of(message: orders_pb2.Merchant, api_key: str) -> Merchant:
    """The merchant as the operator sees it; an empty key is none."""
    return Merchant(
        id=message.merchant_id,
        name=message.name,
        merchant_wallet_address=message.merchant_wallet_address or None,
        xpub=message.xpub or None,
        underpayment_tolerance_minor=message.underpayment_tolerance_minor,
        surplus_policy=_NAME_BY_POLICY.get(message.surplus_policy, "UNKNOWN"),
        api_key=api_key or None,
    )


def order_of(message: orders_pb2.Order) -> Order:
    """The order as merchants see it."""
    has = message.HasField
    return Order(
        id=message.order_id,
        merchant_id=message.merchant_id,
        asset=message.asset,
        chain=message.chain,
        amount_minor=message.amount_minor,
        customer_wallet_address=message.customer_wallet_address if has("customer_wallet_address") else None,
        deposit_address=message.deposit_address,
        deposit_path=message.deposit_path if has("deposit_path") else None,
        payment_uri=message.payment_uri,
        status=status_of(message.state),
        received_minor=message.received_minor,
        refunded_minor=message.refunded_minor,
        late_minor=message.late_minor,
        surplus_minor=message.surplus_minor,
        reversed_minor=message.reversed_minor,
        tx_hash=message.tx_hash if has("tx_hash") else None,
        paid_at=time_of(message.paid_at) if has("paid_at") else None,
        created_at=time_of(message.created_at),
        expires_at=time_of(message.expires_at),
        settled_at=time_of(message.settled_at) if has("settled_at") else None,
        metadata=msgspec.Raw(message.metadata_json.encode()) if has("metadata_json") else _NULL,
        last_claim=claim_of(message.last_claim) if has("last_claim") else None,
        confirming=_confirming_of(message.confirming) if has("confirming") else None,
    )


def claim_of(message: orders_pb2.Claim) -> Claim:
    """The claim as merchants see it."""
    has = message.HasField
    return Claim(
        tx_hash=message.tx_hash,
        state=_CLAIM_STATUS_BY_STATE.get(message.state, "UNKNOWN"),
        reason=message.reason,
        seen_minor=message.seen_minor if has("seen_minor") else None,
        confirmations=message.confirmations if has("confirmations") else None,
        block_number=message.block_number if has("block_number") else None,
        updated_at=time_of(message.updated_at),
    )


def _confirming_of(message: orders_pb2.Confirming) -> Confirming:
    return Confirming(
        tx_hash=message.tx_hash,
        amount_minor=message.amount_minor,
        block_number=message.block_number,
        confirmations=message.confirmations,
    )


def payment_of(message: orders_pb2.Payment) -> Payment:
    """The transfer as merchants see it."""
    return Payment(
        chain_id=message.chain_id,
        tx_hash=message.tx_hash,
        log_index=message.log_index,
        block_number=message.block_number,
        block_hash=message.block_hash,
        block_time=time_of(message.block_time),
        sender=message.sender,
        asset=message.asset,
        amount_base=message.amount_base,
        amount_minor=message.amount_minor if message.amount_minor >= 0 else None,
        credited_minor=message.credited_minor,
        state=_PAYMENT_STATES.get(message.state, "UNKNOWN"),
        reason=message.reason,
    )


def refund_of(message: orders_pb2.Refund) -> Refund:
    """The refund as merchants see it."""
    has = message.HasField
    unsigned = message.unsigned_transaction
    return Refund(
        order_id=message.order_id,
        refund_id=message.refund_id,
        amount_minor=message.amount_minor,
        reason=message.reason,
        state=_REFUND_STATES.get(message.state, "UNKNOWN"),
        state_reason=message.state_reason,
        tx_hash=message.tx_hash if has("tx_hash") else None,
        to_address=message.to_address,
        from_address=message.from_address if has("from_address") else None,
        payment_uri=message.payment_uri or None,
        unsigned_transaction=(
            UnsignedTransaction(unsigned.chain_id, unsigned.to, unsigned.data, unsigned.value)
            if has("unsigned_transaction")
            else None
        ),
        created_at=time_of(message.created_at),
        confirmed_at=time_of(message.confirmed_at) if has("confirmed_at") else None,
    )


def chains_of(message: verifier_pb2.ListChainsResponse) -> list[ChainStatus]:
    """How the chains are served; those that are configured and have no endpoint are left out."""
    return [
        ChainStatus(
            chain=chain.chain,
            chain_id=chain.chain_id,
            status=_CHAIN_HEALTHS.get(chain.health) or ("ok" if chain.available else "unavailable"),
            head_number=chain.head_number,
            finalized_number=chain.finalized_number,
        )
        for chain in message.chains
        if not _has_no_endpoint(chain)
    ]


def _has_no_endpoint(chain: verifier_pb2.ChainStatus) -> bool:
    # Told by the error alone: to be without an endpoint is no state of a chain's health.
    return not chain.available and chain.error.endswith("is not set")
