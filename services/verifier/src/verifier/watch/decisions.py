"""What became of the transfers to watched addresses. Pure: nothing here waits, reads a clock or talks to anyone."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from uuid import UUID

from verifier.domain import (
    Final,
    FoundLog,
    Header,
    Outcome,
    Rejected,
    Transfer,
    Untrusted,
    Waiting,
    WaitReason,
    movement,
)

# A node's index of transactions may lag behind its blocks after a reorganisation; REVERSED is not said in haste.
DOUBT_SECONDS = 10.0

Place = tuple[str, int, str, str, str, str, int]
"""Transaction hash, log index and block hash; contract, sender, recipient and amount: one transfer in one block.

What moved is a part of it: logs are one operator's word, and what is proved in that place may be something else.
"""


class State(StrEnum):
    """Where a sighting stands; see the contract."""

    SEEN = "SEEN"
    FINAL = "FINAL"
    GONE = "GONE"
    REVERSED = "REVERSED"


@dataclass(frozen=True, slots=True)
class Seen:
    """A sighting that is stored as SEEN."""

    id: UUID
    place: Place
    block_number: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """A stored sighting that is to be settled. `doubted_seconds` is None unless a FINAL one is in doubt.

    `looks` are those that settled nothing; `is_proved`: exactly this is on disk as a proof, in this block.
    """

    id: UUID
    state: State
    transfer: Transfer
    known_index: int
    doubted_seconds: float | None = None
    looks: int = 0
    is_proved: bool = False

    @property
    def place(self) -> Place:
        return place_of(self.transfer)


@dataclass(frozen=True, slots=True)
class Report:
    """A transfer and where it stands, for those who watch its recipient. Its log index is the one it is known by."""

    id: UUID
    version: int
    state: State
    transfer: Transfer
    head_number: int
    finalized_number: int


@dataclass(slots=True)
class Settlement:
    """What is to be written of some sightings, by id: `final` are transfers with the index they are known by, `moved`
    have passed their payment on to another block, `stands` are in doubt no more, `open` have to be looked at again,
    `left` are left to a claim for a moment, `conflicts` contradict what is FINAL, `made_up` are not in their blocks."""

    final: list[tuple[Transfer, int]] = field(default_factory=list)
    gone: list[UUID] = field(default_factory=list)
    moved: list[UUID] = field(default_factory=list)
    reversed: list[UUID] = field(default_factory=list)
    stands: list[UUID] = field(default_factory=list)
    open: list[UUID] = field(default_factory=list)
    left: list[UUID] = field(default_factory=list)
    conflicts: list[Place] = field(default_factory=list)
    made_up: list[Place] = field(default_factory=list)

    def add(self, other: Settlement) -> None:
        """Takes over what another one holds."""
        for name in ("final", "gone", "moved", "reversed", "stands", "open", "left", "conflicts", "made_up"):
            getattr(self, name).extend(getattr(other, name))


def place_of(transfer: Transfer) -> Place:
    """Where the transfer is on the chain, and what it moves."""
    where = (transfer.tx_hash, transfer.log_index, transfer.block_hash)
    return (*where, transfer.contract, transfer.sender, transfer.recipient, transfer.amount_base)


def transfers_in(
    chain_id: int, logs: Iterable[FoundLog], contracts: Container[str], watched: Mapping[str, int]
) -> list[Transfer]:
    """The logs that move a configured token to a watched address, each in a block above the one that it begins after.

    The time of their blocks is not known yet: 0.
    """
    found = []
    for each in logs:
        moved = movement(each.log)
        if moved is None or moved.contract not in contracts or not moved.amount_base:
            continue
        if moved.recipient not in watched or each.block_number <= watched[moved.recipient]:
            continue
        found.append(
            Transfer(
                chain_id=chain_id,
                tx_hash=each.tx_hash,
                log_index=moved.log_index,
                block_number=each.block_number,
                block_hash=each.block_hash,
                block_time=0,
                contract=moved.contract,
                sender=moved.sender,
                recipient=moved.recipient,
                amount_base=moved.amount_base,
            )
        )
    return found


def dated(transfers: Iterable[Transfer], headers: Mapping[int, Header]) -> list[Transfer]:
    """The transfers with the time of their blocks. Errors: Untrusted when a block is not the canonical one."""
    complete = []
    for transfer in transfers:
        header = headers.get(transfer.block_number)
        if header is None or header.hash != transfer.block_hash:
            raise Untrusted(f"a log is of another block than the canonical one at height {transfer.block_number}")
        complete.append(replace(transfer, block_time=header.timestamp))
    return complete


def gone(missing: Iterable[Seen], headers: Mapping[int, Header]) -> list[UUID]:
    """Those that the chain has taken back: another block is at their height.

    That logs leave one out says nothing while its block is canonical: what is in a block does not change.
    """
    return [
        each.id for each in missing if each.block_number in headers and headers[each.block_number].hash != each.place[2]
    ]


def holds(sightings: Sequence[Sighting], proof: Sequence[Transfer], headers: Mapping[int, Header]) -> bool:
    """Whether a proof that was made before is of all these sightings, and its block canonical still."""
    proved = {place_of(transfer) for transfer in proof}
    blocks = {(transfer.block_number, transfer.block_hash) for transfer in proof}
    canonical = {(header.number, header.hash) for header in headers.values()}
    return blocks <= canonical and all(each.place in proved for each in sightings)


def settle(
    sightings: Sequence[Sighting],
    outcome: Outcome,
    standing: Sequence[Transfer],
    headers: Mapping[int, Header],
    contents: Mapping[str, Container[str]],
    reach: int,
) -> Settlement:
    """Where the sightings of one transaction, contract and recipient stand now.

    `sightings` are those that are SEEN or FINAL; `outcome` is what the chain says of the claim that they make,
    `standing` what was first proved of it, `headers` the canonical blocks at the sightings' heights, `contents` what
    transactions are in blocks, by the block's hash, as far as it was asked for and is known. Blocks above `reach` are
    not settled: a change of the chain above the cursor would not be noticed as one beyond finality.
    """
    if isinstance(outcome, Final) and outcome.transfers[0].block_number <= reach:
        return _proved(sightings, outcome.transfers, standing)
    settlement = Settlement()
    for each in sightings:
        if each.state is State.SEEN:
            _settle_seen(each, outcome, headers, contents, reach, settlement)
        elif each.doubted_seconds is not None:
            _settle_doubted(each, outcome, headers, reach, settlement)
    return settlement


def in_question(sightings: Iterable[Sighting], outcome: Outcome, reach: int) -> set[str]:
    """The blocks that have to be looked into: of what is SEEN and, though final, neither proved nor refuted."""
    if not isinstance(outcome, Waiting):
        return set()
    return {
        each.transfer.block_hash
        for each in sightings
        if each.state is State.SEEN and each.transfer.block_number <= reach
    }


def _settle_seen(
    each: Sighting,
    outcome: Outcome,
    headers: Mapping[int, Header],
    contents: Mapping[str, Container[str]],
    reach: int,
    settlement: Settlement,
) -> None:
    header = headers.get(each.transfer.block_number)
    replaced = header is not None and header.hash != each.transfer.block_hash
    block = contents.get(each.transfer.block_hash)
    made_up = block is not None and each.transfer.tx_hash not in block
    if each.transfer.block_number <= reach and (replaced or made_up or isinstance(outcome, Rejected)):
        settlement.gone.append(each.id)
        settlement.made_up.extend([each.place] if made_up else [])
    else:
        settlement.open.append(each.id)


def _settle_doubted(
    each: Sighting, outcome: Outcome, headers: Mapping[int, Header], reach: int, settlement: Settlement
) -> None:
    header = headers.get(each.transfer.block_number)
    if header is None or each.transfer.block_number > reach:
        settlement.open.append(each.id)
    elif header.hash == each.transfer.block_hash:
        settlement.stands.append(each.id)
    elif isinstance(outcome, Rejected) or (_is_nowhere(outcome) and (each.doubted_seconds or 0.0) >= DOUBT_SECONDS):
        settlement.reversed.append(each.id)
    else:
        settlement.open.append(each.id)


def _is_nowhere(outcome: Outcome) -> bool:
    return isinstance(outcome, Waiting) and outcome.reason is WaitReason.NOT_FOUND


def _proved(sightings: Sequence[Sighting], transfers: Sequence[Transfer], standing: Sequence[Transfer]) -> Settlement:
    """The transaction is final in one block: what was seen of it elsewhere is not."""
    settlement = Settlement()
    at = {each.place: each for each in sightings}
    places = {place_of(transfer) for transfer in transfers}
    firm = {
        each.known_index
        for each in sightings
        if each.state is State.FINAL and each.doubted_seconds is None and each.place not in places
    }
    names = known_indexes(transfers, standing)
    for transfer in transfers:
        place = place_of(transfer)
        name = names.get(transfer.log_index)
        held = at.get(place)
        if held is not None and held.state is State.FINAL:
            if held.doubted_seconds is not None:
                settlement.stands.append(held.id)
        elif name is None or name in firm:
            settlement.conflicts.append(place)
            settlement.open.extend([held.id] if held is not None else [])
        else:
            settlement.final.append((transfer, name))
    passed_on = {name for _, name in settlement.final}
    for each in sightings:
        if each.place in places:
            continue
        if each.state is State.SEEN:
            settlement.gone.append(each.id)
        elif each.doubted_seconds is not None:
            (settlement.moved if each.known_index in passed_on else settlement.reversed).append(each.id)
    return settlement


def known_indexes(transfers: Sequence[Transfer], standing: Sequence[Transfer]) -> dict[int, int]:
    """The log index that each transfer is known by, by its index now: that of the transfer first proved for the same
    money, in order, else its own where that one is free."""
    rest = sorted(standing, key=lambda each: each.log_index)
    names: dict[int, int] = {}
    strangers = []
    for transfer in sorted(transfers, key=lambda each: each.log_index):
        money = (transfer.sender, transfer.amount_base)
        match = next((each for each in rest if (each.sender, each.amount_base) == money), None)
        if match is None:
            strangers.append(transfer.log_index)
        else:
            rest.remove(match)
            names[transfer.log_index] = match.log_index
    taken: Collection[int] = set(names.values())
    return names | {index: index for index in strangers if index not in taken}
