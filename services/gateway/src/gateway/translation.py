"""From the services' messages to JSON."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.schemas.answers import Claim, Order
from gateway.schemas.fields import ClaimStatus, OrderStatus
from ospay.orders.v1 import orders_pb2

STATUS_BY_STATE: dict[int, OrderStatus] = {
    orders_pb2.ORDER_STATE_PENDING: "PENDING",
    orders_pb2.ORDER_STATE_CONFIRMING: "CONFIRMING",
    orders_pb2.ORDER_STATE_PAID: "PAID",
    orders_pb2.ORDER_STATE_SETTLED: "SETTLED",
    orders_pb2.ORDER_STATE_REFUNDED: "REFUNDED",
    orders_pb2.ORDER_STATE_EXPIRED: "EXPIRED",
}
STATE_BY_STATUS = {
    "PENDING": orders_pb2.ORDER_STATE_PENDING,
    "CONFIRMING": orders_pb2.ORDER_STATE_CONFIRMING,
    "PAID": orders_pb2.ORDER_STATE_PAID,
    "SETTLED": orders_pb2.ORDER_STATE_SETTLED,
    "REFUNDED": orders_pb2.ORDER_STATE_REFUNDED,
    "EXPIRED": orders_pb2.ORDER_STATE_EXPIRED,
}
_CLAIM_STATUS_BY_STATE: dict[int, ClaimStatus] = {
    orders_pb2.CLAIM_STATE_OPEN: "OPEN",
    orders_pb2.CLAIM_STATE_ACCEPTED: "ACCEPTED",
    orders_pb2.CLAIM_STATE_REJECTED: "REJECTED",
}
_NULL = msgspec.Raw(b"null")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_of(stamp: Timestamp) -> datetime:
    """The time, to the microsecond."""
    return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)


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
        payment_uri=message.payment_uri,
        status=STATUS_BY_STATE[message.state],
        received_minor=message.received_minor,
        refunded_minor=message.refunded_minor,
        late_minor=message.late_minor,
        tx_hash=message.tx_hash if has("tx_hash") else None,
        paid_at=time_of(message.paid_at) if has("paid_at") else None,
        created_at=time_of(message.created_at),
        expires_at=time_of(message.expires_at),
        settled_at=time_of(message.settled_at) if has("settled_at") else None,
        metadata=msgspec.Raw(message.metadata_json.encode()) if has("metadata_json") else _NULL,
        last_claim=claim_of(message.last_claim) if has("last_claim") else None,
    )


def claim_of(message: orders_pb2.Claim) -> Claim:
    """The claim as merchants see it."""
    has = message.HasField
    return Claim(
        tx_hash=message.tx_hash,
        state=_CLAIM_STATUS_BY_STATE[message.state],
        reason=message.reason,
        seen_minor=message.seen_minor if has("seen_minor") else None,
        confirmations=message.confirmations if has("confirmations") else None,
        block_number=message.block_number if has("block_number") else None,
        updated_at=time_of(message.updated_at),
    )
