"""What is answered."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.schemas.fields import (
    AmountBase,
    AmountMinor,
    AssetName,
    BalanceMinor,
    BlockNumber,
    ChainHealth,
    ChainName,
    ClaimStatus,
    ExtendedPublicKey,
    MerchantId,
    Metadata,
    OrderId,
    OrderStatus,
    PartState,
    PaymentState,
    RefundId,
    RefundState,
    SumMinor,
    SurplusPolicy,
    Time,
    ToleranceMinor,
    TxHash,
    WalletAddress,
)


class Merchant(Struct):
    """A registered merchant."""

    id: MerchantId
    name: str
    merchant_wallet_address: Annotated[WalletAddress, Meta(description="Null where there is an `xpub`.")] | None
    xpub: Annotated[ExtendedPublicKey, Meta(description="Null where all customers pay to one wallet.")] | None
    underpayment_tolerance_minor: ToleranceMinor
    surplus_policy: Annotated[
        SurplusPolicy, Meta(description="Money beyond what was asked for is held in suspense, or credited.")
    ]
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


class Confirming(Struct):
    """A transfer in a block that is not final."""

    tx_hash: TxHash
    amount_minor: SumMinor
    block_number: Annotated[BlockNumber, Meta(description="The block that has to become final.")]
    confirmations: Annotated[int, Meta(ge=0, description="Blocks on top of it, itself included.", examples=[2])]


class Order(Struct):
    """One payment that a merchant asks for."""

    id: OrderId
    merchant_id: MerchantId
    asset: AssetName
    chain: ChainName
    amount_minor: AmountMinor
    customer_wallet_address: WalletAddress | None
    deposit_address: Annotated[WalletAddress, Meta(description="Where to pay.")]
    deposit_path: (
        Annotated[
            str,
            Meta(
                description="Path of the address below the merchant's `xpub`; null for a single wallet.",
                examples=["0/17"],
            ),
        ]
        | None
    )
    payment_uri: Annotated[
        str, Meta(description="EIP-681 link with the exact amount; empty where the asset is not configured any more.")
    ]
    status: OrderStatus
    received_minor: SumMinor
    refunded_minor: SumMinor
    late_minor: Annotated[int, Meta(ge=0, description="Came in after expiry; recorded, not credited.")]
    surplus_minor: Annotated[
        int, Meta(ge=0, description="Came in beyond what was asked for; held in suspense or credited.")
    ]
    reversed_minor: Annotated[
        int, Meta(ge=0, description="Taken back by the chain after it was final: an incident, booked back.")
    ]
    tx_hash: TxHash | None
    paid_at: Time | None
    created_at: Time
    expires_at: Time
    settled_at: Time | None
    metadata: Metadata
    last_claim: Claim | None
    confirming: Annotated[Confirming | None, Meta(description="What the order waits for while it is CONFIRMING.")]


class OrderPage(Struct):
    """One page of orders, newest first."""

    data: list[Order]
    has_more: bool
    next_cursor: str | None


class PaymentDetected(Struct):
    """Where the order stands now."""

    order_id: OrderId
    status: OrderStatus


class Payment(Struct):
    """One transfer that reached the order's address, credited or not."""

    chain_id: Annotated[int, Meta(ge=1, description="EIP-155 chain id.", examples=[56])]
    tx_hash: TxHash
    log_index: Annotated[int, Meta(ge=0, description="Index of the transfer's log in its block.", examples=[7])]
    block_number: BlockNumber
    block_hash: Annotated[TxHash, Meta(description="Hash of the block.")]
    block_time: Annotated[Time, Meta(description="The block's own time.")]
    sender: Annotated[WalletAddress, Meta(description="Who sent it.")]
    asset: AssetName
    amount_base: AmountBase
    amount_minor: Annotated[SumMinor, Meta(description="In minor units; null past 63 bits.")] | None
    credited_minor: Annotated[SumMinor, Meta(description="How much of it is credited to the order.")]
    state: PaymentState
    reason: Annotated[
        str, Meta(description="Why (part of) it is held in suspense; else empty.", examples=["underpaid"])
    ]


class PaymentList(Struct):
    """The transfers that reached an order's address, by block and log; at most 1000."""

    data: list[Payment]


class UnsignedTransaction(Struct):
    """What to sign and send; no key is held here."""

    chain_id: Annotated[int, Meta(ge=1, description="EIP-155 chain id.", examples=[56])]
    to: Annotated[WalletAddress, Meta(description="The token contract.")]
    data: Annotated[str, Meta(pattern=r"^0x[0-9a-fA-F]*$", description="Call data of the transfer.")]
    value: Annotated[str, Meta(description="Native coin to send along, in wei.", examples=["0"])]


class Refund(Struct):
    """A refund and what the chain says of it."""

    order_id: OrderId
    refund_id: RefundId
    amount_minor: AmountMinor
    reason: Annotated[str, Meta(description="For people.", examples=["Out of stock"])]
    state: Annotated[
        RefundState, Meta(description="RECORDED is booked; CONFIRMED is proved by a final transfer as well.")
    ]
    state_reason: Annotated[
        str, Meta(description="Why it is not confirmed; empty when it is, or when no transaction is named.")
    ]
    tx_hash: TxHash | None
    to_address: Annotated[WalletAddress, Meta(description="Who gets it.")]
    from_address: Annotated[WalletAddress, Meta(description="Who sends it; null: anybody.")] | None
    payment_uri: (
        Annotated[
            str,
            Meta(
                description="EIP-681 link of the transfer that proves it; null where the payer is no account, or the "
                "asset is not configured any more."
            ),
        ]
        | None
    )
    unsigned_transaction: Annotated[
        UnsignedTransaction | None, Meta(description="To be signed; null where `payment_uri` is.")
    ]
    created_at: Time
    confirmed_at: Time | None


class RefundList(Struct):
    """An order's refunds, oldest first; at most 1000."""

    data: list[Refund]


class RefundBooked(Struct):
    """A refund and what it did to its order."""

    order_id: OrderId
    refund_id: RefundId
    status: OrderStatus
    amount_minor: AmountMinor
    refunded_minor: SumMinor
    refund: Annotated[Refund | None, Meta(description="As it stands now, with what is needed to send it.")]


class Reconciliation(Struct):
    """The books of a merchant beside the orders that are not yet settled."""

    merchant_id: MerchantId
    asset: AssetName
    merchant_balance_minor: BalanceMinor
    clearing_balance_minor: BalanceMinor
    suspense_balance_minor: BalanceMinor
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
    """No part of the system is down."""

    status: Literal["ok"]
    parts: Annotated[
        dict[str, PartState],
        Meta(
            description="By name of the part; a chain that is degraded still takes payments.",
            examples=[{"orders": "up", "chain.BSC": "degraded"}],
        ),
    ]


class ChainStatus(Struct):
    """How a chain is served."""

    chain: Annotated[ChainName, Meta(description="Its name.")]
    chain_id: Annotated[int, Meta(ge=1, description="EIP-155 chain id.", examples=[56])]
    status: Annotated[
        ChainHealth,
        Meta(description="degraded: payments go on with less than is configured; unavailable: they wait."),
    ]
    head_number: Annotated[BlockNumber, Meta(description="Newest height read; 0 when none.")]
    finalized_number: Annotated[BlockNumber, Meta(description="Newest final height read; 0 when none.")]


class ChainList(Struct):
    """The chains that can be paid on, by name."""

    data: list[ChainStatus]


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
    parts: Annotated[dict[str, PartState], Meta(description="With `not_ready`.")] | UnsetType = UNSET
