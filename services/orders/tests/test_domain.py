"""The pure rules: what a verdict does to an order, and what a refund may move."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.domain import (
    TRANSITIONS,
    ClaimState,
    NewOrder,
    Order,
    Outcome,
    RefundRefused,
    State,
    Transfer,
    Verdict,
    judge,
    metadata_problem,
    refund_amount,
    state_after_refund,
)

CREATED = datetime(2026, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)
PAYER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
ORDER = Order(
    id="o",
    merchant_id="m",
    asset="USDT",
    chain="BSC",
    amount_minor=5_000_000,
    customer_wallet=None,
    deposit_address="0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
    metadata=None,
    request_hash=b"",
    created_block=100,
    state=State.PENDING,
    received_minor=0,
    refunded_minor=0,
    late_minor=0,
    tx_hash=None,
    paid_at=None,
    created_at=CREATED,
    expires_at=CREATED + timedelta(minutes=30),
    settled_at=None,
    settlement_batch_id=None,
)
TRANSFER = Transfer(
    chain_id=56,
    tx_hash="0x" + "a" * 64,
    log_index=3,
    block_number=101,
    block_hash="0x" + "b" * 64,
    block_time=CREATED.replace(microsecond=0) + timedelta(seconds=2),
    sender=PAYER,
    amount_base=5_000_000 * 10**12,
    amount_minor=5_000_000,
)
CLAIM = UUID(int=1)


def final(*transfers: Transfer) -> Verdict:
    return Verdict(CLAIM, Outcome.FINAL, transfers=transfers)


def test_an_exact_transfer_pays() -> None:
    """The exact amount, mined after the order and in time, pays it."""
    decision = judge(ORDER, final(TRANSFER), set())
    assert (decision.claim_state, decision.paid, decision.late) == (ClaimState.ACCEPTED, TRANSFER, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"amount_minor": 4_999_999}, "underpaid"),
        ({"amount_minor": 5_000_001}, "overpaid"),
        ({"amount_minor": -1}, "overpaid"),
        ({"block_number": 100}, "mined_before_order"),
        ({"block_number": 99}, "mined_before_order"),
        ({"block_time": CREATED - timedelta(minutes=1)}, "mined_before_order"),
        ({"block_time": CREATED + timedelta(minutes=31)}, "late"),
    ],
)
def test_what_does_not_fit_does_not_pay(change: dict[str, object], reason: str) -> None:
    """A transfer of another amount or another time leaves the order unpaid and says why."""
    decision = judge(ORDER, final(replace(TRANSFER, **change)), set())
    assert (decision.claim_state, decision.reason, decision.paid) == (ClaimState.REJECTED, reason, None)


def test_a_transfer_that_has_paid_pays_no_more() -> None:
    """A used log is refused, and the next log of the same transaction is taken."""
    second = replace(TRANSFER, log_index=4)
    assert judge(ORDER, final(TRANSFER), {TRANSFER.key}).reason == "already_used"
    assert judge(ORDER, final(TRANSFER, second), {TRANSFER.key}).paid == second


def test_the_named_payer_must_have_sent() -> None:
    """With a customer wallet given, nobody else's transfer pays."""
    order = replace(ORDER, customer_wallet="0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266")
    assert judge(order, final(TRANSFER), set()).reason == "payer_mismatch"
    assert judge(replace(order, customer_wallet=PAYER), final(TRANSFER), set()).paid == TRANSFER


def test_without_a_height_the_clocks_decide_to_the_second() -> None:
    """A block's time is cut to whole seconds: the second of the creation counts, the one before does not."""
    order = replace(ORDER, created_block=None)
    same = replace(TRANSFER, block_time=CREATED.replace(microsecond=0))
    assert judge(order, final(same), set()).paid == same
    before = replace(TRANSFER, block_time=same.block_time - timedelta(seconds=1))
    assert judge(order, final(before), set()).reason == "mined_before_order"


def test_money_for_an_expired_order_is_late() -> None:
    """An expired order is not revived; what came for it is recorded."""
    decision = judge(replace(ORDER, state=State.EXPIRED), final(TRANSFER), set())
    assert (decision.claim_state, decision.reason, decision.late) == (ClaimState.REJECTED, "late", TRANSFER)


@pytest.mark.parametrize("state", [State.PAID, State.SETTLED, State.REFUNDED])
def test_a_closed_order_takes_nothing(state: State) -> None:
    """An order that is paid is not paid again."""
    decision = judge(replace(ORDER, state=state), final(TRANSFER), set())
    assert (decision.claim_state, decision.reason, decision.paid) == (ClaimState.REJECTED, "order_closed", None)


def test_waiting_confirms_only_what_fits() -> None:
    """CONFIRMING needs a transfer that would pay; anything else leaves the order PENDING."""
    waiting = Verdict(CLAIM, Outcome.WAITING, "not_final", (TRANSFER,), block_number=101, head_number=103)
    decision = judge(ORDER, waiting, set())
    assert (decision.claim_state, decision.confirming, decision.confirmations) == (ClaimState.OPEN, True, 3)
    other = replace(waiting, transfers=(replace(TRANSFER, amount_minor=1),))
    assert judge(ORDER, other, set()).confirming is False
    unknown = Verdict(CLAIM, Outcome.WAITING, "not_found")
    assert judge(ORDER, unknown, set()).confirming is False


@given(
    state=st.sampled_from(State),
    outcome=st.sampled_from(Outcome),
    amount=st.integers(-1, 10_000_000),
    number=st.integers(0, 300),
    seconds=st.integers(-100, 4000),
    used=st.booleans(),
)
def test_a_decision_never_leaves_the_state_machine(
    state: State, outcome: Outcome, amount: int, number: int, seconds: int, used: bool
) -> None:
    """Whatever the chain says: only an open order is paid, only by an unused final transfer of its exact amount."""
    order = replace(ORDER, state=state)
    time = CREATED.replace(microsecond=0) + timedelta(seconds=seconds)
    transfer = replace(TRANSFER, amount_minor=amount, block_number=number, block_time=time)
    verdict = Verdict(CLAIM, outcome, "x", (transfer,), block_number=number, head_number=300)
    decision = judge(order, verdict, {transfer.key} if used else set())
    if decision.paid:
        assert State.PAID in TRANSITIONS[state]
        assert outcome is Outcome.FINAL
        assert (amount, used) == (order.amount_minor, False)
        assert number > 100
        assert time <= order.expires_at
    assert decision.paid is None or decision.late is None
    assert (decision.claim_state is ClaimState.ACCEPTED) == (decision.paid is not None)
    assert not decision.confirming or State.CONFIRMING in {state, *TRANSITIONS[state]}


def paid(received: int, refunded: int) -> Order:
    return replace(ORDER, state=State.PAID, received_minor=received, refunded_minor=refunded, paid_at=CREATED)


@given(st.integers(1, 2**53 - 1), st.lists(st.one_of(st.none(), st.integers(1, 2**53 - 1)), max_size=8))
def test_refunds_never_exceed_what_came(received: int, asked: list[int | None]) -> None:
    """Any sequence of refunds moves at most what was received, and ends REFUNDED exactly when nothing is left."""
    order = paid(received, 0)
    for amount in asked:
        try:
            moved = refund_amount(order, amount)
        except RefundRefused:
            continue
        state = state_after_refund(order, moved)
        order = replace(order, refunded_minor=order.refunded_minor + moved, state=state)
        assert 0 < order.refunded_minor <= received
        assert (state is State.REFUNDED) == (order.refunded_minor == received)


@pytest.mark.parametrize("state", [item for item in State if item is not State.PAID])
def test_only_paid_is_refundable(state: State) -> None:
    """An order in any other state is refused by name."""
    with pytest.raises(RefundRefused) as caught:
        refund_amount(replace(paid(5, 0), state=state), None)
    assert caught.value.reason == "order_not_refundable"


def test_the_request_hash_is_of_the_meaning() -> None:
    """Metadata in another order of keys is the same request; another amount is not."""
    base = NewOrder("m", "o", "USDT", "BSC", 5, None, '{"a":1,"b":2}', None)
    assert base.request_hash() == replace(base, metadata='{"b": 2, "a": 1}').request_hash()
    assert base.request_hash() != replace(base, amount_minor=6).request_hash()
    assert base.request_hash() != replace(base, expires_in=timedelta(minutes=30)).request_hash()


@pytest.mark.parametrize("text", ["[]", "1", "nul", "", '{"a": NaN}', '"x"', "[" * 5000])
def test_metadata_is_a_json_object(text: str) -> None:
    """Anything else is refused."""
    assert metadata_problem(text) is not None
