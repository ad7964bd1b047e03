"""What must be true, whatever happens: told from the real chain and from what was acknowledged, not from OSPay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Key = tuple[str, int]  # transaction hash, log index


@dataclass(frozen=True)
class Moved:
    """A transfer that is final on the real chain."""

    key: Key
    sender: str
    recipient: str
    amount_minor: int
    block: int


@dataclass
class Sold:
    """An acknowledged order. `born` is the height of the chain just before it was asked for."""

    id: str
    merchant: str
    own_address: bool
    address: str
    amount_minor: int
    born: int
    claims: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Credit:
    """A row of `payments`: what OSPay says has paid an order."""

    order: str
    key: Key
    amount_minor: int


@dataclass(frozen=True)
class Held:
    """A row of `suspense` that is open."""

    merchant: str
    key: Key
    amount_minor: int


@dataclass(frozen=True)
class Said:
    """All that OSPay says of the merchants of this life."""

    states: Mapping[str, str]
    heights: Mapping[str, int | None]  # of the chain when the order was made, where they could be had
    credits: Sequence[Credit]
    held: Sequence[Held]


def wrongs(sold: Mapping[str, Sold], final: Mapping[Key, Moved], said: Said) -> list[str]:
    """Safety: what must hold at every moment. `final` was read after `said`, and only grows."""
    found: list[str] = []
    for credit in said.credits:
        moved, order = final.get(credit.key), sold.get(credit.order)
        if moved is None:
            found.append(f"{credit} is not final on the chain")
        elif order is None:
            found.append(f"{credit} is of no order that was made")
        else:
            found += _wrong_credit(credit, moved, order, known_height=said.heights[order.id] is not None)
    for held in said.held:
        if held.key not in final:
            found.append(f"{held} is not final on the chain")
    for key, parts in _parts(said).items():
        if key in final and sum(parts) > final[key].amount_minor:
            found.append(f"{key} moved {final[key].amount_minor} and {parts} are credited and held of it")
    return [*found, *_wrong_states(sold, said)]


def _wrong_credit(credit: Credit, moved: Moved, order: Sold, *, known_height: bool) -> Iterable[str]:
    if moved.recipient != order.address:
        yield f"{credit} went to {moved.recipient}, and {order.id} is paid at {order.address}"
    # Without a height clocks decide, and this chain's clock runs ahead: it mines many blocks a second.
    if known_height and moved.block <= order.born:
        yield f"{credit} was mined in {moved.block}, and {order.id} was made after {order.born}"
    if not order.own_address and (credit.amount_minor, moved.amount_minor) != (order.amount_minor,) * 2:
        yield f"{credit} is not exactly what {order.id} asks for: {order.amount_minor}"


def _wrong_states(sold: Mapping[str, Sold], said: Said) -> Iterable[str]:
    paid: dict[str, int] = defaultdict(int)
    for credit in said.credits:
        paid[credit.order] += credit.amount_minor
    for order in sold.values():
        if (said.states[order.id] == "PAID") != (paid[order.id] == order.amount_minor):
            yield f"{order} is {said.states[order.id]} with {paid[order.id]} credited"


def unfinished(sold: Mapping[str, Sold], final: Mapping[Key, Moved], said: Said) -> list[str]:
    """Liveness: what must hold once all faults are gone and the chain has gone on."""
    parts = _parts(said)
    found = [
        f"{moved} is accounted for with {parts[key]}"
        for key, moved in final.items()
        if sum(parts[key]) != moved.amount_minor
    ]
    came: dict[str, int] = defaultdict(int)
    for moved in final.values():
        came[moved.recipient] += moved.amount_minor
    used = {credit.key: credit.order for credit in said.credits}
    for order in sold.values():
        if said.states[order.id] == "CONFIRMING":
            found.append(f"{order} is CONFIRMING, and all is final")
        if order.own_address and (came[order.address] >= order.amount_minor) != (said.states[order.id] == "PAID"):
            found.append(f"{order} is {said.states[order.id]}, and {came[order.address]} came")
        if not order.own_address and said.states[order.id] != "PAID":
            found += [f"{order} is not paid by {fit}" for fit in final.values() if _pays_by_claim(order, fit, used)]
    return found


def _pays_by_claim(order: Sold, moved: Moved, used: Mapping[Key, str]) -> bool:
    # `born` is read before the order is asked for: a block just above it may yet be older than the order.
    fits = (moved.recipient, moved.amount_minor) == (order.address, order.amount_minor) and moved.block > order.born + 1
    return fits and moved.key[0] in order.claims and moved.key not in used


def _parts(said: Said) -> dict[Key, list[int]]:
    parts: dict[Key, list[int]] = defaultdict(list)
    for row in (*said.credits, *said.held):
        parts[row.key].append(row.amount_minor)
    return parts
