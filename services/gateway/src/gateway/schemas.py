"""The JSON contract: what is decoded strictly, what is answered, and the source of the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

MAX_AMOUNT = 2**53 - 1  # what every JSON reader can hold exactly
MAX_METADATA_BYTES = 16_384

WALLET = "0x8894E0a0c962CB723c1976a4421c95949bE2D4E3"
TX_HASH = "0x9fc76417374aa880d4449a1f7f31ec597f00b1f6f3dd2d66f4c9c6c445836d8b"

OrderStatus = Literal["PENDING", "CONFIRMING", "PAID", "SETTLED", "REFUNDED", "EXPIRED"]
ClaimStatus = Literal["OPEN", "ACCEPTED", "REJECTED"]

_ID = r"^[A-Za-z0-9_.:-]{1,64}$"
_HEX_32 = r"^0x[0-9a-fA-F]{64}$"
_HEX_20 = r"^0x[0-9a-fA-F]{40}$"
# PostgreSQL holds every character but NUL.
_NO_NUL = r"^[^\u0000]*$"

MerchantId = Annotated[str, Meta(pattern=_ID, description="The merchant's id.", examples=["mrc_abc"])]
OrderId = Annotated[
    str, Meta(pattern=_ID, description="The merchant's own order id, unique per merchant.", examples=["ord_123"])
]
RefundId = Annotated[
    str, Meta(pattern=_ID, description="The merchant's own refund id, unique per merchant.", examples=["rfd_1"])
]
AssetName = Annotated[str, Meta(pattern=r"^[A-Z0-9]{2,12}$", description="Asset.", examples=["USDT"])]
ChainName = Annotated[str, Meta(pattern=r"^[A-Z0-9_-]{1,24}$", description="Chain; BSC if absent.", examples=["BSC"])]
AmountMinor = Annotated[
    int, Meta(ge=1, le=MAX_AMOUNT, description="In the asset's minor units (USDT: 10^-6).", examples=[5_000_000])
]
SumMinor = Annotated[int, Meta(ge=0, description="In the asset's minor units.", examples=[5_000_000])]
WalletAddress = Annotated[
    str,
    Meta(
        pattern=_HEX_20,
        description="0x and 40 hex digits; mixed case must have a right EIP-55 checksum.",
        examples=[WALLET],
    ),
]
TxHash = Annotated[
    str, Meta(pattern=_HEX_32, description="Transaction hash, 0x and 64 hex digits.", examples=[TX_HASH])
]
Time = Annotated[datetime, Meta(tz=True, description="RFC 3339, UTC.", examples=["2026-01-31T12:00:00Z"])]
Metadata = Annotated[
    Raw,
    Meta(
        extra_json_schema={
            "type": ["object", "null"],
            "description": "The merchant's own data: an object of at most 16 KiB and 30 levels, given back as it came.",
            "examples": [{"cart": "c-77"}],
        }
    ),
]
# A balance is a sum and may pass 64 bits: the digits are passed through.
BalanceMinor = Annotated[
    Raw,
    Meta(
        extra_json_schema={
            "type": "integer",
            "description": "Σ CREDIT − Σ DEBIT in minor units; not bounded by 64 bits.",
            "examples": [5_000_000],
        }
    ),
]


class Nothing(Struct, forbid_unknown_fields=True):
    """An operation without parameters."""


class CreateMerchant(Struct, forbid_unknown_fields=True):
    """A merchant to register."""

    name: Annotated[
        str, Meta(min_length=1, max_length=200, pattern=_NO_NUL, description="For people.", examples=["Coffee & Co"])
    ]
    merchant_wallet_address: WalletAddress
    id: MerchantId | None = None


class CreateOrder(Struct, forbid_unknown_fields=True):
    """An order to create. Idempotent for ever on `id`."""

    id: OrderId
    merchant_id: MerchantId
    asset: AssetName
    amount_minor: AmountMinor
    customer_wallet_address: WalletAddress | None = None
    chain: ChainName | None = None
    expires_in_seconds: Annotated[int, Meta(ge=1, le=2_592_000, description="Seconds.", examples=[1800])] | None = None
    metadata: Metadata | UnsetType = UNSET


class DetectPayment(Struct, forbid_unknown_fields=True):
    """A hint that a transaction paid an order. The chain decides."""

    order_id: OrderId
    tx_hash: TxHash
    merchant_id: MerchantId | None = None


class RefundOrder(Struct, forbid_unknown_fields=True):
    """A refund to book. Idempotent for ever on `refund_id`."""

    order_id: OrderId
    refund_id: RefundId
    reason: Annotated[
        str, Meta(min_length=1, max_length=500, pattern=_NO_NUL, description="For people.", examples=["Out of stock"])
    ]
    amount_minor: AmountMinor | None = None
    tx_hash: TxHash | None = None


class OrderQuery(Struct, forbid_unknown_fields=True):
    """Names one order."""

    id: OrderId


class OrderListQuery(Struct, forbid_unknown_fields=True):
    """Which orders to list."""

    status: Annotated[OrderStatus, Meta(description="Only orders in this state.")] | None = None
    limit: Annotated[int, Meta(ge=1, le=100, description="Orders per page.", examples=[50])] = 50
    cursor: (
        Annotated[
            str,
            Meta(min_length=1, max_length=256, pattern=_NO_NUL, description="`next_cursor` of the page before."),
        ]
        | None
    ) = None


class ReconciliationQuery(Struct, forbid_unknown_fields=True):
    """Whose books of which asset."""

    merchant_id: MerchantId
    asset: AssetName


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


def json_schemas(types: list[type[Struct]]) -> dict[str, Any]:
    """JSON Schema 2020-12 of these structs and of all that they name, by name."""
    _, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    for component in components.values():
        for name, schema in component.get("properties", {}).items():
            component["properties"][name] = _flat(schema)
    return components


def _flat(schema: dict[str, Any]) -> dict[str, Any]:
    """`anyOf: [{type: integer, …}, {type: null}]` as `type: [integer, null]`: the same, and easier to read."""
    kinds = schema.get("anyOf", [])
    if len(kinds) == 2 and kinds[1] == {"type": "null"} and "type" in kinds[0]:
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        return {**kinds[0], **rest, "type": [kinds[0]["type"], "null"]}
    return schema
