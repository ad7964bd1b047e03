"""One question to several endpoints, of each operator at most one answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from verifier.domain import ChainFailure
from verifier.jsonrpc import Unavailable
from verifier.node import Node

# Who has not answered by then is not waited for alone.
SLOW_SECONDS = 1.0

Answer = TypeVar("Answer")
Asked = dict[asyncio.Future[Answer], tuple[Node, float]]


@dataclass
class Poll(Generic[Answer]):
    """Answers and failures by operator. `nodes` are in the order in which they are asked."""

    nodes: Sequence[Node]
    answers: dict[str, Answer] = field(default_factory=dict)
    failures: dict[str, ChainFailure] = field(default_factory=dict)

    async def ask(
        self, read: Callable[[Node], Awaitable[Answer]], *, operators: int, settled: Callable[[bool], bool]
    ) -> None:
        """Asks `operators` of them at once, and one more whenever one fails, is slow, or all is told and not settled.

        Returns when it is settled or nobody is left to ask. `settled` is told whether those still asked are slow.
        """
        left = list(self.nodes)
        asked: Asked[Answer] = {}

        def start(busy: Collection[str]) -> bool:
            node = next((node for node in left if node.operator not in (*self.answers, *busy)), None)
            if node is None:
                return False
            left.remove(node)
            asked[asyncio.ensure_future(read(node))] = (node, time.monotonic())
            return True

        def start_until(enough: int) -> None:
            while len(self.answers.keys() | _operators(asked)) < enough and start(_operators(asked)):
                continue

        try:
            start_until(operators)
            while asked:
                done, _ = await asyncio.wait(asked, timeout=SLOW_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    self._take(asked.pop(task)[0], task)
                if settled(not done):
                    return
                start_until(operators)
                if not asked or not (done or start(_operators(asked))):
                    start(())  # another endpoint of an operator that is slow
        finally:
            await _give_up(asked)

    def _take(self, node: Node, task: asyncio.Future[Answer]) -> None:
        try:
            answer = task.result()
        except ChainFailure as failure:
            self.failures[node.operator] = failure
        else:
            self.answers.setdefault(node.operator, answer)


def _operators(asked: Asked[Answer]) -> set[str]:
    return {node.operator for node, _ in asked.values()}


async def _give_up(asked: Asked[Answer]) -> None:
    """Ends what nobody waits for. Whoever was slow comes last from now on, until it answers somebody in time."""
    now = time.monotonic()
    for task, (node, since) in asked.items():
        task.cancel()
        if now - since >= SLOW_SECONDS:
            node.failure = Unavailable("the endpoint is slow")
    await asyncio.gather(*asked, return_exceptions=True)
