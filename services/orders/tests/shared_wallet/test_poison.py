"""A verdict or a report that cannot be applied holds up no other."""

from __future__ import annotations

import pytest

from local.process import until
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.conftest import WALLET  # type: ignore[import-not-found]
from services.orders.tests.desk import FIVE, Desk, report, tx  # type: ignore[import-not-found]
from services.orders.tests.played import PlayedVerifier  # type: ignore[import-not-found]
from services.orders.tests.shared_wallet.scene import final  # type: ignore[import-not-found]

# A statement that takes too long, at once: `{tx}` is the transaction that it takes too long for.
TOO_SLOW = """
    CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'too slow' USING ERRCODE = 'query_canceled'; END $$;
    CREATE TRIGGER poison BEFORE INSERT ON payments FOR EACH ROW WHEN (NEW.tx_hash = '{tx}') EXECUTE FUNCTION poison()
"""


REFUSED = "ALTER TABLE payments ADD CONSTRAINT poison CHECK (tx_hash <> '{tx}')"


CURES = {REFUSED: "ALTER TABLE payments DROP CONSTRAINT poison", TOO_SLOW: "DROP TRIGGER poison ON payments"}


@pytest.fixture
def settings(settings: dict[str, object]) -> dict[str, object]:
    """No room in the queue: what is claimed is verified inline."""
    return settings | {"claim_queue_max": 0}


@pytest.mark.parametrize("poison", [REFUSED, TOO_SLOW], ids=["refused", "too slow"])
async def test_a_verdict_that_cannot_be_applied_holds_up_no_other(desk: Desk, poison: str) -> None:
    """The others of its batch are applied, its claim stays open with its debt, and pays when it can."""
    names = [f"ord_{number}" for number in range(1, 8)]
    for name in names:
        await desk.suite.create(name)
    verdicts = [final(await desk.claim(name, number), number) for number, name in enumerate(names, 1)]
    await desk.owner(poison.format(tx=tx(3)))
    await desk.apply(*verdicts)
    assert [await desk.state(name) for name in names] == [*["PAID"] * 2, "PENDING", *["PAID"] * 4]
    assert await desk.value("SELECT count(*) FROM outbox WHERE event_id = $1", verdicts[2].claim_id) == 1
    await desk.owner(CURES[poison])
    await desk.apply(verdicts[2])
    assert await desk.state("ord_3") == "PAID"
    await desk.check()


async def test_an_inline_verdict_that_cannot_be_applied_is_queued(desk: Desk, verifier: PlayedVerifier) -> None:
    """Its caller is told that the claim waits, the other one of its call what has become of the order."""
    for number in (1, 2):
        await desk.suite.create(f"ord_{number}")
        moved = report(WALLET, number).transfer
        verifier.verdicts[tx(number)] = verifier_pb2.Verdict(final=verifier_pb2.Final(transfers=[moved]))
    await desk.owner(REFUSED.format(tx=tx(1)))
    assert await desk.detect(1, 2) == [("PENDING", True), ("PAID", False)]


@pytest.mark.parametrize("poison", [REFUSED, TOO_SLOW], ids=["refused", "too slow"])
async def test_a_report_that_cannot_be_applied_holds_up_no_other(
    desk: Desk, verifier: PlayedVerifier, poison: str
) -> None:
    """The others that are taken with it are applied and confirmed, it is told again, and pays when it can."""
    names = [f"ord_{number}" for number in range(1, 8)]
    for number, name in enumerate(names, 1):
        await desk.suite.create(name, amount_minor=FIVE + number)
    await desk.owner(poison.format(tx=tx(3)))
    verifier.reports = [report(WALLET, number, FIVE + number) for number in range(1, 8)]

    async def are_left(count: int) -> bool:
        return len(verifier.reports) == count

    await until(lambda: are_left(1), "the others to be confirmed")
    assert [await desk.state(name) for name in names] == [*["PAID"] * 2, "PENDING", *["PAID"] * 4]
    await desk.owner(CURES[poison])
    await until(lambda: are_left(0), "the last one to be confirmed")
    assert await desk.state("ord_3") == "PAID"
    await desk.check()
