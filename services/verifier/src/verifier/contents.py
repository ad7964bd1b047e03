"""What is in blocks, as a quorum of operators tells it: nothing less proves that a transaction is not in its block.

Receipts do not: a node's index of transactions lags behind its blocks, and is pruned.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from verifier import agreement
from verifier.node import Node
from verifier.poll import Poll

BLOCKS_PER_CALL = 50

Contents = Mapping[str, frozenset[str]]
"""The hashes of all transactions of blocks, by the block's hash."""


async def read(nodes: Sequence[Node], quorum: int, block_hashes: Collection[str]) -> Contents:
    """Those of any number of blocks, canonical or not, on which `quorum` operators agree. Who fails has no voice."""
    ascending = sorted(block_hashes)
    found: dict[str, frozenset[str]] = {}
    for start in range(0, len(ascending), BLOCKS_PER_CALL):
        found.update(await _read(nodes, quorum, ascending[start : start + BLOCKS_PER_CALL]))
    return found


async def _read(nodes: Sequence[Node], quorum: int, block_hashes: Sequence[str]) -> Contents:
    poll = Poll[Contents](sorted(nodes, key=lambda node: not node.healthy))

    def agreed() -> Contents:
        votes = {each: [told[each] for told in poll.answers.values() if each in told] for each in block_hashes}
        found = {each: agreement.agreed(told, quorum) for each, told in votes.items()}
        return {each: known for each, known in found.items() if known is not None}

    await poll.ask(
        lambda node: node.transactions(block_hashes),
        operators=quorum,
        settled=lambda _: len(agreed()) == len(block_hashes),
    )
    return agreed()
