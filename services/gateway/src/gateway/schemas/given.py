"""What is given: bodies, queries and path parameters."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.schemas.fields import (
    NO_NUL,
    AmountMinor,
    AssetName,
    ChainName,
    ExtendedPublicKey,
    KnownPolicy,
    KnownStatus,
    MerchantId,
    Metadata,
    NewMerchantId,
    NewOrderId,
    NewRefundId,
    OrderId,
    RefundId,
    ToleranceMinor,
    TxHash,
    WalletAddress,
)


class Nothing(Struct, forbid_unknown_fields=True):
    """An operation without parameters."""


class CreateMerchant(Struct, forbid_unknown_fields=True):
    """A merchant to register."""

    name: Annotated[
        str, Meta(min_length=1, max_length=200, pattern=NO_NUL, description="For people.", examples=["Coffee & Co"])
    ]
    merchant_wallet_address: (
        Annotated[
            WalletAddress,
            Meta(
                description="Where all customers pay. Exactly one of this and `xpub`. 0x and 40 hex digits; mixed "
                "case must have a right EIP-55 checksum."
            ),
        ]
        | None
    ) = None
    xpub: (
        Annotated[
            ExtendedPublicKey,
            Meta(
                description="Extended public key of an account (BIP-32), never a private one: each order gets an "
                "address of its own, at 0/i below it. Exactly one of this and `merchant_wallet_address`."
            ),
        ]
        | None
    ) = None
    underpayment_tolerance_minor: ToleranceMinor | None = None
    surplus_policy: (
        Annotated[
            KnownPolicy,
            Meta(description="Money beyond what was asked for is held in suspense, or credited. SUSPENSE if absent."),
        ]
        | None
    ) = None
    id: NewMerchantId | None = None


class CreateOrder(Struct, forbid_unknown_fields=True):
    """An order to create. Idempotent for ever on `id`."""

    id: NewOrderId
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
    refund_id: NewRefundId
    reason: Annotated[
        str, Meta(min_length=1, max_length=500, pattern=NO_NUL, description="For people.", examples=["Out of stock"])
    ]
    amount_minor: AmountMinor | None = None
    tx_hash: (
        Annotated[TxHash, Meta(description="Your transfer on chain, to be proved; it can be named later.")] | None
    ) = None
    to_address: (
        Annotated[
            WalletAddress,
            Meta(description="Who gets it; if absent, who paid. Needed where not all payments came from one address."),
        ]
        | None
    ) = None
    from_address: (
        Annotated[
            WalletAddress, Meta(description="Who sends it; your wallet if absent, anybody if you have an `xpub`.")
        ]
        | None
    ) = None


class NameRefundTransaction(Struct, forbid_unknown_fields=True):
    """Your transfer on chain that makes a refund, to be proved."""

    refund_id: RefundId
    tx_hash: TxHash


class OrderQuery(Struct, forbid_unknown_fields=True):
    """Names one order."""

    id: OrderId


class OrderListQuery(Struct, forbid_unknown_fields=True):
    """Which orders to list."""

    status: Annotated[KnownStatus, Meta(description="Only orders in this state.")] | None = None
    limit: Annotated[int, Meta(ge=1, le=100, description="Orders per page.", examples=[50])] = 50
    cursor: (
        Annotated[
            str,
            Meta(min_length=1, max_length=256, pattern=NO_NUL, description="`next_cursor` of the page before."),
        ]
        | None
    ) = None


class ReconciliationQuery(Struct, forbid_unknown_fields=True):
    """Whose books of which asset."""

    merchant_id: MerchantId
    asset: AssetName
