"""Looks through one chain, pass by pass, and stores what it finds with how far it came."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

import structlog

from kit.database import Database
from verifier import workflow
from verifier.domain import ChainFailure, Heads, LogRange, Transfer, Untrusted
from verifier.jsonrpc import RangeTooLarge
from verifier.metrics import DEEP_REORGS, RPC_ERRORS, SCAN_SECONDS, SCANNED, SIGHTINGS, SWEEP_FOUND, WATCHED
from verifier.store import unavailable
from verifier.watch import ranges
from verifier.watch.chain import WatchedChain
from verifier.watch.decisions import Seen, State, dated, gone, place_of, transfers_in
from verifier.watch.pasts import Pasts
from verifier.watch.progress import Progress
from verifier.watch.ranges import Bisection, Pin, Position
from verifier.watch.reader import Reader, Replaced
from verifier.watch.settler import Awaited, Settler
from verifier.watch.store import cursors, sightings, watches
from verifier.watch.store.sightings import Change
from verifier.watch.store.watches import Past

log = structlog.get_logger()

# Ranges of one step of a pass: so that a long past holds up neither the head nor the proofs.
RANGES_PER_STEP = 20
PASTS_PER_RANGE = 500
# The second look comes so many blocks later, and not for every block that the first one adds.
SWEEP_BEHIND_BLOCKS = 12
SWEEP_SECONDS = 5.0


@dataclass(slots=True)
class Lead:
    """What the leader of a term knows; nothing else writes it, so it is what the database holds."""

    term: int
    position: Position | None
    pins: list[Pin]
    watched: dict[str, int]
    ended_at: int = 0
    saved: tuple[object, ...] = ()


class Scanner:
    """One at a time leads on a chain: the store refuses what any other writes (`Fenced`)."""

    def __init__(
        self,
        chain: WatchedChain,
        database: Database,
        proofs: workflow.Store,
        awaited: Awaited,
        ring: Callable[[Collection[UUID]], None],
    ) -> None:
        """`awaited` is what claims are about to be decided on, `ring` takes the ids of sightings that have changed, for
        whoever wants to tell of them."""
        self._chain = chain
        self._name = chain.chain.name
        self._chain_id = chain.chain.chain_id
        self._reader = Reader(chain)
        self._database = database
        self._awaited = awaited
        self._ring = ring
        self._settler = Settler(chain, database, proofs, awaited, self._tell)
        self._pasts = Pasts(self._chain_id, database)
        self._sweep_at = 0.0
        self._progress = Progress(chain.chain, database)
        self._lead = Lead(0, None, [], {})
        self._failing: dict[str, str] = {}
        # When a pass last got at the chain, or there was nothing to look for: the other steps may have nothing to read.
        self.looked_at = 0.0

    async def begin(self) -> None:
        """Takes the lead, in a new term. Errors: StoreUnavailable."""
        with unavailable():
            async with self._database.transaction() as connection:
                term, position = await cursors.begin_term(connection, self._chain_id)
                pins = await cursors.pins(connection, self._chain_id)
                watched = await watches.watched(connection, self._chain_id)
        self._lead = Lead(term, position, pins, watched)
        WATCHED.labels(self._name).set(len(self._lead.watched))

    async def look(self) -> bool:
        """One pass; True when there is more to do at once. Reads nothing of the chain while nothing is watched.

        Errors: ChainFailure when the heads are not to be had or not believed, StoreUnavailable, Fenced.
        """
        if not self._lead.watched and not await self._pasts.next(1):
            self.looked_at = time.monotonic()
            return False
        self._progress.begin()
        with SCAN_SECONDS.labels(self._name).time():
            heads = await self._chain.heads()
            position = self._lead.position
            if position is not None and heads.finalized < position.number:
                RPC_ERRORS.labels(self._name, Untrusted.kind).inc()
                raise Untrusted(f"final block {heads.finalized} is below {position.number}, which was looked through")
            more = False
            # Nobody missed what went by while nothing was watched.
            if (position is None or not self._lead.watched) and not await self._attempt(self._place, heads):
                return False
            for step in (self._catch_up, self._follow, self._settle, self._sweep, self._end):
                more = await self._attempt(step, heads) or more
        return more

    async def _attempt(self, step: Callable[[Heads], Awaitable[bool]], heads: Heads) -> bool:
        """A step that the chain does not let happen now holds up no other."""
        name = getattr(step, "__name__", "fall_back").strip("_")
        try:
            more = await step(heads)
        except Replaced as replaced:
            return await self._attempt(partial(self._fall_back, replaced.operator), heads)
        except (ChainFailure, TimeoutError) as failure:
            if self._failing.get(name) != str(failure):
                log.warning("scan_failed", chain=self._name, step=name, error=str(failure))
            self._failing[name] = str(failure)
            return False
        self._failing.pop(name, None)
        if more or name == "follow":
            self.looked_at = time.monotonic()
        return more

    @property
    def _position(self) -> Position:
        assert self._lead.position is not None, "the cursor is placed first"
        return self._lead.position

    async def _place(self, heads: Heads) -> bool:
        """Puts the cursor on the newest final block: what was before it is each address' own past."""
        old = self._lead.position
        if old is not None and old.number == heads.finalized:
            return True
        below = {old.number} if old else ranges.footing(heads.finalized)
        headers = await self._reader.headers({heads.finalized, *below})
        if old is not None and old.number in headers and headers[old.number].hash != old.hash:
            raise Replaced("")
        header = headers.get(heads.finalized)
        if header is None or (old is not None and old.number not in headers):
            raise Untrusted("a final block is not known")
        number = header.number
        position = Position(number + 1, number, header.hash, number, number, header.timestamp)
        fresh = [Pin(height, headers[height].hash, "") for height in sorted(headers) if old is None or height == number]
        pins = [*self._lead.pins, *fresh]
        surplus = ranges.surplus_pins(pins, position)
        async with cursors.leading(self._database, self._chain_id, self._lead.term) as connection:
            await cursors.move(connection, self._chain_id, old, position, heads)
            for pin in fresh:
                await cursors.add_pin(connection, self._chain_id, pin, surplus)
        self._lead.position, self._lead.pins = position, [pin for pin in pins if pin not in surplus]
        return True

    async def _follow(self, heads: Heads) -> bool:
        """Looks through what is above the cursor, up to the head; the blocks that are not final again in each pass."""
        reached = cursor = self._position.number
        whole, end = True, None
        for _ in range(RANGES_PER_STEP):
            if reached >= heads.head.number:
                break
            recipients = self._recipients()
            last = min(heads.head.number, reached + self._reader.size(recipients).blocks)
            try:
                found = await self._read(reached + 1, last, recipients, heads)
            except RangeTooLarge:
                if reached < heads.finalized:
                    raise
                # One block, which is read when it is final: from its receipts, and not again in each pass until then.
                reached, whole = reached + 1, False
                continue
            except Untrusted:
                # Somebody answered, who may be behind the head that is believed: what was read before counts.
                self.looked_at = time.monotonic()
                if end is not None:
                    await self._progress.note(self._lead.term, heads, highest=self._chain.highest, end=end)
                raise
            try:
                await self._take(found, reached + 1, heads, whole=whole)
            except Untrusted:
                self._reader.distrust(found.operator)
                raise
            self.looked_at = time.monotonic()
            reached, end = found.end.number, found.end if whole else end
        if reached >= heads.head.number:
            if whole:
                await self._progress.note(self._lead.term, heads, highest=self._chain.highest)
            return False
        # Blocks that are not final are begun with anew: at once it would be with the same ones, for ever.
        return self._position.number > cursor

    async def _read(self, first: int, last: int, recipients: Sequence[str] | None, heads: Heads) -> LogRange:
        """A range; only its final part from an endpoint that is not as far as the head is said to be."""
        try:
            return await self._reader.logs(first, last, recipients, self._position)
        except Untrusted:
            if not first <= heads.finalized < last:
                raise
            return await self._reader.logs(first, heads.finalized, recipients, self._position)

    async def _take(self, found: LogRange, first: int, heads: Heads, *, whole: bool) -> None:
        """Stores what a range shows and moves the cursor over the final blocks in it, in one commit; `whole`: no block
        between was passed over."""
        old, last = self._position, found.end.number
        fresh, missing = await self._compare(found, first)
        final_end = min(heads.finalized, last)
        moves = final_end > old.number
        heights = {each.block_number for each in fresh} | {each.block_number for each in missing}
        headers = await self._reader.headers(heights | {final_end} if moves else heights)
        end = headers.get(final_end) if moves else None
        if moves and (end is None or (final_end == last and end.hash != found.end.hash)):
            raise Untrusted(f"the end of the range, {last}, is not the block that others know")
        fresh = dated(fresh, headers)
        taken_back = gone(missing, headers)
        if len(taken_back) < len(missing):
            log.warning("logs_left_out", chain=self._name, operator=found.operator, logs=len(missing) - len(taken_back))
        new = ranges.advanced(old, end, last if whole else old.scanned)
        saved = (new, heads.head.number, heads.finalized)
        if not fresh and not taken_back and saved == self._lead.saved:
            return
        pins = [*self._lead.pins, Pin(end.number, end.hash, found.operator)] if end is not None else self._lead.pins
        surplus = ranges.surplus_pins(pins, new)
        async with cursors.leading(self._database, self._chain_id, self._lead.term) as connection:
            await cursors.move(connection, self._chain_id, old, new, heads)
            if end is not None:
                await cursors.add_pin(connection, self._chain_id, pins[-1], surplus)
            changes = await sightings.add(connection, self._chain_id, fresh)
            changes += await sightings.take_back(connection, taken_back)
        self._lead.position, self._lead.saved = new, saved
        self._lead.pins = [pin for pin in pins if pin not in surplus]
        SCANNED.labels(self._name).set(new.scanned)
        self._tell(changes)

    async def _compare(self, found: LogRange, first: int) -> tuple[list[Transfer], list[Seen]]:
        """What is shown and not stored, and what is SEEN and not shown."""
        transfers = transfers_in(self._chain_id, found.logs, self._reader.contracts, self._lead.watched)
        places = {place_of(transfer) for transfer in transfers}
        with unavailable():
            async with self._database.connection() as connection:
                known = await sightings.known(connection, self._chain_id, places) if places else set()
                seen = await sightings.seen(connection, self._chain_id, first, found.end.number)
        fresh = [transfer for transfer in transfers if place_of(transfer) not in known]
        return fresh, [each for each in seen if each.place not in places]

    async def _settle(self, heads: Heads) -> bool:
        """Proves what is final. Only up to the cursor: what changes above it is noticed as a reorganisation there."""
        return await self._settler.settle(self._lead.term, self._position.number)

    async def _catch_up(self, heads: Heads) -> bool:
        """Looks through the past of new addresses up to the cursor; from then on they are followed."""
        for _ in range(RANGES_PER_STEP):
            pasts = await self._pasts.next(PASTS_PER_RANGE)
            if not pasts:
                return False
            first = [past for past in pasts if past.looked == pasts[0].looked]
            try:
                await (self._find_start(first) if first[0].looked is None else self._look_back(pasts))
            except ChainFailure as failure:
                if not isinstance(failure, Replaced | RangeTooLarge):
                    self._pasts.put_back(first)
                raise
        return True

    async def _find_start(self, pasts: Sequence[Past]) -> None:
        """Finds the last block before the earliest of these times by the times of blocks."""
        earliest = min(past.from_time for past in pasts)
        before = int(earliest.timestamp()) - ranges.CLOCK_TOLERANCE_SECONDS
        end = self._position.number
        search = Bisection.between(await self._reader.headers(ranges.heights_back(end)), before, end)
        while not search.found:
            narrowed = search.narrowed(await self._reader.headers(search.probes()), before)
            if narrowed is None:
                raise Untrusted("a block below the cursor is not known")
            search = narrowed
        async with cursors.leading(self._database, self._chain_id, self._lead.term) as connection:
            await watches.start_at(connection, self._chain_id, search.low, earliest)

    async def _look_back(self, pasts: Sequence[Past]) -> None:
        cursor = self._position.number
        looked = min(past.looked or 0 for past in pasts)
        last = min(cursor, looked + self._reader.size([]).blocks)
        members = [past for past in pasts if (past.looked or 0) < last]
        if members:
            last = await self._look_twice(looked + 1, last, {past.address: past.looked or 0 for past in members})
        async with cursors.leading(self._database, self._chain_id, self._lead.term) as connection:
            await watches.looked_back(connection, self._chain_id, members, last)
            caught_up = await watches.caught_up(connection, self._chain_id, cursor)
        self._lead.watched.update(caught_up)
        WATCHED.labels(self._name).set(len(self._lead.watched))

    async def _look_twice(self, first: int, last: int, begins: Mapping[str, int]) -> int:
        """Up to where two looks went through the past of these addresses: no sweep comes by there again.

        What the first shows is stored before the second, which may have to wait for an operator.
        """
        addresses = sorted(begins)
        once = await self._reader.logs(first, last, addresses, self._position)
        await self._add_past(once, begins)
        twice = await self._reader.second_look(first, once.end.number, addresses, self._position, once.operator)
        if twice.logs != once.logs:
            await self._add_past(twice, begins)
        return twice.end.number

    async def _add_past(self, found: LogRange, begins: Mapping[str, int]) -> None:
        shown = transfers_in(self._chain_id, found.logs, self._reader.contracts, begins)
        if not shown:
            return
        fresh = await self._reader.dated(shown, found.operator)
        async with cursors.leading(self._database, self._chain_id, self._lead.term) as connection:
            changes = await sightings.add(connection, self._chain_id, fresh)
        self._tell(changes)

    async def _sweep(self, heads: Heads) -> bool:
        """Looks a second time, by another operator where there is one; what the first left out is stored as well."""
        old, recipients = self._position, self._recipients()
        size = self._reader.size(recipients)
        plan = ranges.next_sweep(old, self._lead.pins, size, SWEEP_BEHIND_BLOCKS)
        if plan is None or (time.monotonic() < self._sweep_at and plan.last - plan.first + 1 < size.blocks):
            return False
        self._sweep_at = time.monotonic() + SWEEP_SECONDS
        found = await self._reader.second_look(plan.first, plan.last, recipients, old, plan.not_by)
        fresh, _ = await self._compare(found, plan.first)
        fresh = await self._reader.dated(fresh, found.operator)
        new = replace(old, swept=found.end.number, swept_time=max(old.swept_time, found.end.timestamp))
        async with cursors.leading(self._database, self._chain_id, self._lead.term) as connection:
            await cursors.move(connection, self._chain_id, old, new, heads)
            changes = await sightings.add(connection, self._chain_id, fresh)
        self._lead.position = new
        if changes:
            SWEEP_FOUND.labels(self._name).inc(len(changes))
            log.error("sweep_found", chain=self._name, first_shown_by=plan.not_by, transfers=len(changes))
        self._tell(changes)
        return found.end.number < plan.last or plan.last - plan.first + 1 >= size.blocks

    async def _end(self, heads: Heads) -> bool:
        """Lets addresses go whose time is over, once all of it was looked through twice."""
        position = self._position
        if position.swept_time == self._lead.ended_at:
            return False
        async with cursors.leading(self._database, self._chain_id, self._lead.term) as connection:
            ended = await watches.end(connection, self._chain_id, position.number, position.swept_time)
        for address in ended:
            self._lead.watched.pop(address, None)
        WATCHED.labels(self._name).set(len(self._lead.watched))
        self._lead.ended_at = position.swept_time
        return False

    async def _fall_back(self, told_by: str, heads: Heads) -> bool:
        """Walks back to a final block that still stands. What was FINAL above it has to be proved again."""
        old = self._position
        headers = await self._reader.headers({old.number, *(pin.number for pin in self._lead.pins)})
        now = headers.get(old.number)
        if now is None or now.hash == old.hash:
            if told_by:
                self._reader.distrust(told_by)
            raise Untrusted(f"an endpoint tells another block at height {old.number} than the others")
        pin = ranges.standing_pin(self._lead.pins, headers)
        if pin is None:
            DEEP_REORGS.labels(self._name).inc()
            raise Untrusted("none of the final blocks that were looked through stands: this is another chain")
        new = ranges.fallen_back(old, pin)
        async with cursors.leading(self._database, self._chain_id, self._lead.term) as connection:
            await cursors.move(connection, self._chain_id, old, new, heads)
            await cursors.drop_pins_above(connection, self._chain_id, pin.number)
            await watches.fall_back(connection, self._chain_id, pin.number)
            doubted = await sightings.doubt_above(connection, self._chain_id, pin.number)
        self._lead.position = new
        self._lead.pins = [each for each in self._lead.pins if each.number <= pin.number]
        DEEP_REORGS.labels(self._name).inc()
        log.error(
            "reorganised_beyond_finality", chain=self._name, cursor=old.number, stands=pin.number, doubted=doubted
        )
        return True

    def _recipients(self) -> list[str] | None:
        return sorted(self._lead.watched) if ranges.is_filtered(len(self._lead.watched)) else None

    def _tell(self, changes: Sequence[Change], *, told: bool = False) -> None:
        """Counts changes and rings for those that no verdict tells, nor this pass as FINAL a moment later.

        The others are handed out if nobody confirms them.
        """
        for change in changes:
            SIGHTINGS.labels(self._name, change.state.value.lower()).inc()
        if changes and not told:
            awaited, final = self._awaited(), self._position.number
            self._ring(
                [
                    each.id
                    for each in changes
                    if each.state is not State.SEEN or (each.block_number > final and each.proof_key not in awaited)
                ]
            )
