"""Which blocks to look through next. Pure: nothing here waits, reads a clock or talks to anyone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from verifier.domain import Header

# Above this many addresses one call without recipients, filtered here, is cheaper than ever more calls.
MOST_FILTERED = 2000

FIRST_SIZE = 1000
LARGEST_SIZE = 5000  # bsc-geth's default bound
# Any other failure of a call may mean that it took too long; but a dead endpoint must not bring the size down to 1.
SMALLEST_GUESS = 100

# Pins as old as this many blocks are let go: a change that deep is no reorganisation but another chain.
OLDEST_PIN = 2**20
PROBES = 64
# A block's time may run behind the clock that `from_time` was read from.
CLOCK_TOLERANCE_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Pin:
    """A final block that the cursor stood on; `operator` showed the blocks up to it, from the pin before, first."""

    number: int
    hash: str
    operator: str


@dataclass(frozen=True, slots=True)
class Position:
    """How far a chain has been looked through: every block from `first` to `number` is final and done.

    `scanned` is the height up to which blocks that are not final were looked through, `swept` the one up to which all
    were a second time, `swept_time` that block's time (Unix, seconds).
    """

    first: int
    number: int
    hash: str
    scanned: int
    swept: int
    swept_time: int


@dataclass(frozen=True, slots=True)
class RangeSize:
    """How many blocks are asked for at once."""

    blocks: int = FIRST_SIZE

    def refused(self, blocks: int) -> RangeSize:
        """Half, down to one block: the endpoint said that so many were too much."""
        return RangeSize(max(1, min(self.blocks, blocks) // 2))

    def failed(self, blocks: int) -> RangeSize:
        """Half, down to a size that hardly anybody refuses: perhaps so many blocks took too long."""
        return self if blocks <= SMALLEST_GUESS else RangeSize(max(SMALLEST_GUESS, min(self.blocks, blocks) // 2))

    def taken(self, blocks: int) -> RangeSize:
        """A little more, when as many blocks as this were answered."""
        return RangeSize(min(LARGEST_SIZE, self.blocks + self.blocks // 16 + 1)) if blocks >= self.blocks else self


def is_filtered(addresses: int) -> bool:
    """Whether the recipients are named in the call: its size must not grow with the number of open orders."""
    return addresses <= MOST_FILTERED


def advanced(position: Position, end: Header | None, scanned: int) -> Position:
    """The position after a range; `end` is the highest final block in it, None when it holds none."""
    if end is None or end.number <= position.number:
        return replace(position, scanned=max(scanned, position.number))
    return replace(position, number=end.number, hash=end.hash, scanned=max(scanned, end.number))


def fallen_back(position: Position, pin: Pin) -> Position:
    """The position after a change of the chain beyond finality that left `pin` standing."""
    return replace(
        position,
        first=min(position.first, pin.number + 1),
        number=pin.number,
        hash=pin.hash,
        scanned=pin.number,
        swept=min(position.swept, pin.number),
    )


def footing(number: int) -> set[int]:
    """Older heights to pin together with the first: the chain may change below the block at which looking began."""
    return {max(1, number - 16 * 4**step) for step in range(9)} - {number}


def standing_pin(pins: Sequence[Pin], headers: Mapping[int, Header]) -> Pin | None:
    """The highest pin that is on the canonical chain."""
    stand = [pin for pin in pins if pin.number in headers and headers[pin.number].hash == pin.hash]
    return max(stand, key=lambda pin: pin.number, default=None)


def surplus_pins(pins: Sequence[Pin], position: Position) -> list[Pin]:
    """The pins that may go: the older, the fewer are kept, four for each doubling of age.

    `pins` ascend. Where another operator took over stays until it is swept: the sweep has to know whom to ask.
    """
    surplus: list[Pin] = []
    above: Pin | None = None
    for pin in reversed(pins):
        age = position.number - pin.number
        width = max(1, (1 << max(age, 1).bit_length() - 1) // 4)
        crowded = above is not None and above.number // width == pin.number // width
        takes_over = above is not None and pin.number > position.swept and above.operator != pin.operator
        if (crowded or age > OLDEST_PIN) and not takes_over:
            surplus.append(pin)
        else:
            above = pin
    return surplus


@dataclass(frozen=True, slots=True)
class Sweep:
    """Blocks to look through a second time, not by the operator that showed them first."""

    first: int
    last: int
    not_by: str


def next_sweep(position: Position, pins: Sequence[Pin], size: RangeSize, behind: int) -> Sweep | None:
    """The next blocks to sweep, `behind` blocks below the cursor or deeper, all shown first by one operator."""
    upto = position.number - behind
    ahead = [pin for pin in pins if pin.number > position.swept]
    if not ahead or position.swept >= upto:
        return None
    last, operator = position.swept, ahead[0].operator
    for pin in ahead:
        if pin.operator != operator:
            break
        last = pin.number
    return Sweep(position.swept + 1, min(last, upto, position.swept + size.blocks), operator)


def heights_back(end: int) -> list[int]:
    """Heights below `end`, ever farther: what is looked for is mostly near, and nodes forget what is old."""
    return [end - distance for distance in (16 * 4**step for step in range(16)) if distance < end]


@dataclass(frozen=True, slots=True)
class Bisection:
    """The search for the first block of a time: the highest block before it is in `low` … `high`."""

    low: int
    high: int

    @classmethod
    def between(cls, headers: Mapping[int, Header], before: int, end: int) -> Bisection:
        """The search up to `end` that begins at the known blocks nearest to that time; a block that is missing says
        nothing. `before` is Unix time, seconds."""
        low = max((number for number, header in headers.items() if header.timestamp < before), default=0)
        high = min((number - 1 for number, header in headers.items() if header.timestamp >= before), default=end)
        return cls(low, max(low, high))

    @property
    def found(self) -> bool:
        """Whether one height is left."""
        return self.low == self.high

    def probes(self) -> list[int]:
        """The heights to read next, at most 64."""
        width = self.high - self.low
        steps = min(PROBES, width)
        return sorted({self.low + (width * step + steps - 1) // steps for step in range(1, steps + 1)})

    def narrowed(self, headers: Mapping[int, Header], before: int) -> Bisection | None:
        """The search after the probes were read; None when one of them is missing. `before` is Unix time, seconds."""
        low, high = self.low, self.high
        for number in self.probes():
            header = headers.get(number)
            if header is None:
                return None
            if header.timestamp >= before:
                return Bisection(low, number - 1)
            low = number
        return Bisection(low, high)
