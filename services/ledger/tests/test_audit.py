"""The auditor finds what is broken, and only that."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from ledger import audit, workflow
from ledger.audit import CHECKED_AT, RULES, VIOLATIONS, Auditor
from ledger.domain import EventType, Posting, Violation

if TYPE_CHECKING:
    from .conftest import Books

Make = Callable[..., Posting]


def gauges() -> dict[str, float]:
    """The rules that are shown as broken, and in how many places."""
    shown = {rule: VIOLATIONS.labels(rule)._value.get() for rule in RULES}
    return {rule: count for rule, count in shown.items() if count}


async def fill(books: Books, posting: Make) -> None:
    """Three merchants, two assets, more entries than one look reads."""
    for merchant in ("m1", "m2", "m3"):
        for n in range(3):
            batch = [posting(n + 1, merchant=merchant, event_type=list(EventType)[k % 2]) for k in range(15)]
            await workflow.post(books.service, [*batch, posting(merchant=merchant, asset="XUSD")])


async def test_sound_books_are_sound(books: Books, posting: Make) -> None:
    """Nothing is found in empty books, nor in full ones."""
    assert set() == await Auditor(books.service).look()
    await fill(books, posting)
    assert set() == await Auditor(books.service).look()
    assert gauges() == {}
    assert CHECKED_AT._value.get() > 0


NEWEST = "WHERE account_id = 1 AND seq = 45"


@pytest.mark.parametrize(
    ("damage", "rules"),
    [
        (
            "UPDATE balances SET balance = balance + 1 WHERE account_id = 1",
            {"assets_sum_to_zero", "balances_mirror", "balance_is_last_entry"},
        ),
        (
            "UPDATE balances SET balance = balance + 3 - 2 * account_id WHERE account_id IN (1, 2)",
            {"balance_is_last_entry"},
        ),
        ("UPDATE balances SET last_at = last_at + interval '1 s' WHERE account_id = 2", {"balance_is_last_entry"}),
        (
            "UPDATE balances SET version = version - 1 WHERE account_id = 1",
            {"balances_mirror", "balance_is_last_entry"},
        ),
        (f"DELETE FROM entries {NEWEST}", {"balance_is_last_entry"}),
        ("DELETE FROM entries WHERE account_id = 2 AND seq = 40", {"entries_chain", "events_sum_to_zero"}),
        (
            "UPDATE entries SET amount_minor = amount_minor + 1 WHERE account_id = 1 AND seq = 40",
            {"entries_chain", "events_sum_to_zero"},
        ),
        ("UPDATE entries SET balance_after = balance_after + 1 WHERE account_id = 2 AND seq = 40", {"entries_chain"}),
        ("UPDATE entries SET event_id = uuidv7() WHERE account_id = 2 AND seq = 44", {"events_sum_to_zero"}),
        (
            "UPDATE entries SET created_at = created_at - interval '1 h' WHERE account_id = 1 AND seq = 40",
            {"entries_chain"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_damage_is_found(books: Books, posting: Make, damage: str, rules: set[str]) -> None:
    """Each kind of damage shows under its rules, on the right account, in the gauge, until it is repaired."""
    await fill(books, posting)
    auditor = Auditor(books.service)
    await books.owner.execute(f"ALTER TABLE entries DISABLE TRIGGER append_only; {damage}")
    found = await auditor.look()
    assert rules == {violation.rule for violation in found}
    assert {("USDT", 1), ("USDT", None)} >= {(violation.asset, violation.account_id) for violation in found}
    assert rules == set(gauges())


async def test_walk_reaches_every_account(books: Books, posting: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look by look the whole books are read; what was found stays shown until its account is whole again."""
    await fill(books, posting)
    monkeypatch.setattr(audit, "ACCOUNTS", 2)
    auditor = Auditor(books.service)
    last = await books.owner.fetchval("SELECT max(account_id) FROM accounts WHERE bucket = 'merchant'")
    await books.owner.execute("UPDATE balances SET version = version + 1 WHERE account_id = $1", last)
    expected = {
        Violation("balances_mirror", "XUSD", last),
        Violation("balance_is_last_entry", "XUSD", last),
    }
    assert [set(), set(), expected] == [await auditor.look() for _ in range(3)]
    await auditor.look()
    assert gauges() == {"balances_mirror": 1, "balance_is_last_entry": 1}
    await books.owner.execute("UPDATE balances SET version = version - 1 WHERE account_id = $1", last)
    for _ in range(4):
        await auditor.look()
    assert gauges() == {}


@pytest.mark.parametrize(
    ("damage", "rules"),
    [
        (
            "UPDATE balances SET balance = balance + 1 WHERE account_id = {suspense}",
            {"assets_sum_to_zero", "balances_mirror", "balance_is_last_entry"},
        ),
        # The asset as a whole still sums to zero.
        (
            "UPDATE balances SET balance = balance + CASE account_id WHEN {suspense} THEN 1 ELSE -1 END"
            " WHERE account_id IN (1, {suspense})",
            {"assets_sum_to_zero", "balances_mirror", "balance_is_last_entry"},
        ),
        (
            "UPDATE entries SET amount_minor = amount_minor + 1 WHERE account_id = {suspense} AND seq = 2",
            {"entries_chain", "events_sum_to_zero"},
        ),
        (
            "UPDATE balances SET version = version + 1 WHERE account_id = {suspense} + 1",
            {"balances_mirror", "balance_is_last_entry"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_damage_in_suspense_is_found(books: Books, posting: Make, damage: str, rules: set[str]) -> None:
    """The rules hold for each pair of buckets by itself."""
    await fill(books, posting)
    held = [posting(n + 1, event_type=EventType.SUSPENSE_RECEIVED, order="") for n in range(3)]
    await workflow.post(books.service, held)
    auditor = Auditor(books.service)
    assert set() == await auditor.look()
    suspense = await books.owner.fetchval("SELECT account_id FROM accounts WHERE bucket = 'suspense'")
    await books.owner.execute(f"ALTER TABLE entries DISABLE TRIGGER append_only; {damage.format(suspense=suspense)}")
    found = await auditor.look()
    assert suspense in {violation.account_id for violation in found}
    assert rules == {violation.rule for violation in found if violation.account_id in (None, suspense)}
