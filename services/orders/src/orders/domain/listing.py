"""The transfers to an order's address, as the order's owner sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from .found import SightingState, SuspenseItem, SuspenseState
from .orders import Transfer


class PaymentState(StrEnum):
    """Where one transfer stands for its order."""

    CONFIRMING = "CONFIRMING"
    CREDITED = "CREDITED"
    HELD = "HELD"
    RETURNED = "RETURNED"
    DROPPED = "DROPPED"
    REVERSED = "REVERSED"


@dataclass(frozen=True)
class Listed:
    """One transfer; `credited_minor` is what the order has got of it, `reason` why (part of) it is held."""

    transfer: Transfer
    asset: str
    credited_minor: int
    state: PaymentState
    reason: str = ""


_OF_ITEMS = {
    SuspenseState.OPEN: PaymentState.HELD,
    SuspenseState.RETURNED: PaymentState.RETURNED,
    SuspenseState.REVERSED: PaymentState.REVERSED,
}
_OF_SIGHTINGS = {
    SightingState.SEEN: PaymentState.CONFIRMING,
    SightingState.GONE: PaymentState.DROPPED,
    SightingState.REVERSED: PaymentState.REVERSED,
    # Less than a minor unit, or more than can be booked.
    SightingState.FINAL: PaymentState.HELD,
}


def list_transfers(
    asset: str,
    payments: Sequence[tuple[Transfer, int, bool]],
    items: Sequence[SuspenseItem],
    sightings: Sequence[tuple[Transfer, str, SightingState]],
) -> list[Listed]:
    """Everything that is known of an order's transfers, by block and log, each in each block once.

    `asset` is the order's; `payments` are (transfer, credited, reversed).
    """
    found: dict[tuple[object, str], Listed] = {}
    for transfer, credited, taken_back in payments:
        state = PaymentState.REVERSED if taken_back else PaymentState.CREDITED
        found[_place(transfer)] = Listed(transfer, asset, credited, state)
    for item in items:
        listed = _listed(item)
        paid = found.get(_place(item.arrival.transfer))
        if paid is None and listed is not None:
            found[_place(item.arrival.transfer)] = listed
        elif paid is not None and item.is_open:
            found[_place(paid.transfer)] = Listed(paid.transfer, asset, paid.credited_minor, paid.state, item.reason)
    decided = {_footprint(each.transfer) for each in found.values()}
    for transfer, moved, seen in sightings:
        # What was final and only moved to another block is listed where it was decided on.
        if seen is not SightingState.FINAL or _footprint(transfer) not in decided:
            found.setdefault(_place(transfer), Listed(transfer, moved, 0, _OF_SIGHTINGS[seen]))
    return sorted(found.values(), key=lambda each: (each.transfer.block_number, each.transfer.log_index))


def _listed(item: SuspenseItem) -> Listed | None:
    transfer, asset = item.arrival.transfer, item.arrival.asset
    if item.pays:
        state = PaymentState.REVERSED if item.state is SuspenseState.REVERSED else PaymentState.CREDITED
        return Listed(transfer, asset, item.amount_minor, state)
    if item.state is SuspenseState.ALLOCATED:
        return None  # it is a row of payments
    return Listed(transfer, asset, 0, _OF_ITEMS[item.state], item.reason if item.is_open else "")


def _footprint(transfer: Transfer) -> tuple[object, ...]:
    return (transfer.chain_id, transfer.tx_hash, transfer.sender, transfer.amount_base)


def _place(transfer: Transfer) -> tuple[object, str]:
    return (transfer.key, transfer.block_hash)
