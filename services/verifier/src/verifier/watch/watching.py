"""When an address is watched. Pure: nothing here waits, reads a clock or talks to anyone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class WatchState(StrEnum):
    """CATCHING_UP: a part of its past is not looked through. ENDED: its time is over."""

    CATCHING_UP = "CATCHING_UP"
    WATCHED = "WATCHED"
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True)
class Watch:
    """An address that may receive after the block `from_block` (0: from `from_time` on), until `until` (None: ever)."""

    chain_id: int
    address: str
    from_block: int
    from_time: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Span:
    """An address, and a time in which it may have received, both ends included."""

    chain_id: int
    address: str
    from_time: datetime
    until: datetime


class SpanState(StrEnum):
    """Whether more may come to light of a span; see the contract."""

    DONE = "DONE"
    NOT_WATCHED = "NOT_WATCHED"
    CHAIN_BEHIND = "CHAIN_BEHIND"
    ADDRESS_BEHIND = "ADDRESS_BEHIND"


def joined(old: Watch, new: Watch) -> Watch:
    """What is watched when both are asked for: the earliest start and the latest end count."""
    from_block = old.from_block
    if restarts(old, new):
        # A height and a time cannot be compared: the earlier time decides, before which nothing matters to either.
        from_block = new.from_block if old.from_block else 0
    until = max(old.until, new.until) if old.until is not None and new.until is not None else None
    return replace(old, from_block=from_block, from_time=min(old.from_time, new.from_time), until=until)


def restarts(old: Watch, new: Watch) -> bool:
    """Whether the new one begins before the old one."""
    if old.from_block and new.from_block:
        return new.from_block < old.from_block
    return new.from_time < old.from_time


def reopens(old: Watch, new: Watch, state: WatchState) -> bool:
    """Whether one whose time was over has more of it."""
    return state is WatchState.ENDED and joined(old, new).until != old.until


def merged(watches: Iterable[Watch]) -> list[Watch]:
    """Each address once."""
    found: dict[tuple[int, str], Watch] = {}
    for watch in watches:
        known = found.get((watch.chain_id, watch.address))
        found[watch.chain_id, watch.address] = joined(known, watch) if known else watch
    return list(found.values())
