"""The demo merchant: made through the gateway as any merchant is."""

import os
from dataclasses import asdict, dataclass
from typing import Any, Self

import aiohttp

from local.process import PartFailed

NAME = "Demo shop"
CALL_BOUND = 10.0  # seconds


@dataclass(frozen=True)
class Merchant:
    """As run.json shows it. `wallet_key` is there when the wallet is not one of the dev chain's accounts."""

    id: str
    api_key: str
    wallet: str
    wallet_key: str | None = None

    @classmethod
    def known(cls, secrets: dict[str, Any]) -> Self | None:
        return cls(**secrets["merchant"]) if "merchant" in secrets else None

    def public(self) -> dict[str, str]:
        return {"id": self.id, "api_key": self.api_key, "wallet": self.wallet}

    def secret(self) -> dict[str, str | None]:
        return asdict(self)


def new_wallet() -> tuple[str, str]:
    """An address and its private key, which we keep: money paid to an address without a key would be lost."""
    from eth_keys.datatypes import PrivateKey  # half a second, and only a real chain needs it

    key = PrivateKey(os.urandom(32))
    return key.public_key.to_checksum_address(), key.to_hex()


async def create_merchant(gateway: str, admin_key: str, wallet: str, wallet_key: str | None) -> Merchant:
    body = {"name": NAME, "merchant_wallet_address": wallet}
    url = f"{gateway}/merchants"
    async with _session({"X-Admin-Key": admin_key}) as session, session.post(url, json=body) as answer:
        if answer.status != 201:
            raise PartFailed(f"the gateway made no demo merchant: {answer.status} {await answer.text()}")
        made = await answer.json()
    return Merchant(id=made["id"], api_key=made["api_key"], wallet=wallet, wallet_key=wallet_key)


async def key_works(gateway: str, merchant: Merchant) -> bool:
    """Whether the merchant we remember is there: the database may have been thrown away under us."""
    async with _session({"X-API-Key": merchant.api_key}) as session, session.get(f"{gateway}/orders?limit=1") as answer:
        return answer.status != 401


def _session(headers: dict[str, str]) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=CALL_BOUND))
