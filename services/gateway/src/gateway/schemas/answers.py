"""What is answered."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.schemas.fields import (
    AmountMinor,
    AssetName,
    BalanceMinor,
    ChainName,
    ClaimStatus,
    MerchantId,
    Metadata,
    OrderId,
    OrderStatus,
    RefundId,
    SumMinor,
    Time,
    TxHash,
    WalletAddress,
)


class Merchant(Struct):
    """A registered merchant."""

    id: MerchantId
    name: str
    merchant_wallet_address: WalletAddress
    api_key: Annotated[str, Meta(description="The secret key, shown this once; null on a replay.")] | None


class Claim(Struct):
    """The newest word that a transaction paid an order, and what the chain said of it."""

    tx_hash: TxHash
    state: ClaimStatus
    reason: Annotated[
        str, Meta(description="Why it is open or was rejected; empty when accepted.", examples=["not_final"])
    ]
    seen_minor: SumMinor | None
    confirmations: int | None
    block_number: int | None
    updated_at: Time


class Order(Struct):
    """One payment that a merchant asks for."""

    id: OrderId
    merchant_id: MerchantId
    asset: AssetName
    chain: ChainName
    amount_minor: AmountMinor
    customer_wallet_address: WalletAddress | None
    deposit_address: Annotated[WalletAddress, Meta(description="Where to pay.")]
    payment_uri: Annotated[str, Meta(description="EIP-681 link with the exact amount.")]
    status: OrderStatus
    received_minor: SumMinor
    refunded_minor: SumMinor
    late_minor: Annotated[int, Meta(ge=0, description="Came in after expiry; recorded, not credited.")]
    tx_hash: TxHash | None
    paid_at: Time | None
    created_at: Time
    expires_at: Time
    settled_at: Time | None
    metadata: Metadata
    last_claim: Claim | None


class OrderPage(Struct):
    """One page of orders, newest first."""

    data: list[Order]
    has_more: bool
    next_cursor: str | None


class PaymentDetected(Struct):
    """Where the order stands now."""

    order_id: OrderId
    status: OrderStatus


class Refund(Struct):
    """A refund and what it did to its order."""

    order_id: OrderId
    refund_id: RefundId
    status: OrderStatus
    amount_minor: AmountMinor
    refunded_minor: SumMinor


class Reconciliation(Struct):
    """The books of a merchant beside the orders that are not yet settled."""

    merchant_id: MerchantId
    asset: AssetName
    merchant_balance_minor: BalanceMinor
    clearing_balance_minor: BalanceMinor
    unsettled_paid_count: Annotated[int, Meta(ge=0, description="Orders paid, not settled, not refunded.")]
    in_flight_count: Annotated[int, Meta(ge=0, description="Decided by orders, not yet confirmed by the ledger.")]
    as_of: Time


class Totals(Struct):
    """Counts of the whole system since its first start."""

    orders_created_total: Annotated[int, Meta(ge=0)]
    refunds_processed_total: Annotated[int, Meta(ge=0)]
    payments_detected_total: Annotated[int, Meta(ge=0)]


class Live(Struct):
    """The process serves."""

    status: Literal["ok"] = "ok"


class Ready(Struct):
    """Every part of the system is up."""

    status: Literal["ok"]
    parts: Annotated[
        dict[str, Literal["up", "down"]],
        Meta(description="By name of the part.", examples=[{"orders": "up", "orders.database": "up"}]),
    ]


class FieldError(Struct):
    """One field that is wrong."""

    field: Annotated[str, Meta(description="Its name; `body` or `query` for the whole.", examples=["amount_minor"])]
    message: Annotated[str, Meta(description="For people.", examples=["Expected `int`, got `str`"])]


class Problem(Struct, omit_defaults=True):
    """An error (RFC 9457)."""

    type: Annotated[str, Meta(description="Names the kind of error.", examples=["urn:ospay:problem:invalid_request"])]
    title: str
    status: Annotated[int, Meta(ge=400, le=599, description="The HTTP status.")]
    detail: Annotated[str, Meta(description="For people.")]
    instance: Annotated[str, Meta(description="Path of the request.")]
    code: Annotated[str, Meta(description="For programs; stable.", examples=["invalid_request"])]
    request_id: Annotated[str, Meta(description="Name it when you ask for help.")]
    errors: Annotated[list[FieldError], Meta(description="The wrong fields; with 400.")] | UnsetType = UNSET
    order_status: Annotated[OrderStatus, Meta(description="Of an order that refuses.")] | UnsetType = UNSET
    parts: Annotated[dict[str, Literal["up", "down"]], Meta(description="With `not_ready`.")] | UnsetType = UNSET
