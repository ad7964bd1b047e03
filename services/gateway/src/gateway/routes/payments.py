"""Payments: what reached an order's address, and hints that something did."""

from __future__ import annotations

from gateway.downstream import ORDER_NAMES, Services, ask
from gateway.exchange import Answer, Call, json_answer
from gateway.operation import Access, Operation, Success
from gateway.routes.orders import refuse_other_merchant
from gateway.schemas.answers import PaymentDetected, PaymentList
from gateway.schemas.fields import TX_HASH, WALLET
from gateway.schemas.given import DetectPayment, OrderQuery
from gateway.translation import payment_of, status_of
from kit import telemetry
from ospay.orders.v1 import orders_pb2


async def detect_payment(services: Services, call: Call, given: DetectPayment) -> Answer:
    """Records the claim; a key that came with it tells whose order is meant, and that it is the merchant's claim."""
    if call.merchant_id and given.merchant_id is not None:
        refuse_other_merchant(call, given.merchant_id)
    request = orders_pb2.DetectPaymentRequest(
        merchant_id=call.merchant_id or given.merchant_id or "",
        order_id=given.order_id,
        tx_hash=given.tx_hash,
        traceparent=telemetry.traceparent(),
        by_merchant=bool(call.merchant_id),
    )
    # Orders take turns: nobody else's claims wait behind a flood of claims on one.
    response = await services.claims.submit(given.order_id, request)
    return json_answer(202 if response.queued else 200, PaymentDetected(response.order_id, status_of(response.state)))


async def list_payments(services: Services, call: Call, given: OrderQuery) -> Answer:
    """Lists every transfer that reached the order's address."""
    request = orders_pb2.ListPaymentsRequest(merchant_id=call.merchant_id, order_id=given.id)
    response = await ask(services.orders_peer, services.orders.ListPayments, request, names=ORDER_NAMES)
    return json_answer(200, PaymentList([payment_of(payment) for payment in response.payments]))


_PAYMENT = {
    "chain_id": 56,
    "tx_hash": TX_HASH,
    "log_index": 7,
    "block_number": 41_000_000,
    "block_hash": "0x" + "5c" * 32,
    "block_time": "2026-01-31T12:00:58Z",
    "sender": WALLET,
    "asset": "USDT",
    "amount_base": "5000000000000000000",
    "amount_minor": 5_000_000,
    "credited_minor": 5_000_000,
    "state": "CREDITED",
    "reason": "",
}

OPERATIONS = (
    Operation(
        method="POST",
        path="/events/payment-detected",
        name="detectPayment",
        summary="Say that a transaction paid an order; a hint only, the chain decides",
        handler=detect_payment,
        access=Access.OPTIONAL_KEY,
        given=DetectPayment,
        example={"order_id": "ord_123", "tx_hash": TX_HASH},
        success=(
            Success(202, "Recorded and queued.", PaymentDetected, {"order_id": "ord_123", "status": "PENDING"}),
            Success(
                200,
                "Nothing is queued: where the order stands.",
                PaymentDetected,
                {"order_id": "ord_123", "status": "PAID"},
            ),
        ),
        errors=(
            (403, "wrong_merchant"),
            (404, "order_not_found"),
            (409, "ambiguous_order_id"),
            (429, "too_many_claims"),
        ),
    ),
    Operation(
        method="GET",
        path="/orders/{id}/payments",
        name="listPayments",
        summary="List what reached an order's address, credited or not",
        handler=list_payments,
        access=Access.KEY,
        given=OrderQuery,
        success=(Success(200, "By block and log.", PaymentList, {"data": [_PAYMENT]}),),
        errors=((404, "order_not_found"),),
    ),
)
