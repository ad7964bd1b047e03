"""Reads ranges of one chain, in sizes that its endpoints take, from operators that do not contradict the others."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import suppress

import structlog

from verifier import workflow
from verifier.domain import ChainFailure, Header, LogRange, Transfer, Untrusted
from verifier.jsonrpc import MethodRefused, RangeTooLarge
from verifier.watch import ranges
from verifier.watch.chain import WatchedChain
from verifier.watch.decisions import dated
from verifier.watch.ranges import Position, RangeSize

log = structlog.get_logger()

DISTRUST_SECONDS = 30.0


class Replaced(ChainFailure):
    """The block at the cursor's height is another one: the chain has changed beyond finality, or so `operator` says."""

    kind = "replaced"

    def __init__(self, operator: str) -> None:
        super().__init__("the block at the cursor's height is another one")
        self.operator = operator


class Reader:
    """The reads of a scanner. What an endpoint refuses or fails to answer makes the next range smaller."""

    def __init__(self, chain: WatchedChain) -> None:
        self._chain = chain
        self._contracts = sorted(asset.contract.lower() for asset in chain.chain.assets.values())
        # By whether the recipients are named: all transfers of a token are many more than those to some addresses.
        self._sizes = {True: RangeSize(), False: RangeSize(ranges.SMALLEST_GUESS)}
        self._distrusted_until: dict[str, float] = {}
        # Blocks that alone are too large and were not final: until they are, nobody is asked for them again.
        self._large: set[int] = set()

    @property
    def contracts(self) -> Sequence[str]:
        """The tokens that are looked for."""
        return self._contracts

    def size(self, recipients: Sequence[str] | None) -> RangeSize:
        """How many blocks to ask for."""
        return self._sizes[recipients is not None]

    def distrust(self, operator: str) -> None:
        """Its word contradicted that of the others: they are asked first for a while."""
        if operator not in self._distrusted():
            log.warning("logs_distrusted", chain=self._chain.chain.name, operator=operator)
        self._distrusted_until[operator] = time.monotonic() + DISTRUST_SECONDS

    async def logs(
        self, first: int, last: int, recipients: Sequence[str] | None, position: Position, not_by: str = ""
    ) -> LogRange:
        """A range by one endpoint on whose chain the cursor's block is; the beginning of it where all is too much.

        Errors: Replaced; any ChainFailure, RangeTooLarge only for a single block that is not final.
        """
        self._large = {height for height in self._large if height > self._chain.mark}
        if first in self._large:
            raise RangeTooLarge(f"the logs of block {first} alone are too many")
        last = min([last, *(height - 1 for height in self._large if first < height)])
        while True:
            try:
                found = await self._ask(first, last, recipients, position.number, not_by)
                break
            except RangeTooLarge as failure:
                if first == last:
                    self._large.add(first)
                    raise
                log.info("range_refused", chain=self._chain.chain.name, blocks=last - first + 1, error=str(failure))
                last = first + self.size(recipients).blocks - 1
        assert found.cursor is not None, "it was asked for"
        if found.cursor.hash != position.hash:
            raise Replaced(found.operator)
        return found

    async def _ask(self, first: int, last: int, recipients: Sequence[str] | None, cursor: int, not_by: str) -> LogRange:
        blocks, filtered = last - first + 1, recipients is not None
        size = self._sizes[filtered]
        try:
            found = await self._chain.logs(
                first, last, self._contracts, recipients, cursor=cursor, not_by=not_by, doubted=self._distrusted()
            )
        except RangeTooLarge:
            if blocks > 1:  # one alone says nothing of others
                self._sizes[filtered] = size.refused(blocks)
            raise
        except (ChainFailure, TimeoutError):
            self._sizes[filtered] = size.failed(blocks)
            raise
        self._sizes[filtered] = size.taken(blocks)
        return found

    def _distrusted(self) -> list[str]:
        return [operator for operator, until in self._distrusted_until.items() if time.monotonic() < until]

    async def second_look(
        self, first: int, last: int, recipients: Sequence[str] | None, position: Position, not_by: str
    ) -> LogRange:
        """The same by another operator; by the same one only where no other serves logs. Errors: those of `logs`."""
        if len(self._chain.operators) > 1:
            with suppress(MethodRefused):
                return await self.logs(first, last, recipients, position, not_by)
        return await self.logs(first, last, recipients, position)

    async def headers(self, heights: Collection[int]) -> dict[int, Header]:
        """The canonical blocks at any number of heights, as far as they are known."""
        return await workflow.read_headers(self._chain, heights)

    async def dated(self, transfers: Sequence[Transfer], operator: str) -> list[Transfer]:
        """The transfers with the times of their blocks.

        Errors: Untrusted for a block that is not canonical; `operator`, which showed it, is distrusted then.
        """
        headers = await self.headers({transfer.block_number for transfer in transfers})
        try:
            return dated(transfers, headers)
        except Untrusted:
            self.distrust(operator)
            raise
