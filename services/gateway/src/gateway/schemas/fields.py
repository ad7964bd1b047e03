"""The kinds of fields: what they may hold, and how they are described."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Raw

MAX_AMOUNT = 2**53 - 1  # what every JSON reader can hold exactly
MAX_METADATA_BYTES = 16_384

WALLET = "0x8894E0a0c962CB723c1976a4421c95949bE2D4E3"
# Its private key is nobody's.
XPUB = "xpub6C9qgSL6QZSBHGREEpbgDSmtNrJYQwx5h5fMYaNq7Ro2qxBa1qyiEPJFdbQ5sj6JwAFBbWqMEjdQWDbAaqGSeemTuvSY6fiEgF85gASginz"
TX_HASH = "0x9fc76417374aa880d4449a1f7f31ec597f00b1f6f3dd2d66f4c9c6c445836d8b"

KnownStatus = Literal["PENDING", "CONFIRMING", "PAID", "SETTLED", "REFUNDED", "EXPIRED"]
KnownPolicy = Literal["SUSPENSE", "CREDIT"]
# In answers UNKNOWN is what only a newer orders has a name for, while an upgrade is under way.
OrderStatus = Literal[KnownStatus, "UNKNOWN"]
SurplusPolicy = Literal[KnownPolicy, "UNKNOWN"]
ClaimStatus = Literal["OPEN", "ACCEPTED", "REJECTED", "UNKNOWN"]
PaymentState = Literal["CONFIRMING", "CREDITED", "HELD", "RETURNED", "DROPPED", "REVERSED", "UNKNOWN"]
RefundState = Literal["RECORDED", "CONFIRMED", "REFUTED", "UNKNOWN"]
ChainHealth = Literal["ok", "degraded", "unavailable"]
PartState = Literal["up", "degraded", "down"]

_ID = r"^[A-Za-z0-9_.:-]{1,64}$"
# A client takes `.` and `..` out of a path: what has such an id could be made, and not all of it read.
_NEW_ID = Meta(pattern=r"^[.]*[A-Za-z0-9_:-][A-Za-z0-9_.:-]*$", max_length=64)
_HEX_32 = r"^0x[0-9a-fA-F]{64}$"
_HEX_20 = r"^0x[0-9a-fA-F]{40}$"
# PostgreSQL holds every character but NUL.
NO_NUL = r"^[^\u0000]*$"

MerchantId = Annotated[str, Meta(pattern=_ID, description="The merchant's id.", examples=["mrc_abc"])]
OrderId = Annotated[
    str, Meta(pattern=_ID, description="The merchant's own order id, unique per merchant.", examples=["ord_123"])
]
RefundId = Annotated[
    str, Meta(pattern=_ID, description="The merchant's own refund id, unique per merchant.", examples=["rfd_1"])
]
NewMerchantId = Annotated[
    str, _NEW_ID, Meta(description="Chosen id, not of dots only; made if absent.", examples=["mrc_abc"])
]
NewOrderId = Annotated[
    str, _NEW_ID, Meta(description="Your own order id, unique, not of dots only.", examples=["ord_123"])
]
NewRefundId = Annotated[
    str, _NEW_ID, Meta(description="Your own refund id, unique, not of dots only.", examples=["rfd_1"])
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
# Base58 of 78 bytes and a checksum: always as long. A private key has another prefix and goes no further than here.
ExtendedPublicKey = Annotated[
    str,
    Meta(
        pattern=r"^xpub[1-9A-HJ-NP-Za-km-z]{107}$",
        description="Extended public key of an account (BIP-32); never a private one.",
        examples=[XPUB],
    ),
]
ToleranceMinor = Annotated[
    int,
    Meta(
        ge=0,
        le=MAX_AMOUNT,
        description="An order is paid when no more than this is missing, in minor units; only with `xpub`.",
        examples=[0],
    ),
]
# Past what JSON readers hold as a number.
AmountBase = Annotated[
    str,
    Meta(
        pattern=r"^(0|[1-9][0-9]*)$",
        description="In the token's base units (USDT on BSC: 10^-18).",
        examples=["5000000000000000000"],
    ),
]
BlockNumber = Annotated[int, Meta(ge=0, description="Height of the block.", examples=[41_000_000])]
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
