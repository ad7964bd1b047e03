"""What is measured, what each figure must reach, and what it was in each round."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One promise: `must` and `aim` are lower bounds, upper ones where less is better."""

    key: str
    what: str
    must: float
    aim: float
    unit: str = ""
    less_is_better: bool = False

    def holds(self, value: float, bound: float) -> bool:
        """Whether a value is on the good side of a bound."""
        return value <= bound if self.less_is_better else value >= bound

    def headroom(self, value: float) -> float:
        """How many times better than `must`; below 1 it is missed."""
        return self.must / value if self.less_is_better else value / self.must


ROWS = (
    Row("creates_64", "orders created/s ÷ pgbench, c=64", 0.5, 0.8),
    Row("creates_256", "orders created/s ÷ pgbench, c=256", 0.7, 1.0),
    Row("create_p99", "p99 of create at half of that load", 25, 10, "ms", less_is_better=True),
    Row("reads", "orders read/s ÷ created/s, c=256", 1.0, 2.0),
    Row("payments", "payments/s, claim → PAID → booked ÷ pgbench", 0.2, 0.4),
    Row("verifier", "verifier alone: claims/s ÷ the node's single receipts/s", 0.5, 0.8),
    Row("ledger", "ledger alone: entries/s of one merchant ÷ pgbench", 4, 6),
    Row("settlement", "orders settled/s ÷ pgbench", 2, 4),
    Row("reconciliation", "reconciliation p50, many entries ÷ few", 1.2, 1.05, less_is_better=True),
    Row("volume", "orders created/s, table full ÷ empty", 0.85, 0.95),
    Row("finality", "finalized block → PAID at 100 payments/s, p99", 1.0, 0.3, "s", less_is_better=True),
    Row("tracing", "orders created/s, 1 % traced ÷ tracing off", 0.95, 0.98),
    Row("memory", "resident memory of the largest service", 200, 120, "MB", less_is_better=True),
)


@dataclass
class Figures:
    """Values by name, one for each round; those that are no row are what the rows were made of."""

    rounds: dict[str, list[float]] = field(default_factory=dict)

    def note(self, key: str, value: float) -> None:
        """The value of one more round."""
        self.rounds.setdefault(key, []).append(value)

    def median(self, key: str) -> float:
        """Over the rounds so far."""
        return statistics.median(self.rounds[key])
