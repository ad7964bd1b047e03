"""The dev chain's token, and contracts compiled by `make install`."""

import json
from dataclasses import dataclass
from typing import Any

from local.places import REPOSITORY
from local.process import PartFailed

# Where USDT is on BNB Smart Chain: the suite's configuration for the real chain then fits the dev chain.
TOKEN_ADDRESS = "0x55d398326f99059fF775485246999027B3197955"  # noqa: S105  no secret
DECIMALS = 18
SUPPLY_SLOT = 0
BALANCES_SLOT = 1
FUNDS = 10_000_000 * 10**DECIMALS  # per funded account


@dataclass(frozen=True)
class Contract:
    abi: list[dict[str, Any]]
    bytecode: str
    runtime: str


def contract(name: str) -> Contract:
    artifact = REPOSITORY / "contracts" / "build" / f"{name}.json"
    if not artifact.exists():
        raise PartFailed(f"the contract {name} is not compiled: run `make install`")
    return Contract(**json.loads(artifact.read_text()))


def word(number: int) -> str:
    """A 32-byte word as JSON-RPC wants it."""
    return f"0x{number:064x}"


def balance_slot(owner: str) -> str:
    """Where Solidity keeps `balanceOf[owner]`."""
    from eth_utils.crypto import keccak  # slow to import, and needed on a new chain only

    return "0x" + keccak(bytes.fromhex(f"{int(owner, 16):064x}{BALANCES_SLOT:064x}")).hex()
