"""Reads the money of orders into a tally, and writes what was decided on it, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import TypeVar

import structlog
from prometheus_client import Counter

from kit.database import AlreadyThere, Connection
from orders.domain import OPEN_STATES, Debt, Order, OrderKey, State, Tally
from orders.messages import credited_debt, held_debt, released_debt, reversed_debt
from orders.store import merchants, payments, suspense
from orders.store import orders as store

log = structlog.get_logger()

T = TypeVar("T")

# Two writers may meet in the same transfer; the loser looks again and finds it decided.
ATTEMPTS = 3

TRANSFERS = Counter("orders_transfers_total", "Final transfers decided on, by what became of them", ["became"])
REVERSED = Counter("orders_reversed_total", "Payments that the chain took back past finality: each is an incident")


async def load(
    connection: Connection, orders: Sequence[Order], tx_hashes: Iterable[str], senders: Iterable[str] = ()
) -> Tally:
    """What is known of the money of these orders, whose rows are locked, of these transactions, and of who sent it."""
    hashes = sorted(set(tx_hashes))
    # An order that is paid at a wallet holds nothing unless the operator said so.
    holding = [order.key for order in orders if order.received_minor]
    held = await suspense.held_for(connection, holding) if holding else []
    # What is held may be a part of a transfer that has paid another order: its row in payments is taken then.
    concerned = sorted({*hashes, *(item.arrival.transfer.tx_hash for item in held)})
    is_known, internal = await payments.known_among(connection, concerned, set(senders)) if concerned else (False, [])
    # The items first: who has waited for one that the operator was allocating then reads the payment that it became.
    items = await suspense.of_transactions(connection, hashes) if is_known else []
    found, counted_late = await payments.find(connection, concerned) if is_known else ([], set())
    items += held
    owners = {order.merchant_id for order in orders if order.deposit_index is not None}
    terms = await merchants.terms(connection, owners) if owners else {}
    return Tally(orders, terms=terms, payments=found, items=items, counted_late=counted_late, internal=internal)


async def write(
    connection: Connection,
    tally: Tally,
    first_look: timedelta,
    *,
    note: str = "",
    return_tx_hash: str | None = None,
) -> list[Debt]:
    """Writes what was done, with the debts to book it. Errors: Contended, UniqueViolationError: look again."""
    if tally.holds:
        await suspense.insert(connection, tally.holds)
    if tally.moves:
        await suspense.move(connection, tally.moves)
    if tally.releases:
        kept = [credit for credit in tally.credits if credit.item_id]
        await suspense.release(connection, tally.releases, kept, note=note, return_tx_hash=return_tx_hash)
    if paid := [reversal for reversal in tally.reversals if not reversal.item_id]:
        await payments.reverse(connection, paid)
    if allocated := [reversal for reversal in tally.reversals if reversal.item_id]:
        await suspense.reverse(connection, allocated)
    if tally.voided:
        await suspense.void(connection, tally.voided)
    fresh = [credit for credit in tally.credits if not credit.item_id]
    changes, debts = tally.changes(), await _debts(connection, tally)
    if changes or debts:
        await payments.book(connection, fresh, changes, debts, first_look)
    return debts


async def _debts(connection: Connection, tally: Tally) -> list[Debt]:
    debts = [held_debt(hold) for hold in tally.holds] + [credited_debt(credit) for credit in tally.credits]
    if tally.releases or tally.reversals:
        now = await payments.now(connection)
        debts += [released_debt(release, now) for release in tally.releases]
        debts += [reversed_debt(reversal, now) for reversal in tally.reversals]
    return debts


async def follow(connection: Connection, tally: Tally, confirming: AbstractSet[OrderKey]) -> None:
    """PENDING ↔ CONFIRMING, after claims or sightings were written; `confirming` are the orders that these wait for.

    Looked at are only those that may change: PENDING with something to wait for, CONFIRMING without.
    """
    states = {key: order.state for key, order in tally.orders.items() if order.state in OPEN_STATES}
    waits = {key: key in confirming for key in states}
    if changing := {key: waits[key] for key, state in states.items() if (state is State.CONFIRMING) != waits[key]}:
        await store.follow(connection, changing)


def tell(tally: Tally) -> None:
    """Counts what is committed, and raises the alarm for what the chain took back."""
    if tally.credits:
        TRANSFERS.labels("credited").inc(len(tally.credits))
    for hold in tally.holds:
        TRANSFERS.labels(hold.item.reason).inc()
    for reversal in tally.reversals:
        REVERSED.inc()
        log.error(
            "payment_reversed",
            merchant=reversal.order.merchant_id,
            order=reversal.order.id,
            tx_hash=reversal.key[1],
            log_index=reversal.key[2],
            amount_minor=reversal.amount_minor,
        )


async def attempt(work: Callable[[], Awaitable[T]]) -> T:
    """Does a transaction anew when another one was first in the same row."""
    for _ in range(ATTEMPTS - 1):
        try:
            return await work()
        except (AlreadyThere, payments.Contended):
            log.info("transfer_contended")
    return await work()
