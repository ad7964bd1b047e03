"""From what the verifier has found on the watched addresses to orders that are paid, with no claim at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from uuid import UUID

import structlog

from kit.database import Connection, Database
from orders.domain import (
    EXPIRED_GRACE,
    Debt,
    Footprint,
    OrderKey,
    Place,
    Report,
    Sighting,
    SightingState,
    Spot,
    Tally,
    confirms,
    decide,
    take_back,
)
from orders.doorbell import Doorbell
from orders.store import found as store
from orders.store import orders as orders_store
from orders.store.found import Recorded, Told
from orders.store.payments import Contended
from orders.workflow import tally as money

log = structlog.get_logger()

# One that fits is paid, two are ambiguous: the others are looked at only to rule them out.
MAX_CANDIDATES = 20


async def apply(
    database: Database, doorbell: Doorbell, reports: Sequence[Report], *, first_look: timedelta
) -> list[Report]:
    """Does what the reports mean, all in one commit, and rings for the ledger. Returns the newest of each.

    A claim on a transfer holds nothing up: what it can be paid by is plain without it, or in suspense until it decides.
    """
    newest = {report.id: report for report in sorted(reports, key=lambda report: report.version)}
    async with database.connection() as connection:
        told = await store.told(connection, list(newest.values()))
    news = [report for report in newest.values() if not _is_old(report, told[report.id])]

    async def work() -> tuple[_Finding, list[Debt]]:
        async with database.transaction() as connection:
            finding = await _open(connection, news)
            return finding, await _write(connection, finding, first_look)

    if news:
        finding, debts = await money.attempt(work)
        money.tell(finding.tally)
        doorbell.ring(debts)
    return list(newest.values())


def _is_old(report: Report, told: Told) -> bool:
    """Whether a report tells nothing that is not on disk: most transfers are claimed, and told to us a second time.

    No lock is needed to say so: only a later report of the same sighting can take it back.
    """
    if told.version is not None:
        return told.version >= report.version
    return report.state in (SightingState.SEEN, SightingState.FINAL) and told.is_paid


async def _open(connection: Connection, reports: Sequence[Report]) -> _Finding:
    places = await _places(connection, reports)
    hashes = sorted({report.arrival.transfer.tx_hash for report in reports})
    taken_back = {item.arrival.transfer.tx_hash for item in reports if item.state is SightingState.REVERSED}
    keys = await store.concerned(connection, [report.id for report in reports], sorted(taken_back))
    for place in places.values():
        keys |= {place.own} if place.own else set(place.candidates)
    # From here on nobody else changes these orders, and nobody else decides on these wallets.
    senders = {report.arrival.transfer.sender for report in reports}
    tally = await money.load(connection, await orders_store.lock_many(connection, keys), hashes, senders)
    if not _changeable(tally, taken_back) <= tally.orders.keys():
        raise Contended
    known = {sighting.id: sighting for sighting in await store.sightings(connection, hashes)}
    finding = _Finding(tally, places, known)
    finding.apply(reports)
    return finding


def _changeable(tally: Tally, taken_back: AbstractSet[str]) -> set[OrderKey]:
    """The orders that a transaction which was taken back may change by money that they have of it."""
    paid = {payment.order_key for payment in tally.payments.values() if payment.key[1] in taken_back}
    items = [item for item in tally.items.values() if item.arrival.transfer.tx_hash in taken_back]
    held = {item.order_key for item in items if item.is_held or item.pays}
    return paid | {key for key in held if key}


async def _places(connection: Connection, reports: Sequence[Report]) -> dict[UUID, Place]:
    """Whose the addresses are; those that are nobody's are missing."""
    addresses = sorted({report.arrival.recipient for report in reports})
    wallets = await store.lock_wallets(connection, addresses)
    own = await store.own_orders(connection, addresses)
    shared = [item for item in reports if item.arrival.recipient in wallets and item.arrival.recipient not in own]
    places = {
        report.id: Place(own[report.arrival.recipient][1], own=own[report.arrival.recipient])
        for report in reports
        if report.arrival.recipient in own
    }
    if shared:
        arrivals = [report.arrival for report in shared]
        found = await store.candidates(connection, arrivals, EXPIRED_GRACE, MAX_CANDIDATES)
        for report, keys in zip(shared, found, strict=True):
            merchant_id = wallets[report.arrival.recipient]
            places[report.id] = Place(merchant_id, candidates=tuple(sorted(keys)), too_many=len(keys) >= MAX_CANDIDATES)
    return places


async def _write(connection: Connection, finding: _Finding, first_look: timedelta) -> list[Debt]:
    if finding.recorded:
        await store.record(connection, finding.recorded)
    debts = await money.write(connection, finding.tally, first_look)
    await money.follow(connection, finding.tally, finding.confirming)
    return debts


class _Finding:
    """Reports that are applied together; `recorded` is what is to be written of them."""

    def __init__(self, tally: Tally, places: Mapping[UUID, Place], known: Mapping[UUID, Sighting]) -> None:
        self.tally = tally
        self.recorded: list[Recorded] = []
        self._places = places
        self._known = known
        self._standing = self._stand(known.values())

    @property
    def confirming(self) -> set[OrderKey]:
        """The orders that wait for one of these transfers."""
        return {
            (item.order_id, item.merchant_id)
            for item in self.recorded
            if item.confirming and item.order_id and item.merchant_id
        }

    def _stand(self, sightings: Iterable[Sighting]) -> dict[UUID | Spot, Footprint]:
        """What is final: what was found so, and what a claim has paid by that was not told as found since."""
        standing: dict[UUID | Spot, Footprint] = {
            payment.spot: payment.footprint for payment in self.tally.payments.values() if not payment.reversed
        }
        for item in sightings:
            standing.pop(item.spot, None)
            if item.state is SightingState.FINAL:
                standing[item.id] = item.footprint
        return standing

    def apply(self, reports: Sequence[Report]) -> None:
        """Decides on what is new in them, in the order of the chain."""
        news = [item for item in reports if item.id not in self._known or self._known[item.id].version < item.version]
        for report in news:
            self._standing.pop(report.id, None)
            self._standing.pop(report.arrival.spot, None)
            if report.state is SightingState.FINAL:
                self._standing[report.id] = report.arrival.footprint
        for report in sorted(news, key=_on_chain):
            self._apply(report)

    def _apply(self, report: Report) -> None:
        place = self._places.get(report.id)
        if place is None:
            log.error("money_for_nobody", report=str(report.id), recipient=report.arrival.recipient)
            self.recorded.append(Recorded(report, None, None, confirming=False))
            return
        before = self._known.get(report.id)
        concerned = place.own or (before.order_key if before else None)
        confirming = False
        if report.state is SightingState.FINAL:
            concerned = self._decide(report, place)
        elif report.state is SightingState.SEEN:
            awaited = confirms(self.tally, report.arrival, place)
            confirming = awaited is not None
            concerned = place.own or awaited
        elif report.state is SightingState.REVERSED:
            self._take_back(report)
        order_id, merchant_id = concerned or (None, place.merchant_id)
        self.recorded.append(Recorded(report, order_id, merchant_id, confirming))

    def _decide(self, report: Report, place: Place) -> OrderKey | None:
        if self.tally.is_moved(report.arrival):
            log.error("payment_moved", report=str(report.id), tx_hash=report.arrival.transfer.tx_hash)
        return decide(self.tally, report.arrival, place)

    def _take_back(self, report: Report) -> None:
        """Unless as many like it stand in other blocks as were decided on: then it has moved and came back."""
        footprint = report.arrival.footprint
        standing = sum(1 for other in self._standing.values() if other == footprint)
        if standing and standing >= self.tally.count_live(footprint):
            log.error("payment_moved", report=str(report.id), tx_hash=report.arrival.transfer.tx_hash)
            return
        take_back(self.tally, report.arrival.key, report.arrival.traceparent)


def _on_chain(report: Report) -> tuple[int, int]:
    transfer = report.arrival.transfer
    return (transfer.block_number, transfer.log_index)
