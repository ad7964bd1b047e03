"""One chain as its endpoint shows it: typed reads, each believed only as far as it can be true."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

import structlog

from chains import Chain
from verifier import wire
from verifier.domain import ChainFailure, Header, Heads, Receipt, Untrusted, believe_heads
from verifier.jsonrpc import CALL_SECONDS, Call, JsonRpc, Result
from verifier.metrics import FINALIZED, HEAD, RPC_ERRORS

log = structlog.get_logger()

HEAD_SECONDS = 2.0


class Node:
    """The reads that verifying needs.

    `mark` is the highest final height seen so far, here or before: an endpoint that tells less is not believed.
    """

    def __init__(self, chain: Chain, rpc: JsonRpc, mark: int) -> None:
        self.chain = chain
        self.mark = mark
        self.last_heads: Heads | None = None
        self._rpc = rpc
        self._reading = asyncio.Lock()
        self._upcoming: asyncio.Task[int] | None = None

    async def heads(self, timeout: float = CALL_SECONDS) -> Heads:
        """The newest and the final block, now. Errors: ChainFailure."""
        mark = self.mark
        return self._heads(await self._rpc.batch(self._head_calls(), timeout=timeout), mark)

    async def receipts(self, tx_hashes: Sequence[str]) -> tuple[Heads, dict[str, Receipt | ChainFailure | None]]:
        """The heads, and by hash the receipt, None (unknown) or why it cannot be used. At most 90 hashes.

        The heads are read in the same batch, so "unknown" and the chain's time come from one node, and what is final
        is known before the canonical blocks are read. Errors: ChainFailure when nothing can be used.
        """
        mark = self.mark
        head_calls = self._head_calls()
        calls = [Call("eth_getTransactionReceipt", (tx_hash,)) for tx_hash in tx_hashes]
        answers = await self._rpc.batch([*head_calls, *calls])
        heads = self._heads(answers[: len(head_calls)], mark)
        found = zip(tx_hashes, answers[len(head_calls) :], strict=True)
        return heads, {tx_hash: self._receipt(answer, tx_hash) for tx_hash, answer in found}

    async def headers(self, numbers: Collection[int]) -> Mapping[int, Header]:
        """The canonical blocks at these heights (at most 90) as far as the endpoint knows them.

        The heads are read along: behind one name may be several nodes, and the one that tells the blocks must have
        seen at least what was final before. Errors: ChainFailure.
        """
        mark = self.mark
        head_calls = self._head_calls()
        calls = [Call("eth_getBlockByNumber", (hex(number), False)) for number in numbers]
        answers = await self._rpc.batch([*head_calls, *calls])
        self._heads(answers[: len(head_calls)], mark)
        found = zip(numbers, answers[len(head_calls) :], strict=True)
        headers = (self._header(answer, number) for number, answer in found)
        return {header.number: header for header in headers if header is not None}

    async def head_number(self) -> int:
        """The height of the newest block, read after this call began; concurrent callers share one read.

        Errors: ChainFailure; TimeoutError after 2 seconds.
        """
        if self._upcoming is None:
            self._upcoming = asyncio.create_task(self._read_head_number())
            # Whoever waits may go away; the failure is theirs and not the event loop's.
            self._upcoming.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.wait_for(asyncio.shield(self._upcoming), HEAD_SECONDS)

    async def _read_head_number(self) -> int:
        async with self._reading:
            # Who comes from now on might see less than what there was when it asked: it shares the next read.
            self._upcoming = None
            answer = (await self._rpc.batch([Call("eth_blockNumber")], timeout=HEAD_SECONDS))[0]
            if isinstance(answer, ChainFailure):
                raise answer
            return wire.quantity(answer)

    def _head_calls(self) -> list[Call]:
        tags = ["latest"] if self.chain.depth is not None else ["latest", "finalized"]
        return [Call("eth_getBlockByNumber", (tag, False)) for tag in tags]

    def _heads(self, answers: Sequence[Result], mark: int) -> Heads:
        """Believes what was read since `mark` was the highest: reads overtake one another."""
        try:
            heads = self._believe(answers, mark)
        except ChainFailure as failure:
            if isinstance(failure, Untrusted):
                RPC_ERRORS.labels(self.chain.name, failure.kind).inc()
                log.warning("heads_not_believed", chain=self.chain.name, error=str(failure))
            raise
        self.mark = max(self.mark, heads.finalized)
        self.last_heads = heads
        HEAD.labels(self.chain.name).set(heads.head.number)
        FINALIZED.labels(self.chain.name).set(heads.finalized)
        return heads

    def _believe(self, answers: Sequence[Result], mark: int) -> Heads:
        head = _block(answers[0])
        if head is None:
            raise Untrusted("the endpoint has no newest block")
        if self.chain.depth is not None:
            return believe_heads(head, head.number - self.chain.depth, mark)
        final = _block(answers[1])
        return believe_heads(head, final.number if final else None, mark)

    def _receipt(self, answer: Result, tx_hash: str) -> Receipt | ChainFailure | None:
        if isinstance(answer, ChainFailure):
            return answer
        try:
            return wire.receipt(answer, tx_hash)
        except wire.Malformed as failure:
            RPC_ERRORS.labels(self.chain.name, failure.kind).inc()
            log.warning("receipt_malformed", chain=self.chain.name, tx_hash=tx_hash, error=str(failure))
            return failure

    def _header(self, answer: Result, number: int) -> Header | None:
        try:
            header = _block(answer)
        except ChainFailure:
            return None
        return header if header is not None and header.number == number else None


def _block(answer: Result) -> Header | None:
    if isinstance(answer, ChainFailure):
        raise answer
    return wire.header(answer)
