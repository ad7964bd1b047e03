"""Orders: create and read."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from gateway.downstream import LIST_NAMES, Creation, Services, ask
from gateway.exchange import REPLAYED, Answer, Call, json_answer
from gateway.operation import Access, Operation, Success
from gateway.schemas.answers import Order, OrderPage
from gateway.schemas.fields import MAX_METADATA_BYTES, TX_HASH, WALLET
from gateway.schemas.given import CreateOrder, OrderListQuery, OrderQuery
from gateway.translation import STATE_BY_STATUS, order_of
from kit import telemetry
from kit.errors import Fault, Kind, invalid
from ospay.orders.v1 import orders_pb2


async def create_order(services: Services, call: Call, given: CreateOrder) -> Answer:
    """Creates an order, together with those that other requests create at this moment."""
    refuse_other_merchant(call, given.merchant_id)
    request = orders_pb2.CreateOrderRequest(
        merchant_id=given.merchant_id,
        order_id=given.id,
        asset=given.asset,
        amount_minor=given.amount_minor,
        chain=given.chain or "",
        customer_wallet_address=given.customer_wallet_address,
        expires_in_seconds=given.expires_in_seconds,
        metadata_json=None if given.metadata is UNSET else _object_text(given.metadata),
    )
    creation = Creation(request, telemetry.traceparent())
    response = await services.creates.submit(given.merchant_id, creation)
    order = order_of(response.order)
    return json_answer(200, order, REPLAYED) if response.replayed else json_answer(201, order)


async def get_order(services: Services, call: Call, given: OrderQuery) -> Answer:
    """Reads one order, together with those that other requests read at this moment."""
    request = orders_pb2.GetOrderRequest(merchant_id=call.merchant_id, order_id=given.id)
    return json_answer(200, order_of(await services.reads.submit(call.merchant_id, request)))


async def list_orders(services: Services, call: Call, given: OrderListQuery) -> Answer:
    """Lists the merchant's orders, newest first."""
    request = orders_pb2.ListOrdersRequest(
        merchant_id=call.merchant_id,
        state=STATE_BY_STATUS[given.status] if given.status else None,
        page_size=given.limit,
        page_token=given.cursor or "",
    )
    response = await ask(services.orders_peer, services.orders.ListOrders, request, names=LIST_NAMES)
    token = response.next_page_token
    page = OrderPage([order_of(order) for order in response.orders], has_more=bool(token), next_cursor=token or None)
    return json_answer(200, page)


def refuse_other_merchant(call: Call, merchant_id: str) -> None:
    """A key is for its own merchant. Errors: FORBIDDEN `wrong_merchant`."""
    if merchant_id != call.merchant_id:
        raise Fault(Kind.FORBIDDEN, "wrong_merchant", "merchant_id is not the merchant of this key")


def _object_text(raw: msgspec.Raw) -> str | None:
    """The object without the white space between its tokens, otherwise as it was given."""
    text = bytes(raw).strip()
    if text == b"null":
        return None
    if not text.startswith(b"{"):
        raise invalid("metadata", "Expected `object`")
    compact = msgspec.json.format(text, indent=-1)
    if len(compact) > MAX_METADATA_BYTES:
        raise invalid("metadata", f"is larger than {MAX_METADATA_BYTES} bytes")
    return compact.decode()


_GIVEN = {
    "id": "ord_123",
    "merchant_id": "mrc_abc",
    "asset": "USDT",
    "amount_minor": 5_000_000,
    "metadata": {"cart": "c-77"},
}
_ORDER = {
    **_GIVEN,
    "chain": "BSC",
    "customer_wallet_address": None,
    "deposit_address": WALLET,
    "deposit_path": None,
    "payment_uri": "ethereum:0x55d398326f99059fF775485246999027B3197955@56/transfer"
    f"?address={WALLET}&uint256=5000000000000000000",
    "status": "PENDING",
    "received_minor": 0,
    "refunded_minor": 0,
    "late_minor": 0,
    "surplus_minor": 0,
    "reversed_minor": 0,
    "tx_hash": None,
    "paid_at": None,
    "created_at": "2026-01-31T12:00:00Z",
    "expires_at": "2026-01-31T12:30:00Z",
    "settled_at": None,
    "last_claim": None,
    "confirming": None,
}
_PAID = {**_ORDER, "status": "PAID", "received_minor": 5_000_000, "tx_hash": TX_HASH, "paid_at": "2026-01-31T12:01:00Z"}

OPERATIONS = (
    Operation(
        method="POST",
        path="/orders",
        name="createOrder",
        summary="Create an order; the same id and body again answer with the same order",
        handler=create_order,
        access=Access.KEY,
        given=CreateOrder,
        example=_GIVEN,
        success=(
            Success(201, "Created.", Order, _ORDER),
            Success(200, "Created before with the same body.", Order, _ORDER, replayed=True),
        ),
        errors=(
            (403, "wrong_merchant"),
            (404, "merchant_not_found"),
            (422, "idempotency_mismatch"),
        ),
    ),
    Operation(
        method="GET",
        path="/orders",
        name="listOrders",
        summary="List your orders, newest first",
        handler=list_orders,
        access=Access.KEY,
        given=OrderListQuery,
        success=(Success(200, "A page.", OrderPage, {"data": [_PAID], "has_more": False, "next_cursor": None}),),
        errors=((400, "invalid_cursor"),),
    ),
    Operation(
        method="GET",
        path="/orders/get",
        name="getOrder",
        summary="Read an order",
        handler=get_order,
        access=Access.KEY,
        given=OrderQuery,
        success=(Success(200, "The order.", Order, _PAID),),
        errors=((404, "order_not_found"),),
    ),
)
BY_PATH = (
    Operation(
        method="GET",
        path="/orders/{id}",
        name="getOrderByPath",
        summary="Read an order; those with the id `get` or `refund` only at /orders/get",
        handler=get_order,
        access=Access.KEY,
        given=OrderQuery,
        success=(Success(200, "The order.", Order, _PAID),),
        errors=((404, "order_not_found"),),
    ),
)
