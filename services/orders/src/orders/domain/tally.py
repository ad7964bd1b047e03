"""The money of some orders in memory: what each transfer has become, and what is to be written in one commit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from .found import Arrival, Credit, Footprint, Hold, Move, Payment, Release, Reversal, SuspenseItem, SuspenseState
from .orders import OPEN_STATES, Order, OrderKey, State, Terms, TransferKey, stable_id

# In suspense for want of a word on which order it pays: a claim is that word.
CLAIMABLE_REASONS = frozenset({"unattributed", "ambiguous", "late"})


class Tally:
    """Keeps the sums right; which order a transfer pays is decided elsewhere.

    `internal` are the senders that are an order's own address: a merchant that collects what customers have paid.
    `credits`, `holds`, `moves`, `releases`, `reversals` and `voided` are what was done; `used` are the transfers that
    no claim can pay with.
    """

    def __init__(
        self,
        orders: Iterable[Order],
        *,
        terms: Mapping[str, Terms] | None = None,
        payments: Iterable[Payment] = (),
        items: Iterable[SuspenseItem] = (),
        counted_late: Iterable[TransferKey] = (),
        internal: Iterable[str] = (),
    ) -> None:
        """`terms` by merchant; `counted_late` are transfers that are in their order's `late_minor` already.

        Of a transfer that is yet to be decided on, `items` are all that there ever were.
        """
        self.orders: dict[OrderKey, Order] = {}
        self.payments: dict[TransferKey, Payment] = {}
        self.items: dict[TransferKey, SuspenseItem] = {}
        self.used: set[TransferKey] = set()
        self.credits: list[Credit] = []
        self.holds: list[Hold] = []
        self.moves: list[Move] = []
        self.releases: list[Release] = []
        self.reversals: list[Reversal] = []
        self.voided: list[UUID] = []
        self._terms = terms or {}
        self._counted_late = frozenset(counted_late)
        self.internal = frozenset(internal)
        self._taken_back: dict[Footprint, tuple[str, str | None]] = {}
        self._live: dict[Footprint, dict[TransferKey, str]] = {}
        self._counts: dict[tuple[OrderKey, str], TransferKey] = {}
        for order in orders:
            self.orders.setdefault(order.key, order)
        self._before = dict(self.orders)
        self._items_of: dict[TransferKey, set[UUID]] = defaultdict(set)
        for item in items:
            self._keep_item(item)
        for payment in payments:
            self._keep_payment(payment)

    def terms(self, order: Order) -> Terms:
        """What its merchant takes for paid."""
        return self._terms.get(order.merchant_id, Terms())

    def changes(self) -> list[tuple[Order, Order]]:
        """(before, after) of the orders that are not as they were, by key."""
        return [
            (self._before[key], self.orders[key])
            for key in sorted(self.orders)
            if self.orders[key] != self._before[key]
        ]

    def is_decided(self, arrival: Arrival) -> bool:
        """Whether a transfer has paid or is in suspense, and the chain has not taken it back."""
        return arrival.key in self._live.get(arrival.footprint, {}) or self.is_moved(arrival)

    def is_moved(self, arrival: Arrival) -> bool:
        """Whether it was decided in another block: a reorganisation past finality has moved it, it is no new money."""
        blocks = self._live.get(arrival.footprint, {}).values()
        return any(block_hash != arrival.transfer.block_hash for block_hash in blocks)

    def count_live(self, footprint: Footprint) -> int:
        """How many transfers like this have paid or are in suspense."""
        return len(self._live.get(footprint, {}))

    def taken_back(self, arrival: Arrival) -> tuple[str, str | None] | None:
        """(merchant id, order id or None) whose money this transfer was before the chain took it back."""
        return self._taken_back.get(arrival.footprint)

    def concerned(self, key: TransferKey) -> OrderKey | None:
        """The order that a transfer has paid or is in suspense for."""
        payment, item = self.payments.get(key), self.items.get(key)
        if payment is not None and not payment.reversed:
            return payment.order_key
        return item.order_key if item else None

    def counted(self, order_key: OrderKey, tx_hash: str) -> TransferKey | None:
        """A transfer of this transaction that was credited to the order or is held for it."""
        return self._counts.get((order_key, tx_hash))

    def held(self, order_key: OrderKey) -> list[SuspenseItem]:
        """What waits for the rest of what an order asks for."""
        return [item for item in self.items.values() if item.is_held and item.order_key == order_key]

    def hold(self, merchant_id: str, order_id: str | None, arrival: Arrival, amount: int, reason: str) -> None:
        """Money comes into suspense."""
        # What the chain takes back and gives again is held again: the items of a transfer are counted.
        id = stable_id("item", *arrival.key, len(self._items_of[arrival.key]))
        item = SuspenseItem(id, merchant_id, order_id, arrival, amount, reason)
        self._keep_item(item)
        self.holds.append(Hold(item, stable_id("SUSPENSE_RECEIVED", id, merchant_id, order_id, amount)))
        self._note(item)

    def move(self, item: SuspenseItem, order: Order, reason: str) -> None:
        """Money in suspense is found to concern an order of its merchant."""
        self._forget(item)
        moved = replace(item, order_id=order.id, reason=reason)
        self._keep_item(moved)
        self.moves.append(Move(moved))
        self._note(moved)

    def credit(self, order_key: OrderKey, arrival: Arrival, amount: int) -> None:
        """A transfer pays an order, with all or a part of it."""
        self._keep_payment(self._payment(arrival, order_key, amount))
        self._add_credit(order_key, arrival, amount, arrival.traceparent, None)

    def credit_item(self, item: SuspenseItem, order_key: OrderKey, traceparent: str) -> None:
        """What is in suspense pays an order. A transfer of which another part has paid keeps its row in suspense."""
        pays = item.arrival.key in self.payments
        same = item.merchant_id == order_key[1]
        self._release(item, SuspenseState.ALLOCATED, order_key[0] if same else item.order_id, traceparent, pays=pays)
        if pays:
            self._counts[(order_key, item.arrival.transfer.tx_hash)] = item.arrival.key
        else:
            self._keep_payment(self._payment(item.arrival, order_key, item.amount_minor))
        self._add_credit(order_key, item.arrival, item.amount_minor, traceparent, item.id if pays else None)

    def close(self, order_key: OrderKey, tx_hash: str) -> None:
        """An open order is paid, by this transaction in the end."""
        self._change(order_key, state=State.PAID, tx_hash=tx_hash)

    def add_surplus(self, order_key: OrderKey, amount: int) -> None:
        """More has come than was asked for."""
        if amount:
            self._change(order_key, surplus_minor=self.orders[order_key].surplus_minor + amount)

    def release(self, item: SuspenseItem, state: SuspenseState, traceparent: str) -> None:
        """Money leaves suspense and pays nothing."""
        self._release(item, state, item.order_id, traceparent)

    def reverse_payment(self, key: TransferKey, traceparent: str) -> None:
        """The chain took back what is a row of payments."""
        payment = self.payments[key]
        self._keep_payment(replace(payment, reversed=True))
        self._reverse(payment.order_key, key, payment.credited_minor, traceparent, None)

    def reverse_item(self, item: SuspenseItem, traceparent: str) -> None:
        """The chain took back what has paid an order from suspense."""
        assert item.order_key is not None, "it has paid an order"
        self._keep_item(replace(item, state=SuspenseState.REVERSED))
        self._reverse(item.order_key, item.arrival.key, item.amount_minor, traceparent, item.id)

    def void(self, item: SuspenseItem) -> None:
        """The chain took back what had left suspense: as a payment, which is taken back by itself, or to its payer."""
        self.voided.append(item.id)
        self._keep_item(replace(item, state=SuspenseState.REVERSED))

    def _add_credit(
        self, order_key: OrderKey, arrival: Arrival, amount: int, traceparent: str, item_id: UUID | None
    ) -> None:
        order = self.orders[order_key]
        event_id = stable_id("ORDER_PAID", *arrival.key, item_id, *order_key, amount)
        self.credits.append(Credit(order, arrival, amount, event_id, traceparent, item_id))
        self._change(order_key, received_minor=order.received_minor + amount)

    def _reverse(
        self, order_key: OrderKey, key: TransferKey, amount: int, traceparent: str, item_id: UUID | None
    ) -> None:
        order = self.orders[order_key]
        self._counts.pop((order_key, key[1]), None)
        event_id = stable_id("PAYMENT_REVERSED", *key, item_id, *order_key, amount)
        self.reversals.append(Reversal(order, key, amount, event_id, traceparent, item_id))
        self._change(order_key, reversed_minor=order.reversed_minor + amount)

    def _release(
        self, item: SuspenseItem, state: SuspenseState, order_id: str | None, traceparent: str, *, pays: bool = False
    ) -> None:
        self._forget(item)
        self._keep_item(replace(item, state=state, order_id=order_id, pays=pays))
        event_id = stable_id("SUSPENSE_RELEASED", item.id, item.merchant_id, item.order_id, item.amount_minor)
        self.releases.append(Release(item, state, order_id, event_id, traceparent))

    def _payment(self, arrival: Arrival, order_key: OrderKey, amount: int) -> Payment:
        return Payment(arrival.key, order_key, amount, arrival.footprint, arrival.transfer.block_hash)

    def _keep_payment(self, payment: Payment) -> None:
        self.payments[payment.key] = payment
        self.used.add(payment.key)
        if payment.reversed:
            self._take_back(payment.footprint, payment.key, (payment.order_key[1], payment.order_key[0]))
        else:
            self._live.setdefault(payment.footprint, {})[payment.key] = payment.block_hash
            self._counts[(payment.order_key, payment.key[1])] = payment.key

    def _keep_item(self, item: SuspenseItem) -> None:
        arrival = item.arrival
        self._items_of[arrival.key].add(item.id)
        if item.state is SuspenseState.REVERSED:
            self.items.pop(arrival.key, None)
            self._take_back(arrival.footprint, arrival.key, (item.merchant_id, item.order_id))
        else:
            self.items[arrival.key] = item
            self._live.setdefault(arrival.footprint, {})[arrival.key] = arrival.transfer.block_hash
        if item.is_held and item.order_key:
            self._counts[(item.order_key, arrival.transfer.tx_hash)] = arrival.key
        if not (item.is_open and item.reason in CLAIMABLE_REASONS):
            self.used.add(arrival.key)

    def _take_back(self, footprint: Footprint, key: TransferKey, owner: tuple[str, str | None]) -> None:
        """Nothing of the transfer stands any more, if neither a payment nor an item does."""
        self._taken_back[footprint] = owner
        payment = self.payments.get(key)
        if key not in self.items and (payment is None or payment.reversed):
            self._live.get(footprint, {}).pop(key, None)

    def _note(self, item: SuspenseItem) -> None:
        """The facts beside an order's state that money in suspense is."""
        if item.order_key is None:
            return
        if item.is_held:
            self._receive(item.order_key, item.amount_minor)
        elif item.reason == "late" and item.arrival.key not in self._counted_late:
            order = self.orders[item.order_key]
            self._change(item.order_key, late_minor=order.late_minor + item.amount_minor)

    def _forget(self, item: SuspenseItem) -> None:
        """It is held for its order no more."""
        if item.is_held and item.order_key:
            self._counts.pop((item.order_key, item.arrival.transfer.tx_hash), None)
            self._receive(item.order_key, -item.amount_minor)

    def _receive(self, order_key: OrderKey, amount: int) -> None:
        order = self.orders[order_key]
        if order.state in OPEN_STATES or order.state is State.EXPIRED:
            self._change(order_key, received_minor=order.received_minor + amount)

    def _change(self, order_key: OrderKey, **fields: Any) -> None:
        self.orders[order_key] = replace(self.orders[order_key], **fields)
