"""Refunds: booked at once, confirmed by the chain."""

from __future__ import annotations

from gateway.downstream import ORDER_NAMES, Services, ask
from gateway.exchange import REPLAYED, Answer, Call, json_answer
from gateway.operation import Access, Operation, Success
from gateway.schemas.answers import Refund, RefundBooked, RefundList
from gateway.schemas.fields import TX_HASH, WALLET
from gateway.schemas.given import NameRefundTransaction, OrderQuery, RefundOrder
from gateway.translation import refund_of, status_of
from ospay.orders.v1 import orders_pb2


async def refund_order(services: Services, call: Call, given: RefundOrder) -> Answer:
    """Books a refund of a paid order."""
    request = orders_pb2.RefundOrderRequest(
        merchant_id=call.merchant_id,
        order_id=given.order_id,
        refund_id=given.refund_id,
        reason=given.reason,
        amount_minor=given.amount_minor,
        tx_hash=given.tx_hash,
        to_address=given.to_address,
        from_address=given.from_address,
    )
    response = await ask(services.orders_peer, services.orders.RefundOrder, request)
    body = RefundBooked(
        order_id=response.order_id,
        refund_id=response.refund_id,
        status=status_of(response.state),
        amount_minor=response.amount_minor,
        refunded_minor=response.refunded_minor,
        # Null from orders of the version before.
        refund=refund_of(response.refund) if response.HasField("refund") else None,
    )
    return json_answer(200, body, REPLAYED if response.replayed else ())


async def list_refunds(services: Services, call: Call, given: OrderQuery) -> Answer:
    """Lists an order's refunds."""
    request = orders_pb2.ListRefundsRequest(merchant_id=call.merchant_id, order_id=given.id)
    response = await ask(services.orders_peer, services.orders.ListRefunds, request, names=ORDER_NAMES)
    return json_answer(200, RefundList([refund_of(refund) for refund in response.refunds]))


async def name_transaction(services: Services, call: Call, given: NameRefundTransaction) -> Answer:
    """Names the transfer on chain that makes a refund; the chain then confirms or refutes it."""
    request = orders_pb2.AttachRefundTransactionRequest(
        merchant_id=call.merchant_id, refund_id=given.refund_id, tx_hash=given.tx_hash
    )
    response = await ask(services.orders_peer, services.orders.AttachRefundTransaction, request)
    return json_answer(200, refund_of(response.refund))


_CONTRACT = "0x55d398326f99059fF775485246999027B3197955"
_REFUND = {
    "order_id": "ord_123",
    "refund_id": "rfd_1",
    "amount_minor": 2_000_000,
    "reason": "Out of stock",
    "state": "RECORDED",
    "state_reason": "not_final",
    "tx_hash": TX_HASH,
    "to_address": WALLET,
    "from_address": None,
    "payment_uri": f"ethereum:{_CONTRACT}@56/transfer?address={WALLET}&uint256=2000000000000000000",
    "unsigned_transaction": {
        "chain_id": 56,
        "to": _CONTRACT,
        "data": f"0xa9059cbb{WALLET[2:].lower():0>64}{2 * 10**18:064x}",
        "value": "0",
    },
    "created_at": "2026-01-31T12:05:00Z",
    "confirmed_at": None,
}
_ANSWER = {
    "order_id": "ord_123",
    "refund_id": "rfd_1",
    "status": "PAID",
    "amount_minor": 2_000_000,
    "refunded_minor": 2_000_000,
    "refund": _REFUND,
}

OPERATIONS = (
    Operation(
        method="POST",
        path="/orders/refund",
        name="refundOrder",
        summary="Book a refund; the same refund_id and body again answer with the same refund",
        handler=refund_order,
        access=Access.KEY,
        given=RefundOrder,
        example={"order_id": "ord_123", "refund_id": "rfd_1", "reason": "Out of stock", "amount_minor": 2_000_000},
        success=(Success(200, "Booked.", RefundBooked, _ANSWER, replayed=True),),
        errors=(
            (400, "ambiguous_payer"),
            (404, "order_not_found"),
            (409, "order_not_refundable"),
            (422, "refund_exceeds_received"),
            (422, "idempotency_mismatch"),
        ),
    ),
    Operation(
        method="POST",
        path="/orders/refund/transaction",
        name="nameRefundTransaction",
        summary="Name your transfer on chain that makes a refund, to be proved",
        handler=name_transaction,
        access=Access.KEY,
        given=NameRefundTransaction,
        example={"refund_id": "rfd_1", "tx_hash": TX_HASH},
        success=(Success(200, "Taken, now or before.", Refund, _REFUND),),
        errors=((400, "ambiguous_payer"), (404, "refund_not_found"), (409, "refund_transaction_exists")),
    ),
    Operation(
        method="GET",
        path="/orders/{id}/refunds",
        name="listRefunds",
        summary="List an order's refunds and what the chain says of them",
        handler=list_refunds,
        access=Access.KEY,
        given=OrderQuery,
        success=(Success(200, "Oldest first.", RefundList, {"data": [_REFUND]}),),
        errors=((404, "order_not_found"),),
    ),
)
