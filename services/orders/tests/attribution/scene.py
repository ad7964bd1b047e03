"""Orders and transfers of the pure rules of attribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from orders.domain import (
    Arrival,
    ClaimState,
    Order,
    Outcome,
    Place,
    State,
    Tally,
    Terms,
    Transfer,
    Verdict,
    settle_claim,
)

CREATED = datetime(2026, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)


PAYER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"


OTHER = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"


OWN = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


ORDER = Order(
    id="o",
    merchant_id="m",
    asset="USDT",
    chain="BSC",
    amount_minor=5,
    customer_wallet=None,
    deposit_address=OWN,
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
    deposit_index=7,
)


SHARED = replace(ORDER, deposit_index=None)


PLACE = Place("m", own=ORDER.key)


def tally(*orders: Order, terms: Terms = Terms()) -> Tally:  # noqa: B008  # frozen
    return Tally(orders or [ORDER], terms={"m": terms})


def arrival(number: int = 1, amount: int = 5, **fields: object) -> Arrival:
    base = Transfer(
        chain_id=56,
        tx_hash=f"0x{number:064x}",
        log_index=0,
        block_number=101,
        block_hash="0x" + "b" * 64,
        block_time=CREATED.replace(microsecond=0) + timedelta(seconds=2),
        sender=PAYER,
        amount_base=amount * 10**12,
        amount_minor=amount,
    )
    return Arrival("BSC", "USDT", OWN, replace(base, **fields))  # type: ignore[arg-type]


def held(money: Tally) -> list[tuple[str, int]]:
    """(reason, amount) of what is open in suspense."""
    return sorted((item.reason, item.amount_minor) for item in money.items.values() if item.is_open)


def credited(money: Tally) -> int:
    return sum(payment.credited_minor for payment in money.payments.values() if not payment.reversed)


def shared(*names: str, **fields: object) -> list[Order]:
    return [replace(SHARED, id=name, **fields) for name in names]  # type: ignore[arg-type]


def place(orders: Sequence[Order], **fields: object) -> Place:
    return Place("first", candidates=tuple(order.key for order in orders), **fields)  # type: ignore[arg-type]


def final(*moved: Arrival) -> Verdict:
    return Verdict(UUID(int=1), Outcome.FINAL, transfers=tuple(item.transfer for item in moved))


def claim(money: Tally, verdict: Verdict, order: Order = ORDER, number: int = 1) -> tuple[ClaimState, str]:
    decision = settle_claim(money, order.key, arrival(number).transfer.tx_hash, verdict)
    return decision.claim_state, decision.reason
