"""One chain as its endpoint shows it: typed reads, each believed only as far as it can be true."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

import structlog

from chains import Chain
from verifier import wire
from verifier.domain import (
    ADDRESS_PADDING,
    TRANSFER_TOPIC,
    ChainFailure,
    FoundLog,
    Header,
    Heads,
    LogRange,
    Receipt,
    Untrusted,
    believe_heads,
)
from verifier.jsonrpc import (
    CALL_SECONDS,
    LOGS_METHOD,
    Call,
    JsonRpc,
    MethodRefused,
    RangeTooLarge,
    Result,
    TooLarge,
)
from verifier.metrics import FINALIZED, HEAD, RPC_ERRORS

log = structlog.get_logger()

HEAD_SECONDS = 2.0
# bsc-geth takes 1000 values in one place of a filter, others fewer.
RECIPIENTS_PER_CALL = 500


class Node:
    """The reads that verifying needs.

    `mark` is the highest final height seen so far, here or before: an endpoint that tells less is not believed.
    """

    operators = ("one",)

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

    async def logs(
        self,
        first: int,
        last: int,
        contracts: Sequence[str],
        recipients: Sequence[str] | None,
        *,
        cursor: int | None = None,
        not_by: str = "",
    ) -> LogRange:
        """The Transfer logs of these contracts to these recipients (None: to anyone) in the blocks first … last.

        Ascending, and with them the header of the last block and of the one at the height of `cursor`. All of it comes
        in one batch, so from one endpoint, which has seen what was final before and knows the end of the range: else
        no logs could mean that it lags. There is one endpoint here, so `not_by` changes nothing.
        Errors: RangeTooLarge, MethodRefused (also when even one block is too much), any other ChainFailure.
        """
        mark = self.mark
        numbers = [last] if cursor is None else [last, cursor]
        calls = self._head_calls()
        heads_end = len(calls)
        calls += [Call("eth_getBlockByNumber", (hex(number), False)) for number in numbers]
        blocks_end = len(calls)
        calls += [Call(LOGS_METHOD, (query,)) for query in _queries(first, last, contracts, recipients)]
        try:
            answers = await self._rpc.batch(calls, whole=True)
        except TooLarge as failure:
            raise RangeTooLarge(str(failure)) from None
        self._heads(answers[:heads_end], mark)
        blocks = [self._header(answer, number) for answer, number in zip(answers[heads_end:], numbers, strict=False)]
        if blocks[0] is None:
            raise Untrusted(f"the endpoint does not know block {last}, the end of the range")
        logs = _logs(answers[blocks_end:], first, blocks[0], filtered=recipients is not None)
        return LogRange(self.operators[0], blocks[0], blocks[1] if cursor is not None else None, logs)

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


def _queries(
    first: int, last: int, contracts: Sequence[str], recipients: Sequence[str] | None
) -> list[dict[str, object]]:
    query = {"address": contracts, "fromBlock": hex(first), "toBlock": hex(last)}
    if recipients is None:
        return [{**query, "topics": [TRANSFER_TOPIC]}]
    topics = [ADDRESS_PADDING + recipient.removeprefix("0x") for recipient in recipients]
    chunks = (topics[start : start + RECIPIENTS_PER_CALL] for start in range(0, len(topics), RECIPIENTS_PER_CALL))
    return [{**query, "topics": [TRANSFER_TOPIC, None, chunk]} for chunk in chunks]


def _logs(answers: Sequence[Result], first: int, end: Header, *, filtered: bool) -> tuple[FoundLog, ...]:
    """The logs of all answers, once each. Errors: those of the answers; Untrusted when they contradict one another."""
    found: dict[tuple[int, int], FoundLog] = {}
    hashes = {end.number: end.hash}
    for answer in answers:
        if isinstance(answer, RangeTooLarge | TooLarge):
            raise _too_large(answer, one_block=filtered and first == end.number)
        if isinstance(answer, ChainFailure):
            raise answer
        for each in wire.logs(answer):
            if not first <= each.block_number <= end.number or each.log.removed:
                raise Untrusted("a log lies outside of the range or was removed")
            if hashes.setdefault(each.block_number, each.block_hash) != each.block_hash:
                raise Untrusted(f"the logs name two blocks at height {each.block_number}")
            if found.setdefault((each.block_number, each.log.log_index), each) != each:
                raise Untrusted("two logs have the same index")
    return tuple(found[place] for place in sorted(found))


def _too_large(failure: ChainFailure, *, one_block: bool) -> ChainFailure:
    if one_block and isinstance(failure, RangeTooLarge):
        # "limit exceeded" for one block and a few addresses is how public nodes of BSC say that they serve no logs.
        return MethodRefused("the endpoint refuses the logs of even one block")
    return RangeTooLarge(str(failure))
