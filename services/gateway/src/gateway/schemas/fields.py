"""The kinds of fields: what they may hold, and how they are described."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Raw

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
NO_NUL = r"^[^\u0000]*$"

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
