"""What the scanner reads of a chain; see node.Node."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from chains import Chain
from verifier.domain import ChainFailure, Header, Heads, LogRange, Receipt
from verifier.node import Node


class WatchedChain(Protocol):
    """A chain with logs. Errors of all: ChainFailure."""

    @property
    def chain(self) -> Chain:
        """How it is configured."""

    @property
    def operators(self) -> Sequence[str]:
        """Who runs its endpoints; with one of them nobody can be asked for a second look."""

    @property
    def nodes(self) -> Sequence[Node]:
        """Its endpoints."""

    @property
    def quorum(self) -> int:
        """How many operators have to say the same of what is final."""

    @property
    def mark(self) -> int:
        """The highest final height that a quorum has told."""

    @property
    def highest(self) -> int:
        """The newest block that any operator told beside the heads that were believed last."""

    async def heads(self) -> Heads:
        """The newest block and the final height that is believed."""

    async def receipts(self, tx_hashes: Sequence[str]) -> tuple[Heads, dict[str, Receipt | ChainFailure | None]]:
        """The heads, and receipts by hash."""

    async def headers(self, numbers: Collection[int]) -> Mapping[int, Header]:
        """The canonical blocks at these heights, as far as they are known."""

    async def logs(
        self,
        first: int,
        last: int,
        contracts: Sequence[str],
        recipients: Sequence[str] | None,
        *,
        cursor: int | None = None,
        not_by: str = "",
        doubted: Collection[str] = (),
    ) -> LogRange:
        """The Transfer logs to these recipients (None: to anyone), by one endpoint that is not of operator `not_by`;
        those `doubted` are asked after the others."""
