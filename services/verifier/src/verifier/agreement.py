"""What several operators say together; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TypeVar

from verifier.domain import ChainFailure, Header, Heads, Receipt, Told

Vote = TypeVar("Vote", Header, Receipt, frozenset[str])


class Unsettled(ChainFailure):
    """Too few operators answer, or they contradict one another."""

    kind = "unsettled"


def reached(told: Collection[Heads], quorum: int) -> Heads:
    """The newest and the final height that `quorum` of these operators, at least so many, have reached.

    The head's time counts by itself, for it ends the waiting for unknown transactions.
    """
    by_number = sorted((heads.head for heads in told), key=lambda head: head.number, reverse=True)
    times = sorted((heads.head.timestamp for heads in told), reverse=True)
    heights = sorted((heads.finalized for heads in told), reverse=True)
    return Heads(replace(by_number[quorum - 1], timestamp=times[quorum - 1]), heights[quorum - 1])


def agreed(votes: Iterable[Vote], quorum: int) -> Vote | None:
    """What `quorum` operators say word for word; None where fewer do, or so many say different things.

    Receipts are equal when all of it is: transaction, block, status, and of every log address, topics, data and index.
    """
    # Compared and not counted by hash, which is made of all logs: 5 µs of a claim.
    told, winners = list(votes), []
    for vote in told:
        if vote not in winners and told.count(vote) >= quorum:
            winners.append(vote)
    return winners[0] if len(winners) == 1 else None


def is_settled(votes: Collection[Told], quorum: int) -> bool:
    """Whether asking further operators for a receipt can change nothing."""
    return agreed(_receipts(votes), quorum) is not None or _unknown(votes) >= quorum


def receipt(votes: Collection[Told], quorum: int, finalized: int) -> Receipt | None:
    """The receipt that `quorum` operators tell, or None where so many do not know the transaction.

    In blocks above `finalized`, where nothing is decided, one operator's word is enough to be shown.
    Errors: Unsettled; a failure that lasts where `quorum` operators have one; with a quorum of one, any.
    """
    told = _receipts(votes)
    found = agreed(told, quorum)
    if found is not None:
        return found
    if told and all(vote.block_number > finalized for vote in told):
        return min(told, key=lambda vote: vote.block_number)  # of several the one that is looked at again first
    if _unknown(votes) >= quorum:
        return None
    failures = [vote for vote in votes if isinstance(vote, ChainFailure)]
    lasting = [failure for failure in failures if failure.lasts]
    if len(lasting) >= quorum:
        raise lasting[0]
    if quorum == 1 and failures:
        raise failures[0]
    most = max(Counter(told).values(), default=0)
    raise Unsettled(f"{most} of the {quorum} operators that are needed tell the same receipt")


def _receipts(votes: Collection[Told]) -> list[Receipt]:
    return [vote for vote in votes if isinstance(vote, Receipt)]


def _unknown(votes: Collection[Told]) -> int:
    return sum(vote is None for vote in votes)
