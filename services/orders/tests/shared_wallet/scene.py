"""Claims on a wallet that orders share."""

from __future__ import annotations

from orders.domain import Outcome, Verdict
from services.orders.tests.desk import PAYER, transfer  # type: ignore[import-not-found]

OTHER = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"


def final(claim: object, number: int = 1, **fields: object) -> Verdict:
    moved = transfer(number, **{"sender": PAYER, **fields})
    return Verdict(claim, Outcome.FINAL, transfers=(moved,))  # type: ignore[arg-type]
