"""One chain as several operators show it: reads fail over, and what decides about money needs a quorum of them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from enum import Enum

import structlog

from chains import Chain
from verifier import agreement
from verifier.agreement import Unsettled
from verifier.domain import ChainFailure, Header, Heads, LogRange, Receipt, Told, Untrusted
from verifier.jsonrpc import CALL_SECONDS, MethodRefused, RangeTooLarge
from verifier.metrics import CHAIN_HEALTH, DISAGREEMENTS, ENDPOINT_UP, FINALIZED, HEAD
from verifier.node import HEAD_SECONDS, Node
from verifier.poll import Poll

log = structlog.get_logger()

LOOK_SECONDS = 2.0
# A contradiction is not over because the next answer is a right one.
CONTRADICTION_SECONDS = 60.0
NOBODY = "0x" + "0" * 40
# The chain at its own pace is so far ahead of what a quorum has told; whoever tells more is not believed alone. As much
# as the clocks of orders are taken to differ: more than honest operators are apart, and less than a payer takes.
AHEAD_SECONDS = 15.0


class Health(Enum):
    """How a chain is served; the value is that of the metric."""

    OK = 1.0
    DEGRADED = 0.5
    UNAVAILABLE = 0.0


class Panel:
    """The reads that verifying and watching need, from endpoints of several operators.

    An operator has one voice, however many endpoints it has. `quorum` of them have to say the same of what is final;
    where that is one, the others stand by. `mark` is the highest final height that a quorum has told, here or before.
    `highest` is the newest block that any of them told beside `last_heads`. `health` and `error` are as of the last
    look.
    """

    def __init__(self, chain: Chain, nodes: Sequence[Node], *, quorum: int, mark: int) -> None:
        self.chain = chain
        self.nodes = tuple(nodes)
        self.operators = tuple(dict.fromkeys(node.operator for node in nodes))
        self.quorum = quorum
        self.mark = mark
        self.last_heads: Heads | None = None
        self.highest = 0
        self.health = Health.UNAVAILABLE
        self.error = "nobody has been asked yet"
        self._outvoted_at: dict[str, float] = {}
        self._contradicted_at = float("-inf")
        self._agreed_at = 0.0
        self._reading = asyncio.Lock()
        self._upcoming: asyncio.Task[int] | None = None

    async def heads(self, timeout: float = CALL_SECONDS) -> Heads:
        """The newest and the final block that a quorum has reached, now. Errors: ChainFailure."""
        floor = self.mark
        poll = Poll[Heads](self._in_order())
        # One who stands still must not hold the others up: all are asked. With a quorum of one the others stand by.
        operators = len(self.operators) if self.quorum > 1 else 1
        awaited = {node.operator for node in poll.nodes if node.healthy} if self.quorum > 1 else set()

        def settled(slow: bool) -> bool:
            enough = self._reached(poll.answers.values()) >= floor
            return enough and (slow or awaited <= poll.answers.keys() | poll.failures.keys())

        await poll.ask(lambda node: node.heads(floor, timeout), operators=operators, settled=settled)
        return self._agree(poll.answers, poll.failures, floor)

    async def receipts(self, tx_hashes: Sequence[str]) -> tuple[Heads, dict[str, Told]]:
        """The heads, and by hash the receipt, None (unknown) or why neither can be said. At most 90 hashes.

        At or below the final height a receipt is one on which a quorum agrees. With too few operators nothing is final
        but what was before; what is above is shown by the word of one. Errors: ChainFailure when nobody answers.
        """
        floor = self.mark
        poll = Poll[tuple[Heads, dict[str, Told]]](self._in_order())

        def votes(tx_hash: str) -> dict[str, Told]:
            return {name: told[tx_hash] for name, (_, told) in poll.answers.items() if tx_hash in told}

        def disputed() -> list[str]:
            return [each for each in tx_hashes if not agreement.is_settled(votes(each).values(), self.quorum)]

        def told() -> dict[str, Heads]:
            return {name: heads for name, (heads, _) in poll.answers.items()}

        await poll.ask(
            lambda node: node.receipts(disputed(), floor),
            operators=self.quorum,
            settled=lambda _: not disputed() and self._reached(told().values()) >= floor,
        )
        if 0 < len(poll.answers) < self.quorum:
            heads = Heads(next(iter(told().values())).head, floor)
        else:
            heads = self._agree(told(), poll.failures, floor)
        return heads, {each: self._receipt(each, votes(each), heads.finalized) for each in tx_hashes}

    async def headers(self, numbers: Collection[int]) -> Mapping[int, Header]:
        """The canonical blocks at these heights (at most 90) as far as they are known.

        At or below the final height those on which a quorum agrees, above by the word of one. Errors: ChainFailure.
        """
        floor = self.mark
        poll = Poll[Mapping[int, Header]](self._in_order())

        def votes(number: int) -> dict[str, Header]:
            return {name: told[number] for name, told in poll.answers.items() if number in told}

        def header(number: int) -> Header | None:
            told = list(votes(number).values())
            return agreement.agreed(told, self.quorum) or (told[0] if told and number > floor else None)

        def disputed() -> list[int]:
            return [number for number in numbers if header(number) is None]

        await poll.ask(
            lambda node: node.headers(disputed(), floor), operators=self.quorum, settled=lambda _: not disputed()
        )
        if not poll.answers:
            raise self._failure(poll.failures)
        found = {number: header(number) for number in numbers}
        for number, known in found.items():
            told = votes(number)
            liars = {name for name, each in told.items() if known is not None and each != known}
            if number <= floor and told and (known is None or liars):
                self._note_dispute(told, liars, block=number)
        return {number: known for number, known in found.items() if known is not None}

    async def head_number(self) -> int:
        """The height of the newest block, read after this call began; callers share one read.

        By the word of one; of a quorum where it is above what the chain can have reached since a quorum told its heads.
        Errors: ChainFailure; TimeoutError after 2 seconds.
        """
        if self._upcoming is None:
            self._upcoming = asyncio.create_task(self._read_head_number())
            # Whoever waits may go away; the failure is theirs and not the event loop's.
            self._upcoming.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.wait_for(asyncio.shield(self._upcoming), HEAD_SECONDS)

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
        """What one endpoint shows of a range of blocks (recipients None: all), not of operator `not_by` if there is
        another; those `doubted` are asked after the others.

        Errors: RangeTooLarge when it is too large for one and no other shows it that is not doubted, MethodRefused when
        nobody serves logs, other ChainFailure.
        """
        failures: list[ChainFailure] = []
        nodes = [node for node in self._in_order() if node.operator != not_by] or self._in_order()
        for node in sorted(nodes, key=lambda node: (node.logs_served is False, node.operator in doubted)):
            # Others take a smaller range: rather that than the word of one who contradicts.
            if node.operator in doubted and any(isinstance(each, RangeTooLarge) for each in failures):
                break
            try:
                found = await node.logs(first, last, contracts, recipients, self.mark, cursor=cursor)
            except ChainFailure as failure:
                failures.append(failure)
                if isinstance(failure, MethodRefused):
                    node.logs_served = False
            else:
                node.logs_served = True
                return replace(found, operator=node.operator)
        # A smaller range may be taken at once; and who only fails now will serve logs again.
        raise min(failures, key=lambda each: (isinstance(each, MethodRefused), not isinstance(each, RangeTooLarge)))

    async def look(self, timeout: float = LOOK_SECONDS) -> Health:
        """Asks every endpoint now and says how the chain is served. At its first answer each is tried for logs."""
        floor = self.mark
        told: dict[str, Heads] = {}

        async def ask(node: Node) -> None:
            with suppress(ChainFailure):
                heads = await node.heads(floor, timeout)
                # An operator is as far as the farthest of its endpoints.
                told[node.operator] = max(told.get(node.operator, heads), heads, key=lambda each: each.finalized)

        await asyncio.gather(*(ask(node) for node in self.nodes))
        failures = {node.operator: node.failure for node in self.nodes if node.failure is not None}
        try:
            self._agree(told, failures, floor)
            self.error = ""
        except ChainFailure as failure:
            self.error = str(failure)
        await asyncio.gather(*(self._try_logs(node, timeout) for node in self.nodes if node.logs_served is None))
        return self._note_health(len(told))

    def fault(self, node: Node) -> str:
        """Why an endpoint is not believed or does not answer, for people; empty while it does and is."""
        if node.failure is not None:
            return str(node.failure)
        return "it was outvoted by the other operators" if self._is_outvoted(node.operator) else ""

    async def _read_head_number(self) -> int:
        async with self._reading:
            # Who comes from now on might see less than what there was when it asked: it shares the next read.
            self._upcoming = None
            poll = Poll[int](self._in_order())
            ceiling = self._ceiling()

            def number() -> int | None:
                told = sorted(poll.answers.values(), reverse=True)
                by_quorum = told[self.quorum - 1] if len(told) >= self.quorum else None
                return next((each for each in told if each <= ceiling), by_quorum)

            await poll.ask(Node.head_number, operators=1, settled=lambda _: number() is not None)
            found = number()
            if found is None:
                raise self._failure(poll.failures)
            for operator, height in poll.answers.items():
                if height > max(found, ceiling):
                    log.warning("height_not_believed", chain=self.chain.name, operator=operator, height=height)
                    self._outvoted_at[operator] = time.monotonic()  # asked after the others for a while
            return found

    def _ceiling(self) -> float:
        """The height that the chain can have reached by its pace since a quorum told its heads."""
        if self.last_heads is None:
            return math.inf
        # By the time of that head as well: the slowest of the quorum may be far behind those that are not.
        head = self.last_heads.head
        seconds = max(time.monotonic() - self._agreed_at, time.time() - head.timestamp) + AHEAD_SECONDS
        return head.number + math.ceil(seconds / self.chain.block_seconds)

    async def _try_logs(self, node: Node, timeout: float) -> None:
        if node.failure is not None:
            return
        contracts = [asset.contract.lower() for asset in self.chain.assets.values()]
        try:
            async with asyncio.timeout(timeout):
                await node.logs(node.finalized, node.finalized, contracts, [NOBODY], floor=0)
        except (ChainFailure, TimeoutError) as failure:
            node.logs_served = False
            log.warning("logs_not_served", chain=self.chain.name, operator=node.operator, error=str(failure))
        else:
            node.logs_served = True

    def _in_order(self) -> list[Node]:
        """As configured, but those that failed or were outvoted last."""
        return sorted(self.nodes, key=lambda node: not node.healthy or self._is_outvoted(node.operator))

    def _receipt(self, tx_hash: str, votes: Mapping[str, Told], finalized: int) -> Told:
        told = {name: vote for name, vote in votes.items() if isinstance(vote, Receipt)}
        try:
            found = agreement.receipt(votes.values(), self.quorum, finalized)
        except ChainFailure as failure:
            if told:
                self._note_dispute(told, (), tx_hash=tx_hash)
            return failure
        liars = {name for name, vote in told.items() if vote != found}
        # Above the final height a reorganisation shows everyone something else for a moment.
        if liars and min(vote.block_number for vote in told.values()) <= finalized:
            self._note_dispute(told, liars, tx_hash=tx_hash)
        return found

    def _failure(self, failures: Mapping[str, ChainFailure]) -> ChainFailure:
        if len(self.operators) == 1 and failures:
            return next(iter(failures.values()))
        told = "; ".join(f"{name}: {failure}" for name, failure in failures.items())
        return Unsettled(f"{self.quorum} of {len(self.operators)} operators are needed: {told}")

    def _reached(self, told: Collection[Heads]) -> int:
        return agreement.reached(told, self.quorum).finalized if len(told) >= self.quorum else -1

    def _agree(self, told: Mapping[str, Heads], failures: Mapping[str, ChainFailure], floor: int) -> Heads:
        """What a quorum has reached, believed unless it goes back: reads since `floor` was the mark overtake others."""
        if len(told) < self.quorum:
            raise self._failure(failures)
        heads = agreement.reached(told.values(), self.quorum)
        if heads.finalized < floor:
            raise Untrusted(f"final block {heads.finalized} is below {floor}, which was final before")
        self.mark = max(self.mark, heads.finalized)
        self.last_heads, self._agreed_at = heads, time.monotonic()
        self.highest = max(each.head.number for each in told.values())
        HEAD.labels(self.chain.name).set(heads.head.number)
        FINALIZED.labels(self.chain.name).set(heads.finalized)
        return heads

    def _note_dispute(
        self, told: Mapping[str, Header] | Mapping[str, Receipt], outvoted: Collection[str], **where: object
    ) -> None:
        """Counts what too few agree on; who contradicts whom is said aloud, and once a second is enough."""
        DISAGREEMENTS.labels(self.chain.name).inc()
        if not outvoted and len(set(told.values())) < 2:
            return
        now = time.monotonic()
        if now - self._contradicted_at > 1.0:
            blocks = {name: vote.hash if isinstance(vote, Header) else vote.block_hash for name, vote in told.items()}
            log.error("contradiction", chain=self.chain.name, told=blocks, outvoted=sorted(outvoted), **where)
        self._contradicted_at = now
        self._outvoted_at.update(dict.fromkeys(outvoted, now))

    def _note_health(self, answering: int) -> Health:
        now = time.monotonic()
        contradicted = now - self._contradicted_at < CONTRADICTION_SECONDS
        if self.error:
            self.health = Health.UNAVAILABLE
        elif answering < len(self.operators) or contradicted:
            self.health = Health.DEGRADED
        else:
            self.health = Health.OK
        CHAIN_HEALTH.labels(self.chain.name).set(self.health.value)
        for name in self.operators:
            up = any(not self.fault(node) for node in self.nodes if node.operator == name)
            ENDPOINT_UP.labels(self.chain.name, name).set(up)
        return self.health

    def _is_outvoted(self, operator: str) -> bool:
        return time.monotonic() - self._outvoted_at.get(operator, float("-inf")) < CONTRADICTION_SECONDS
