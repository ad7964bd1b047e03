"""Money that reached an address of ours: what was found, what it has paid, what is in suspense, what is done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from .orders import Order, OrderKey, Transfer, TransferKey


class SightingState(StrEnum):
    """Where a transfer stands that was found in a block."""

    SEEN = "SEEN"
    FINAL = "FINAL"
    GONE = "GONE"
    REVERSED = "REVERSED"


class SuspenseState(StrEnum):
    """What became of money in suspense."""

    OPEN = "OPEN"
    ALLOCATED = "ALLOCATED"
    RETURNED = "RETURNED"
    REVERSED = "REVERSED"


# (chain id, transaction, sender, recipient, base units): a transfer wherever a reorganisation puts it. The index of its
# log is counted in the block, so it may be another one there.
Footprint = tuple[int, str, str, str, int]
# A transfer's key and the hash of the block that it is in.
Spot = tuple[TransferKey, str]


@dataclass(frozen=True)
class Arrival:
    """A transfer to an address of ours, and of what."""

    chain: str
    asset: str
    recipient: str
    transfer: Transfer
    traceparent: str = ""

    @property
    def key(self) -> TransferKey:
        """(chain id, transaction hash, log index)"""
        return self.transfer.key

    @property
    def spot(self) -> Spot:
        """Where it is."""
        return (self.key, self.transfer.block_hash)

    @property
    def footprint(self) -> Footprint:
        """What stays the same in another block."""
        transfer = self.transfer
        return (transfer.chain_id, transfer.tx_hash, transfer.sender, self.recipient, transfer.amount_base)


@dataclass(frozen=True)
class Report:
    """The verifier's word on one transfer in one block; an older version tells nothing new."""

    id: UUID
    version: int
    state: SightingState
    arrival: Arrival
    head_number: int | None = None

    def onward(self, traceparent: str) -> Report:
        """The same, to be traced further under another span."""
        if traceparent == self.arrival.traceparent:
            return self
        return replace(self, arrival=replace(self.arrival, traceparent=traceparent))

    @property
    def confirmations(self) -> int | None:
        """Blocks on top of the transfer's, itself included, when it was looked at."""
        if not self.head_number:
            return None
        return max(0, self.head_number - self.arrival.transfer.block_number + 1)


@dataclass(frozen=True)
class Sighting:
    """What is recorded of a report, and the order that it concerns."""

    id: UUID
    version: int
    state: SightingState
    spot: Spot
    footprint: Footprint
    order_key: OrderKey | None


@dataclass(frozen=True)
class Place:
    """Whose address it is: one order's own, or a wallet with the orders that this transfer may be meant for.

    `merchant_id` is the first that registered the wallet. `too_many`: the candidates are not all.
    """

    merchant_id: str
    own: OrderKey | None = None
    candidates: tuple[OrderKey, ...] = ()
    too_many: bool = False


@dataclass(frozen=True)
class Payment:
    """What a transfer has paid, minor units; `reversed` when the chain took it back."""

    key: TransferKey
    order_key: OrderKey
    credited_minor: int
    footprint: Footprint
    block_hash: str
    reversed: bool = False

    @property
    def spot(self) -> Spot:
        """Where it was proved."""
        return (self.key, self.block_hash)


@dataclass(frozen=True)
class SuspenseItem:
    """(Part of) a final transfer that pays no order, or not yet; minor units.

    `pays`: it has paid its order and has no row of its own among the payments, because another part of it has.
    """

    id: UUID
    merchant_id: str
    order_id: str | None
    arrival: Arrival
    amount_minor: int
    reason: str
    state: SuspenseState = SuspenseState.OPEN
    pays: bool = False
    note: str = ""
    created_at: datetime | None = None
    resolved_at: datetime | None = None

    @property
    def order_key(self) -> OrderKey | None:
        """The order whose address it reached, or that it has paid."""
        return None if self.order_id is None else (self.order_id, self.merchant_id)

    @property
    def is_open(self) -> bool:
        """Nobody has decided."""
        return self.state is SuspenseState.OPEN

    @property
    def is_held(self) -> bool:
        """It waits for the rest of what its order asks for."""
        return self.is_open and self.reason == "underpaid" and self.order_id is not None


@dataclass(frozen=True)
class Credit:
    """A transfer, or what is in suspense of it, pays an order."""

    order: Order
    arrival: Arrival
    credited_minor: int
    event_id: UUID
    traceparent: str
    item_id: UUID | None = None


@dataclass(frozen=True)
class Hold:
    """Money comes into suspense."""

    item: SuspenseItem
    event_id: UUID


@dataclass(frozen=True)
class Move:
    """Money in suspense is found to concern an order: the item as it is now."""

    item: SuspenseItem


@dataclass(frozen=True)
class Release:
    """Money leaves suspense; `order_id` is the order that it pays, where that is of the same merchant."""

    item: SuspenseItem
    state: SuspenseState
    order_id: str | None
    event_id: UUID
    traceparent: str


@dataclass(frozen=True)
class Reversal:
    """The chain took back what had paid an order; `item_id` where that is in suspense and not among the payments."""

    order: Order
    key: TransferKey
    amount_minor: int
    event_id: UUID
    traceparent: str
    item_id: UUID | None = None
