"""Looks at the books from time to time, a bounded piece at a time."""

from __future__ import annotations

import structlog
from prometheus_client import Gauge

from kit.database import Database
from ledger import store
from ledger.domain import Violation

log = structlog.get_logger()

RULES = ("assets_sum_to_zero", "balances_mirror", "balance_is_last_entry", "entries_chain", "events_sum_to_zero")
VIOLATIONS = Gauge("ledger_invariant_violations", "Places where a rule of the books is known to be broken", ["rule"])
CHECKED_AT = Gauge("ledger_invariants_checked_timestamp_seconds", "When the books were last looked at")

for _rule in RULES:
    VIOLATIONS.labels(_rule)

# One look reads at most accounts × tail × 4 entries, however many there are.
ACCOUNTS = 500
TAIL = 20


class Auditor:
    """Sums all balances at each look, and walks the accounts: some at each look, then from the start again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._after = 0
        self._broken: set[Violation] = set()

    async def look(self) -> set[Violation]:
        """Checks the assets and the next accounts; what is broken counts until a later look finds it whole."""
        async with self._database.connection() as connection:
            accounts = await store.next_accounts(connection, self._after, ACCOUNTS)
            found = set(await store.unbalanced_assets(connection))
            found |= set(await store.broken_accounts(connection, accounts, TAIL))
        seen_again = {v for v in self._broken if v.account_id is None or v.account_id in accounts}
        self._broken = self._broken - seen_again | found
        self._after = accounts[-1] if len(accounts) == ACCOUNTS else 0
        for rule in RULES:
            VIOLATIONS.labels(rule).set(sum(violation.rule == rule for violation in self._broken))
        for violation in found:
            log.error("invariant_violated", rule=violation.rule, asset=violation.asset, account_id=violation.account_id)
        CHECKED_AT.set_to_current_time()
        return found
