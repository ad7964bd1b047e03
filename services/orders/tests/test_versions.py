"""What a newer version says and this one does not understand: left open, and in nobody's way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from chains import Registry
from kit.bus import Bus
from local.process import until
from orders.consumer import Consumer
from orders.doorbell import Doorbell
from orders.messages import Reader
from orders.peers import Verifier
from orders.reports import Reports
from ospay.ledger.v1 import ledger_pb2
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.conftest import WALLET, Suite  # type: ignore[import-not-found]
from services.orders.tests.desk import CHAINS, LATER, Desk, report, tx  # type: ignore[import-not-found]
from services.orders.tests.played import PlayedLedger, PlayedVerifier  # type: ignore[import-not-found]

CLAIMED = "SELECT event_id FROM outbox WHERE subject = 'ospay.orders.v1.payment_claimed'"
NEWER = verifier_pb2.Verdict(rejected=verifier_pb2.Rejected(reason=99))  # type: ignore[arg-type]  # of a later contract


@pytest.fixture
async def ledger() -> AsyncIterator[PlayedLedger]:
    played = PlayedLedger()
    await played.server.start()
    yield played
    await played.server.stop()


@pytest.fixture
def settings(verifier: PlayedVerifier, ledger: PlayedLedger) -> dict[str, object]:
    peers = {"verifier_target": verifier, "ledger_target": ledger}
    return {name: f"127.0.0.1:{peer.server.port}" for name, peer in peers.items()} | {"claim_queue_max": 0}


@pytest.fixture
async def desk(suite: Suite) -> Desk:
    await suite.merchant()
    await suite.create("ord_1")
    await suite.create("ord_2")
    return Desk(suite)


@pytest.fixture
def consumer(suite: Suite) -> Consumer:
    """The consumer of messages that a test hands it."""
    nowhere = Bus("nats://127.0.0.1:1", name="none", streams={})
    doorbell = Doorbell(nowhere, suite.process)
    reader = Reader(Registry.load(CHAINS))
    reports = Reports(suite.database, doorbell, Verifier(suite.peer, reader), LATER)  # none come here
    return Consumer(nowhere, suite.database, doorbell, reports, reader, LATER)


def final(number: int, claim_id: object = "") -> verifier_pb2.Verdict:
    """That 5 USDT of this transaction are final."""
    moved = report(WALLET, number).transfer
    return verifier_pb2.Verdict(claim_id=str(claim_id), final=verifier_pb2.Final(transfers=[moved]))


def not_understood(kind: str) -> float:
    """How many were passed over so far."""
    return REGISTRY.get_sample_value("orders_items_not_understood_total", {"kind": kind}) or 0.0


async def test_a_published_verdict_of_a_newer_version_holds_up_no_other(desk: Desk, consumer: Consumer) -> None:
    """The others of its message are applied; its claim stays open with its debt, and is counted."""
    claims = [await desk.claim("ord_1", 1), await desk.claim("ord_2", 2)]
    newer = verifier_pb2.Verdict(claim_id=str(claims[0]))
    newer.MergeFrom(NEWER)
    before = not_understood("Verdict")
    message = verifier_pb2.BatchVerifyResponse(verdicts=[newer, final(2, claims[1])])
    await consumer.verdicts([message.SerializeToString()])
    assert [await desk.state("ord_1"), await desk.state("ord_2")] == ["PENDING", "PAID"]
    assert await desk.value(CLAIMED) == claims[0]
    assert await desk.value("SELECT count(*) FROM dead_letters") == 0
    assert not_understood("Verdict") == before + 1


async def test_an_answered_verdict_of_a_newer_version_holds_up_no_other(desk: Desk, verifier: PlayedVerifier) -> None:
    """Inline and by the sweeper: the others of the answer are applied, its claim is queued and asked for again."""
    verifier.verdicts = {tx(1): NEWER, tx(2): final(2)}
    assert await desk.detect(1, 2) == [("PENDING", True), ("PAID", False)]
    await desk.suite.create("ord_3")
    await desk.claim("ord_3", 3)
    verifier.verdicts[tx(3)] = final(3)
    await desk.owner("UPDATE outbox SET next_attempt_at = now() WHERE subject = 'ospay.orders.v1.payment_claimed'")

    async def paid(order_id: str) -> bool:
        return await desk.state(order_id) == "PAID"

    await until(lambda: paid("ord_3"), "the other claim of the sweep to be paid")
    assert await desk.state("ord_1") == "PENDING"
    verifier.verdicts[tx(1)] = final(1)
    await desk.owner("UPDATE outbox SET next_attempt_at = now() WHERE subject = 'ospay.orders.v1.payment_claimed'")
    await until(lambda: paid("ord_1"), "the claim to be asked for again")


async def test_an_outcome_of_a_newer_ledger_is_not_a_refusal(desk: Desk, consumer: Consumer) -> None:
    """What it says of one event closes and buries nothing; the others of its message are closed."""
    await desk.pay("ord_1", 1)
    await desk.pay("ord_2", 2)
    events = [UUID(item.event_id) for item in await desk.postings()]
    newer, booked = (ledger_pb2.PostResult(event_id=str(event)) for event in events)
    newer.outcome = 99  # type: ignore[assignment]  # of a later contract
    booked.outcome = ledger_pb2.POST_OUTCOME_POSTED
    before = not_understood("PostResult")
    await consumer.posted([ledger_pb2.BatchPostResponse(results=[newer, booked]).SerializeToString()])
    owed = "SELECT array_agg(event_id) FROM outbox WHERE subject = 'ospay.orders.v1.order_paid' AND dead_reason IS NULL"
    assert await desk.value(owed) == [events[0]]
    assert not_understood("PostResult") == before + 1


async def test_a_debt_of_a_newer_version_is_left_to_it(desk: Desk) -> None:
    """Of a subject that is not known here: it is not taken for a posting, and holds up none."""
    await desk.pay("ord_1", 1)
    await desk.owner(
        """
        INSERT INTO outbox (event_id, subject, merchant_id, asset, payload, next_attempt_at)
        VALUES (uuidv7(), 'ospay.orders.v1.newer', 'mrc_1', '', '\\xffff', now())
        """
    )
    await desk.owner("UPDATE outbox SET next_attempt_at = now() WHERE subject = 'ospay.orders.v1.order_paid'")

    async def booked() -> bool:
        return not await desk.postings()

    await until(booked, "the payment to be booked")
    owed = "SELECT count(*) FROM outbox WHERE subject = 'ospay.orders.v1.newer' AND dead_reason IS NULL"
    assert await desk.value(owed) == 1
