"""The ids of what the ledger books: an effect that is decided again has the id that it had, and two never share one."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.domain import Tally, stable_id, take_back
from ospay.ledger.v1 import ledger_pb2
from ospay.orders.v1 import orders_pb2
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.attribution.scene import ORDER, arrival  # type: ignore[import-not-found]
from services.orders.tests.conftest import Suite  # type: ignore[import-not-found]
from services.orders.tests.desk import (  # type: ignore[import-not-found]
    CHAINS,
    FINAL,
    REVERSED,
    report,
    xpub_merchant,
)
from services.orders.tests.played import PlayedVerifier  # type: ignore[import-not-found]
from services.orders.tests.suspense.operator import Operator  # type: ignore[import-not-found]

EIGHT = 8_000_000
# How many of each kind the story books, and whether the ledger hears of it at the time when it was decided.
KINDS = {
    "ORDER_PAID": (3, False),
    "SUSPENSE_RECEIVED": (4, False),
    "SUSPENSE_RELEASED": (4, True),
    "PAYMENT_REVERSED": (2, True),
    "ORDER_REFUNDED": (1, True),
}


@pytest.fixture
def settings(verifier: PlayedVerifier) -> dict[str, object]:
    return {"verifier_target": f"127.0.0.1:{verifier.server.port}", "chains_file": CHAINS}


@pytest.fixture
async def desk(suite: Suite) -> Operator:
    await xpub_merchant(suite)
    return Operator(suite)


async def live(desk: Operator, part: verifier_pb2.Report, paying: verifier_pb2.Report) -> None:
    """An order is paid in two parts and refunded; the second comes and goes, pays another order, and is sent back."""
    await desk.find(part)
    await desk.find(paying)
    request = orders_pb2.RefundOrderRequest(
        merchant_id="mrc_1", order_id="ord_1", refund_id="r1", reason="asked", amount_minor=1
    )
    await desk.suite.peer.call(desk.suite.orders.RefundOrder, request, timeout=5)
    for version in (2, 4):
        await tell(desk, paying, REVERSED, version)
        await tell(desk, paying, FINAL, version + 1)
        (item,) = await desk.items(state=orders_pb2.SUSPENSE_STATE_OPEN)
        if version == 2:
            await desk.allocate(item.suspense_id, "ord_2")
    await desk.give_back(item.suspense_id)


async def tell(
    desk: Operator, told: verifier_pb2.Report, state: verifier_pb2.SightingState.ValueType, version: int
) -> None:
    again = verifier_pb2.Report()
    again.CopyFrom(told)
    again.state, again.version = state, version
    await desk.find(again)


async def booked(desk: Operator) -> dict[str, list[ledger_pb2.Posting]]:
    """What is owed to the ledger by kind, without the trace."""
    async with desk.suite.database.connection() as connection:
        rows = await connection.fetch("SELECT payload FROM outbox WHERE asset <> '' ORDER BY event_id")
    found: dict[str, list[ledger_pb2.Posting]] = defaultdict(list)
    for row in rows:
        posting = ledger_pb2.Posting.FromString(row["payload"])
        posting.traceparent = ""
        found[ledger_pb2.EventType.Name(posting.event_type).removeprefix("EVENT_TYPE_")].append(posting)
    return found


async def restore(desk: Operator) -> None:
    """The database is that of a backup from before anything was paid."""
    await desk.owner("TRUNCATE payments, suspense, sightings, refunds, outbox")
    await desk.owner(
        """
        UPDATE orders SET state = 'PENDING', received_minor = 0, refunded_minor = 0, reversed_minor = 0,
                          surplus_minor = 0, tx_hash = NULL, paid_at = NULL
        """
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_an_effect_that_is_decided_again_has_the_id_that_it_had(desk: Operator, kind: str) -> None:
    """After a restore the same money is booked under the same ids, and within one life each effect has its own."""
    own = (await desk.suite.create("ord_1")).order.deposit_address
    await desk.suite.create("ord_2", amount_minor=EIGHT)
    part, paying = report(own, 1, 2_000_000), report(own, 2, EIGHT, block_number=102)
    await live(desk, part, paying)
    before = (await booked(desk))[kind]
    await restore(desk)
    await live(desk, part, paying)
    after = (await booked(desk))[kind]
    many, is_timed = KINDS[kind]
    assert len({posting.event_id for posting in after}) == len(after) == many
    if is_timed:
        for posting in (*before, *after):
            posting.ClearField("effective_at")
    assert before == after


def test_two_parts_of_a_transfer_that_pay_one_order_are_two_effects() -> None:
    """As a payment and out of suspense, the same amount to the same order: both are credited and taken back apart."""
    money, half = Tally([ORDER]), arrival(amount=10)
    money.credit(ORDER.key, half, 5)
    money.hold(ORDER.merchant_id, ORDER.id, half, 5, "surplus")
    money.credit_item(money.items[half.key], ORDER.key, "")
    take_back(money, half.key, "")
    assert len({credit.event_id for credit in money.credits}) == 2
    assert len({reversal.event_id for reversal in money.reversals}) == 2


PARTS = st.tuples(*[st.one_of(st.text(max_size=4), st.integers(0, 30), st.none())] * 3)


@given(PARTS, PARTS)
def test_other_parts_make_another_id(one: tuple[object, ...], other: tuple[object, ...]) -> None:
    """Wherever the boundary between two parts lies: the same id if and only if all parts are the same."""
    assert (stable_id(*one) == stable_id(*other)) == (one == other)
