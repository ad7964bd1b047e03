"""Reads the configuration of chains and assets."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chains.address import checksum_address

HASH = re.compile(r"0x[0-9a-f]{64}")
# What the contracts between the services take; with another name no call about it would be answered.
CHAIN_NAME = re.compile(r"[A-Z0-9_-]{1,24}")
ASSET_NAME = re.compile(r"[A-Z0-9]{2,12}")


@dataclass(frozen=True)
class Asset:
    """A token on a chain. The scale is pinned here: never read from the chain, never guessed."""

    name: str
    chain: str
    chain_id: int
    contract: str
    base_decimals: int
    minor_decimals: int

    @property
    def base_per_minor(self) -> int:
        """Base units in one minor unit."""
        return int(10 ** (self.base_decimals - self.minor_decimals))

    def to_base(self, amount_minor: int) -> int:
        """Base units of an amount in minor units; exact."""
        return amount_minor * self.base_per_minor

    def to_minor(self, amount_base: int) -> int:
        """Minor units of an amount in base units; dust below one minor unit is cut off."""
        return amount_base // self.base_per_minor


@dataclass(frozen=True)
class PinnedBlock:
    """A block that tells a chain from any other of the same id. Lower-case hash."""

    number: int
    hash: str


@dataclass(frozen=True)
class Chain:
    """An EVM chain. `depth` is None where the chain has the `finalized` tag, else final is head − depth."""

    name: str
    chain_id: int
    rpc_url_env: str
    depth: int | None
    block_seconds: float
    assets: Mapping[str, Asset]
    pinned_block: PinnedBlock | None = None


@dataclass(frozen=True)
class Registry:
    """All chains, by name."""

    chains: Mapping[str, Chain]

    @classmethod
    def load(cls, path: Path) -> Registry:
        """Reads a TOML file as `config/chains.toml` documents it. Errors: ValueError, KeyError, OSError."""
        with path.open("rb") as file:
            document = tomllib.load(file)
        registry = cls({name: _chain(name, table) for name, table in document["chains"].items()})
        ids = [chain.chain_id for chain in registry.chains.values()]
        if len(set(ids)) != len(ids):
            raise ValueError("two chains have the same chain_id")
        return registry

    def asset(self, chain: str, asset: str) -> Asset | None:
        """The asset, or None where it is not configured."""
        found = self.chains.get(chain)
        return found.assets.get(asset) if found else None

    def is_token(self, address: str) -> bool:
        """Whether a checksummed address is one of the configured token contracts."""
        return any(address == asset.contract for chain in self.chains.values() for asset in chain.assets.values())


def _chain(name: str, table: dict[str, Any]) -> Chain:
    finality = table["finality"]
    if finality != "finalized" and not (isinstance(finality, dict) and finality.get("depth", 0) > 0):
        raise ValueError(f'{name}: finality is "finalized" or {{ depth = N }} with N > 0')
    if not CHAIN_NAME.fullmatch(name):
        raise ValueError(f"{name}: a chain's name is {CHAIN_NAME.pattern}")
    chain_id = int(table["chain_id"])
    assets = {key: _asset(key, name, chain_id, value) for key, value in table["assets"].items()}
    if len({asset.contract for asset in assets.values()}) != len(assets):
        raise ValueError(f"{name}: two assets have the same contract")
    return Chain(
        name=name,
        chain_id=chain_id,
        rpc_url_env=table["rpc_url_env"],
        depth=None if finality == "finalized" else int(finality["depth"]),
        block_seconds=float(table["block_seconds"]),
        assets=assets,
        pinned_block=_pinned_block(name, table["pinned_block"]) if "pinned_block" in table else None,
    )


def _pinned_block(chain: str, table: dict[str, Any]) -> PinnedBlock:
    number, found = table["number"], str(table["hash"]).lower()
    if type(number) is not int or number < 0 or not HASH.fullmatch(found):
        raise ValueError(f'{chain}: pinned_block is {{ number = N, hash = "0x… 64 hexadecimal digits" }}')
    return PinnedBlock(number, found)


def _asset(name: str, chain: str, chain_id: int, table: dict[str, Any]) -> Asset:
    asset = Asset(
        name=name,
        chain=chain,
        chain_id=chain_id,
        contract=checksum_address(table["contract"]),
        base_decimals=int(table["base_decimals"]),
        minor_decimals=int(table["minor_decimals"]),
    )
    if not ASSET_NAME.fullmatch(name):
        raise ValueError(f"{chain}.{name}: an asset's name is {ASSET_NAME.pattern}")
    if not 0 <= asset.minor_decimals <= asset.base_decimals <= 36:
        raise ValueError(f"{chain}.{name}: 0 ≤ minor_decimals ≤ base_decimals ≤ 36")
    return asset
