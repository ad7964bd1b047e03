"""A verifier to which an asset is something else than to orders: another chain, another contract, another scale."""

from __future__ import annotations

from uuid import UUID

import pytest

from chains import Registry
from local.process import until
from orders.domain import Outcome
from orders.messages import Reader, tokens
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.conftest import WALLET, Suite  # type: ignore[import-not-found]
from services.orders.tests.desk import (  # type: ignore[import-not-found]
    CHAINS,
    FIVE,
    Desk,
    expire_by_hand,
    report,
    tx,
)
from services.orders.tests.played import PlayedVerifier  # type: ignore[import-not-found]

REGISTRY = Registry.load(CHAINS)
OURS = tokens(REGISTRY)["BSC", "USDT"]
OTHERS = {
    "a test net": {"chain_id": 97},
    "another contract": {"contract": "0x8AC76a51cc950d9822D68b83fE1Ad97B32Cd580d"},
    "another unit": {"base_decimals": 6},
    "another minor unit": {"minor_decimals": 2},
}
OUTCOMES = ("final", "waiting", "rejected")


def token(**fields: object) -> verifier_pb2.Token:
    """BSC USDT as it is here, but for some fields."""
    made = verifier_pb2.Token()
    made.CopyFrom(OURS)
    made.MergeFrom(verifier_pb2.Token(**fields))  # type: ignore[arg-type]
    return made


def said(
    outcome: str, meant: verifier_pb2.Token | None, asset: str = "USDT", claim_id: str = str(UUID(int=1))
) -> verifier_pb2.Verdict:
    """A verdict on the claim of a BSC order."""
    verdict = verifier_pb2.Verdict(claim_id=claim_id, chain="BSC", asset=asset, token=meant)
    moved = report(WALLET).transfer
    if outcome == "final":
        verdict.final.transfers.append(moved)
    elif outcome == "waiting":
        waiting = verifier_pb2.Waiting(reason=verifier_pb2.WAIT_REASON_NOT_FINAL, transfers=[moved])
        verdict.waiting.CopyFrom(waiting)
    else:
        verdict.rejected.reason = verifier_pb2.REJECT_REASON_WRONG_TOKEN
    return verdict


def found(meant: verifier_pb2.Token | None, asset: str = "USDT") -> verifier_pb2.Report:
    """5 of it on the shop's wallet, final."""
    message = report(WALLET, asset=asset)
    if meant:
        message.token.CopyFrom(meant)
    return message


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_nothing_is_believed_of_an_asset_that_is_another_one_there(outcome: str, other: str) -> None:
    """Neither that it came, nor that it is under way, nor that it did not come."""
    reader = Reader(REGISTRY)
    assert reader.verdicts([said(outcome, token(**OTHERS[other]))]) == []
    assert reader.reports([found(token(**OTHERS[other]))]) == []


def test_what_is_the_same_there_is_believed() -> None:
    """As is what a version before says, which names no token, and what is said of an asset that is unknown here."""
    reader = Reader(REGISTRY)
    gone = token(chain_id=97)
    told = [said("final", token()), said("final", None), said("final", gone, "GONE")]
    assert [item.outcome for item in reader.verdicts(told)] == [Outcome.FINAL] * 3
    seen = [found(token()), found(None), found(gone, "GONE")]
    assert [item.arrival.asset for item in reader.reports(seen)] == ["USDT", "USDT", "GONE"]


class TestOrders:
    """What that means for an order."""

    @pytest.fixture
    def settings(self, verifier: PlayedVerifier) -> dict[str, object]:
        target = f"127.0.0.1:{verifier.server.port}"
        return {"verifier_target": target, "chains_file": CHAINS, "claim_queue_max": 0}

    @pytest.fixture
    async def desk(self, suite: Suite) -> Desk:
        await suite.merchant()
        await suite.create("ord_1")
        return Desk(suite)

    async def test_a_claim_waits_until_both_mean_the_same(self, desk: Desk, verifier: PlayedVerifier) -> None:
        """It is not refuted, and pays when the configuration is mended."""
        verifier.verdicts = {tx(1): said("rejected", token(chain_id=97), claim_id="")}
        assert await desk.detect(1) == [("PENDING", True)]
        assert await desk.value("SELECT state FROM claims") == "OPEN"
        verifier.verdicts = {tx(1): said("final", token(), claim_id="")}
        await desk.owner("UPDATE outbox SET next_attempt_at = now() WHERE subject = 'ospay.orders.v1.payment_claimed'")
        await until(lambda: is_in(desk, "PAID"), "the claim to be asked for again")

    async def test_a_report_is_not_confirmed_until_both_mean_the_same(
        self, desk: Desk, verifier: PlayedVerifier
    ) -> None:
        """It is told again, and pays when the configuration is mended."""
        other, one = found(token(base_decimals=6)), report(WALLET, 2, 3 * FIVE)
        verifier.reports = [other, one]

        async def only_the_other_is_left() -> bool:
            return verifier.reports == [other]

        await until(only_the_other_is_left, "the other report to be confirmed")
        assert await desk.state() == "PENDING"
        verifier.reports = [found(token())]
        await until(lambda: is_in(desk, "PAID"), "the report to be taken again")

    async def test_an_order_says_what_its_asset_is_before_it_expires(
        self, desk: Desk, verifier: PlayedVerifier
    ) -> None:
        """So that a verifier that has looked for something else can say so."""
        verifier.span_states = {"BSC": verifier_pb2.SPAN_STATE_ADDRESS_BEHIND}
        await expire_by_hand(desk, "ord_1")

        async def is_asked() -> bool:
            return bool(verifier.checked)

        await until(is_asked, "the verifier to be asked")
        assert (verifier.checked[0].asset, verifier.checked[0].token) == ("USDT", OURS)


async def is_in(desk: Desk, state: str) -> bool:
    """Whether the order is in this state."""
    return bool(await desk.state() == state)
