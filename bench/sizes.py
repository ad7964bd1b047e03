"""How much of everything: for figures, and for a look at whether the parts still work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Counts are of one round; `seconds` is the length of one load."""

    rounds: int
    seconds: float
    pairs: int  # of loads of a second, where tracing is measured
    limit_seconds: float  # of pgbench, of the node alone, of the bare echo
    payments: int
    block_payments: int  # transfers in one block of the chain, where payments are measured
    steady_payments: int  # at 100/s, where the time to PAID is measured
    claims: int  # for the verifier alone
    postings: int  # for the ledger alone; each is two entries
    settled: int
    few_entries: int
    many_entries: int
    many_orders: int


FULL = Sizes(
    rounds=3,
    seconds=3.0,
    pairs=9,
    limit_seconds=3.0,
    payments=4000,
    block_payments=50,
    steady_payments=1500,
    claims=8000,
    postings=40_000,
    settled=30_000,
    few_entries=5000,
    many_entries=5_000_000,
    many_orders=5_000_000,
)

# Times mean nothing at these sizes, and none is looked at.
SMOKE = Sizes(
    rounds=1,
    seconds=1.0,
    pairs=1,
    limit_seconds=1.0,
    payments=200,
    block_payments=50,
    steady_payments=90,
    claims=300,
    postings=500,
    settled=2500,  # more than two batches: the first has nothing before it to be timed by
    few_entries=100,
    many_entries=2000,
    many_orders=2000,
)
