"""Exact money and strict configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains import Asset, PinnedBlock, Registry, checksum_address

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


SHIPPED = {
    ("BSC", 56): {
        "USDT": ("0x55d398326f99059fF775485246999027B3197955", 18),
        "USDC": ("0x8AC76a51cc950d9822D68b83fE1Ad97B32Cd580d", 18),
    },
    ("BSC_TESTNET", 97): {"TUSDT": ("0x337610d27c682E347C9cD60BD4b3b107C9d34dDd", 18)},
    ("ETHEREUM", 1): {
        "USDT": ("0xdAC17F958D2ee523a2206206994597C13D831ec7", 6),
        "USDC": ("0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", 6),
    },
    ("POLYGON", 137): {
        "USDT": ("0xc2132D05D31c914a87C6611C10748AEb04B58e8F", 6),
        "USDC": ("0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359", 6),
    },
    ("BASE", 8453): {
        "USDT": ("0xfde4C96c8593536E31F229EA8f37b2ADa2699bb2", 6),
        "USDC": ("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", 6),
    },
}


def test_what_ships_is_what_is_meant() -> None:
    """The configuration in the repository: these tokens with these decimals, six in the books, final by tag."""
    found = Registry.load(CONFIGURED)
    assert SHIPPED == {
        (name, chain.chain_id): {key: (asset.contract, asset.base_decimals) for key, asset in chain.assets.items()}
        for name, chain in found.chains.items()
    }
    assert {6} == {asset.minor_decimals for chain in found.chains.values() for asset in chain.assets.values()}
    assert {None} == {chain.depth for chain in found.chains.values()}
    assert found.asset("BSC", "USDT") == USDT
    assert found.is_token(CONTRACT)
    assert found.asset("BSC", "DOGE") is None
    assert found.asset("NOPE", "USDT") is None


def test_the_dev_chain_may_stand_for_bsc_and_for_no_other() -> None:
    """Every shipped chain but BSC, as which `make run` answers, is told by a block from a copy of the same id."""
    assert {"BSC"} == {name for name, chain in Registry.load(CONFIGURED).chains.items() if chain.pinned_block is None}


def test_names_of_shipped_chains_and_assets_fit_the_contracts() -> None:
    """What the contracts take as a name of a chain or an asset; each chain has a variable of its own."""
    chains = Registry.load(CONFIGURED).chains
    assert all(re.fullmatch(r"[A-Z0-9_-]{1,24}", name) for name in chains)
    assert all(re.fullmatch(r"[A-Z0-9]{2,12}", name) for chain in chains.values() for name in chain.assets)
    assert len(chains) == len({chain.rpc_url_env for chain in chains.values()})


def test_a_pinned_block_is_read(tmp_path: Path) -> None:
    """Its hash in any case; without the line there is none."""
    text = VALID.format(finality='"finalized"', contract=CONTRACT, base=6, minor=6)
    pin = f'block_seconds = 1\npinned_block = {{ number = 7, hash = "0x{"AB" * 32}" }}'
    assert registry(tmp_path, text).chains["A"].pinned_block is None
    found = registry(tmp_path, text.replace("block_seconds = 1", pin)).chains["A"].pinned_block
    assert PinnedBlock(7, "0x" + "ab" * 32) == found


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
        {"minor": "6\n[chains.A.pinned_block]\nnumber = -1\nhash = '0x" + "ab" * 32 + "'"},
        {"minor": "6\n[chains.A.pinned_block]\nnumber = '1'\nhash = '0x" + "ab" * 32 + "'"},
        {"minor": "6\n[chains.A.pinned_block]\nnumber = 1\nhash = '0xab'"},
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


@pytest.mark.parametrize(
    ("name", "other"), [("chains.A", "chains.a"), ("chains.A", 'chains."A B"'), ("USDT", '"USDC.e"')]
)
def test_a_name_that_no_call_may_carry_is_refused(tmp_path: Path, name: str, other: str) -> None:
    """Else orders would be taken by it, and nothing of them could be asked or told."""
    text = VALID.format(finality="{ depth = 12 }", contract=CONTRACT, base=6, minor=6)
    assert name in text
    with pytest.raises(ValueError, match="name is"):
        registry(tmp_path, text.replace(name, other))


def test_a_token_has_one_name(tmp_path: Path) -> None:
    """With two, a claim and a report would tell one transfer as two assets."""
    text = VALID.format(finality="{ depth = 12 }", contract=CONTRACT, base=6, minor=6)
    with pytest.raises(ValueError, match="the same contract"):
        registry(tmp_path, text + text[text.index("[chains.A.assets.USDT]") :].replace("USDT", "USDT0"))


def test_checksums_are_checked() -> None:
    """All-lower and all-upper digits are taken, a mixed address must have the right checksum (EIP-55)."""
    digits = CONTRACT[2:]
    assert {checksum_address("0x" + form) for form in (digits, digits.lower(), digits.upper())} == {CONTRACT}
    for wrong in ("0x55D398326f99059fF775485246999027B3197955", digits, "0x" + digits + "0", "0x" + "g" * 40, ""):
        with pytest.raises(ValueError):
            checksum_address(wrong)
