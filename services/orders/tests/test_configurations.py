"""An asset that is something else to the verifier than to orders (another chain, another contract, another scale), or
that is configured no more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from chains import Registry
from kit.channel import Peer
from kit.process import Process
from local.process import until
from orders.bootstrap import start
from orders.domain import Outcome
from orders.messages import Reader, tokens
from ospay.orders.v1 import orders_pb2, orders_pb2_grpc
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.conftest import WALLET, Suite, order_request  # type: ignore[import-not-found]
from services.orders.tests.desk import (  # type: ignore[import-not-found]
    CHAINS,
    FIVE,
    Desk,
    expire_by_hand,
    report,
    tx,
)
from services.orders.tests.played import TOKEN, PlayedVerifier  # type: ignore[import-not-found]

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


@pytest.fixture
def settings(verifier: PlayedVerifier) -> dict[str, object]:
    return {"verifier_target": f"127.0.0.1:{verifier.server.port}", "chains_file": CHAINS, "claim_queue_max": 0}


class TestOrders:
    """What that means for an order."""

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


async def test_what_was_made_is_known_when_its_asset_is_configured_no_more(suite: Suite, tmp_path: Path) -> None:
    """The same request is answered with the order, another one with the id is a mismatch, a new one is refused."""
    await suite.merchant()
    known = order_request("ord_1", chain="BSC", asset="USDC")
    first = await suite.peer.call(suite.orders.CreateOrder, known, timeout=5)
    without = tmp_path / "chains.toml"
    without.write_text(CHAINS.read_text().split("[chains.BSC.assets.USDC]")[0])
    other = order_request("ord_1", chain="BSC", asset="USDC", amount_minor=1)
    new, able = order_request("ord_2", chain="BSC", asset="USDC"), order_request("ord_3")
    async with restarted(suite, without) as after:
        again = await after.peer.call(after.orders.CreateOrder, known, timeout=5)
        assert (again.replayed, again.order.order_id) == (True, "ord_1")
        assert again.order.created_at == first.order.created_at
        batch = orders_pb2.BatchCreateOrdersRequest(requests=[new, known, able, other, new])
        response = await after.peer.call(after.orders.BatchCreateOrders, batch, timeout=5)
    assert [
        ("replayed" if item.created.replayed else "made") if item.HasField("created") else reason_of(item.error)
        for item in response.results
    ] == ["invalid_request", "replayed", "made", "idempotency_mismatch", "invalid_request"]


@asynccontextmanager
async def restarted(suite: Suite, chains_file: Path) -> AsyncIterator[Suite]:
    """The same orders as after a restart with another chains file."""
    process = Process()
    settings = suite.settings.model_copy(update={"chains_file": chains_file})
    peer = Peer(f"127.0.0.1:{(await start(process, settings)).port}", token=TOKEN)
    try:
        yield replace(suite, peer=peer, orders=orders_pb2_grpc.OrderServiceStub(peer.channel), settings=settings)
    finally:
        await peer.close()
        process.stop()
        await process.finish(5)


def reason_of(error: Status) -> str:
    """The reason in an item's error."""
    info = ErrorInfo()
    assert error.details[0].Unpack(info)
    return info.reason


async def is_in(desk: Desk, state: str) -> bool:
    """Whether the order is in this state."""
    return bool(await desk.state() == state)
