"""Exact money and strict configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains import Asset, Registry, checksum_address

CONFIGURED = Path(__file__).resolve().parents[2] / "config" / "chains.toml"
USDT = Asset("USDT", "BSC", 56, "0x55d398326f99059fF775485246999027B3197955", 18, 6)
VALID = """
[chains.A]
chain_id = 1
rpc_url_env = "A_URL"
finality = {finality}
block_seconds = 1

[chains.A.assets.USDT]
contract = "{contract}"
base_decimals = {base}
minor_decimals = {minor}
"""
CONTRACT = "0x55d398326f99059fF775485246999027B3197955"


def registry(folder: Path, text: str) -> Registry:
    file = folder / "chains.toml"
    file.write_text(text)
    return Registry.load(file)


def test_what_ships_is_what_is_meant() -> None:
    """The configuration in the repository is USDT on BSC with 18 decimals, final by tag."""
    found = Registry.load(CONFIGURED)
    assert found.asset("BSC", "USDT") == USDT
    assert found.chains["BSC"].depth is None
    assert found.is_token(CONTRACT)
    assert found.asset("BSC", "DOGE") is None
    assert found.asset("NOPE", "USDT") is None


@given(st.integers(1, 2**53 - 1), st.integers(0, 10**12 - 1))
def test_minor_units_survive_the_chain(amount_minor: int, dust: int) -> None:
    """To base units and back is exact at any amount, and dust below a minor unit changes nothing."""
    assert USDT.to_minor(USDT.to_base(amount_minor) + dust) == amount_minor


@given(st.integers(0, 2**256 - 1))
def test_no_amount_is_rounded_up(amount_base: int) -> None:
    """Whatever a uint256 holds, its minor units are never more than it is worth, and less than one below."""
    back = USDT.to_base(USDT.to_minor(amount_base))
    assert 0 <= amount_base - back < USDT.base_per_minor


@pytest.mark.parametrize(
    "fields",
    [
        {"finality": '"latest"'},
        {"finality": "{ depth = 0 }"},
        {"finality": "3"},
        {"contract": "0x12"},
        {"contract": "0x55D398326f99059fF775485246999027B3197955"},
        {"minor": "19"},
        {"minor": "-1"},
        {"base": "40", "minor": "0"},
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, fields: dict[str, str]) -> None:
    """Nothing is guessed: a rule, an address or a scale that makes no sense ends the start."""
    given_fields = {"finality": '"finalized"', "contract": CONTRACT, "base": "18", "minor": "6", **fields}
    with pytest.raises(ValueError):
        registry(tmp_path, VALID.format(**given_fields))


def test_two_chains_have_two_ids(tmp_path: Path) -> None:
    """The chain id tells transfers apart, so it cannot be shared."""
    text = VALID.format(finality="{ depth = 12 }", contract=CONTRACT, base=6, minor=6)
    assert registry(tmp_path, text).chains["A"].depth == 12
    with pytest.raises(ValueError):
        registry(tmp_path, text + text.replace("chains.A", "chains.B"))


def test_checksums_are_checked() -> None:
    """All-lower and all-upper digits are taken, a mixed address must have the right checksum (EIP-55)."""
    digits = CONTRACT[2:]
    assert {checksum_address("0x" + form) for form in (digits, digits.lower(), digits.upper())} == {CONTRACT}
    for wrong in ("0x55D398326f99059fF775485246999027B3197955", digits, "0x" + digits + "0", "0x" + "g" * 40, ""):
        with pytest.raises(ValueError):
            checksum_address(wrong)
