"""The pure rules of a proof, and the call data that is shown."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from chains import checksum_address
from orders.domain import Outcome, Verdict
from orders.proof import Proof, ProofState, Ruling, rule
from orders.rpc.refunds import transfer_data
from services.orders.tests.desk import transfer  # type: ignore[import-not-found]
from services.orders.tests.refund_proofs.shop import OTHER, PAID_BLOCK, PAYER  # type: ignore[import-not-found]

PROOF = Proof(
    claim_id=UUID(int=1),
    debt_id=UUID(int=2),
    refund_id="r1",
    merchant_id="mrc_1",
    amount_minor=1_000_000,
    to_address=PAYER,
    from_address=None,
    wallet=None,
    deposit_address=OTHER,
    paid_block=PAID_BLOCK,
)


def test_a_merchant_without_a_wallet_may_send_from_anywhere() -> None:
    """Nothing declared and no wallet: any sender counts, but not the wallet of another merchant."""
    sent = transfer(7, 1_000_000, sender=OTHER)
    verdict = Verdict(PROOF.claim_id, Outcome.FINAL, transfers=(sent,))
    assert rule(PROOF, verdict, set(), set()) == Ruling(ProofState.CONFIRMED, "", sent)
    assert rule(PROOF, verdict, set(), {OTHER}) == Ruling(ProofState.REFUTED, "wrong_sender")
    own = replace(PROOF, wallet=OTHER)
    assert rule(own, verdict, set(), {OTHER}) == Ruling(ProofState.CONFIRMED, "", sent)


@given(
    st.binary(min_size=20, max_size=20).map(lambda raw: checksum_address("0x" + raw.hex())),
    st.integers(0, 2**256 - 1),
)
def test_the_call_data_is_that_of_an_independent_encoder(to: str, amount: int) -> None:
    """Whatever the address and the amount, eth-abi encodes the same call."""
    selector = keccak(text="transfer(address,uint256)")[:4]
    assert transfer_data(to, amount) == "0x" + (selector + encode(["address", "uint256"], [to, amount])).hex()
