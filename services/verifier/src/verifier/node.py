"""One endpoint of a chain: typed reads, each believed only as far as it can be true."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog

from chains import Chain
from verifier import wire
from verifier.domain import ChainFailure, FoundLog, Header, Heads, LogRange, Receipt, Told, Untrusted, believe_heads
from verifier.found import log_calls, log_range, logs_in
from verifier.jsonrpc import (
    CALL_SECONDS,
    BlockRefused,
    Call,
    JsonRpc,
    LeftOut,
    RangeTooLarge,
    Result,
    TooLarge,
    WrongChain,
)
from verifier.metrics import RPC_ERRORS

log = structlog.get_logger()

HEAD_SECONDS = 2.0
# Nodes are never at the same block; who is farther behind than this is not in order.
LAG_BLOCKS = 256
RECEIPTS_PER_CALL = 50


class Node:
    """The reads that verifying needs. `operator` runs the endpoint.

    `floor`, where it is asked for, is the highest final height that is believed so far: an endpoint may be somewhat
    behind it, but not behind what it told before (at first `mark`) unless that was above it.
    `failure` is why it was not believed or did not answer, None while it does. `finalized` is the newest final height
    that it told, believed or not. `logs_served` is None until eth_getLogs was tried.
    """

    def __init__(self, chain: Chain, rpc: JsonRpc, operator: str, mark: int) -> None:
        self.chain = chain
        self.operator = operator
        self.failure: ChainFailure | None = None
        self.finalized = 0
        self.logs_served: bool | None = None
        self._rpc = rpc
        self._highest = mark
        self._has_pinned = chain.pinned_block is None

    @property
    def healthy(self) -> bool:
        """Whether it answered last and was believed."""
        return self.failure is None and self._rpc.answers

    async def heads(self, floor: int, timeout: float = CALL_SECONDS) -> Heads:
        """The newest and the final block, now. Errors: ChainFailure."""
        with self._noting():
            return self._heads(await self._batch(self._head_calls(), timeout), floor)

    async def receipts(self, tx_hashes: Sequence[str], floor: int) -> tuple[Heads, dict[str, Told]]:
        """The heads, and by hash the receipt, None (unknown) or why it cannot be used. At most 90 hashes.

        The heads are read in the same batch, so "unknown" and the chain's time come from one node, and what is final
        is known before the canonical blocks are read. Errors: ChainFailure when nothing can be used.
        """
        head_calls = self._head_calls()
        calls = [Call("eth_getTransactionReceipt", (tx_hash,)) for tx_hash in tx_hashes]
        with self._noting():
            answers = await self._batch([*head_calls, *calls])
            heads = self._heads(answers[: len(head_calls)], floor)
        found = zip(tx_hashes, answers[len(head_calls) :], strict=True)
        return heads, {tx_hash: self._receipt(answer, tx_hash) for tx_hash, answer in found}

    async def headers(self, numbers: Collection[int], floor: int) -> Mapping[int, Header]:
        """The canonical blocks at these heights (at most 90) as far as the endpoint knows them.

        The heads are read along: behind one name may be several nodes, and of the blocks up to `floor` the one that
        tells them counts only for those that are final to itself. Errors: ChainFailure.
        """
        head_calls = self._head_calls()
        calls = [Call("eth_getBlockByNumber", (hex(number), False)) for number in numbers]
        with self._noting():
            answers = await self._batch([*head_calls, *calls])
            final = self._heads(answers[: len(head_calls)], floor).finalized
        found = zip(numbers, answers[len(head_calls) :], strict=True)
        headers = [_header(answer, number) for number, answer in found if number <= final or number > floor]
        return {header.number: header for header in headers if header is not None}

    async def transactions(self, block_hashes: Sequence[str]) -> Mapping[str, frozenset[str]]:
        """The hashes of the transactions of these blocks (at most 90), by the block's hash, as far as they are known.

        Errors: ChainFailure.
        """
        answers = await self._batch([Call("eth_getBlockByHash", (each, False)) for each in block_hashes])
        told = [(each, _transactions(answer, each)) for each, answer in zip(block_hashes, answers, strict=True)]
        return {each: found for each, found in told if found is not None}

    async def head_number(self) -> int:
        """The height of the newest block, now. Errors: ChainFailure."""
        answer = (await self._batch([Call("eth_blockNumber")], HEAD_SECONDS))[0]
        if isinstance(answer, ChainFailure):
            raise answer
        return wire.quantity(answer)

    async def logs(
        self,
        first: int,
        last: int,
        contracts: Sequence[str],
        recipients: Sequence[str] | None,
        floor: int,
        *,
        cursor: int | None = None,
    ) -> LogRange:
        """The Transfer logs of these contracts to these recipients (None: to anyone) in the blocks first … last.

        In one batch, so by one node, with the heads: one that lags shows no logs either. Of a single block whose logs
        are too much at once they are read from its receipts, when it is final.
        Errors: RangeTooLarge, MethodRefused (also when even one block is too much and none was shown before), other
        ChainFailure.
        """
        try:
            return await self._logs(first, last, contracts, recipients, floor, cursor)
        except (RangeTooLarge, BlockRefused) as failure:
            if first < last or (isinstance(failure, BlockRefused) and not self.logs_served):
                raise
            if last > floor:
                raise RangeTooLarge(f"the logs of block {last} alone are too many") from None
        return await self._logs_by_receipts(last, contracts, recipients, floor, cursor)

    async def _logs(
        self,
        first: int,
        last: int,
        contracts: Sequence[str],
        recipients: Sequence[str] | None,
        floor: int,
        cursor: int | None,
    ) -> LogRange:
        head_calls = self._head_calls()
        try:
            answers = await self._batch(
                [*head_calls, *log_calls(first, last, contracts, recipients, cursor)], whole=True
            )
        except TooLarge as failure:
            raise RangeTooLarge(str(failure)) from None
        self._heads(answers[: len(head_calls)], floor)
        told = answers[len(head_calls) :]
        return log_range(told, self.operator, first, last, cursor, filtered=recipients is not None)

    async def _logs_by_receipts(
        self, number: int, contracts: Sequence[str], recipients: Sequence[str] | None, floor: int, cursor: int | None
    ) -> LogRange:
        """The logs of one block from the receipts of its transactions, some at a time: nobody can make them too much.

        A transaction whose receipt alone is too large could not be proved either: it is passed over.
        """
        heads = self._head_calls()
        heights = [number] if cursor is None else [number, cursor]
        calls = [Call("eth_getBlockByNumber", (hex(height), False)) for height in heights]
        answers = await self._batch([*heads, *calls])
        self._heads(answers[: len(heads)], floor)
        block, *at_cursor = [_header(*each) for each in zip(answers[len(heads) :], heights, strict=True)]
        hashes = None if block is None else _transactions(answers[len(heads)], block.hash)
        if block is None or hashes is None or None in at_cursor:
            raise Untrusted(f"the endpoint does not know block {number} or the one at the cursor")
        log.warning(
            "logs_by_receipts", chain=self.chain.name, operator=self.operator, block=number, receipts=len(hashes)
        )
        named = None if recipients is None else frozenset(recipients)
        left, found = sorted(hashes), list[FoundLog]()
        while left:
            asked, left = left[:RECEIPTS_PER_CALL], left[RECEIPTS_PER_CALL:]
            told = await self._batch([Call("eth_getTransactionReceipt", (tx_hash,)) for tx_hash in asked])
            for tx_hash, answer in zip(asked, told, strict=True):
                if isinstance(answer, LeftOut):
                    left.append(tx_hash)
                elif isinstance(answer, TooLarge):
                    log.error("transaction_too_large", chain=self.chain.name, tx_hash=tx_hash, error=str(answer))
                else:
                    found.extend(logs_in(_mined(answer, tx_hash), block, contracts, named))
        found.sort(key=lambda each: each.log.log_index)
        return LogRange(self.operator, block, at_cursor[0] if at_cursor else None, tuple(found))

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except ChainFailure as failure:
            self.failure = failure
            self._has_pinned = self.chain.pinned_block is None  # whoever comes back may be another one
            if isinstance(failure, Untrusted):
                RPC_ERRORS.labels(self.chain.name, failure.kind).inc()
                log.warning("not_believed", chain=self.chain.name, operator=self.operator, error=str(failure))
            raise
        self.failure = None

    async def _batch(
        self, calls: Sequence[Call], timeout: float = CALL_SECONDS, *, whole: bool = False
    ) -> list[Result]:
        """The answers, if the endpoint has the pinned block: it is asked for along at first and after failures."""
        pinned = self.chain.pinned_block
        if self._has_pinned or pinned is None:
            return await self._rpc.batch(calls, timeout=timeout, whole=whole)
        pin, *answers = await self._rpc.batch(
            [Call("eth_getBlockByNumber", (hex(pinned.number), False)), *calls], timeout=timeout, whole=whole
        )
        found = _header(pin, pinned.number)
        if found is None:
            raise Untrusted(f"the endpoint does not show block {pinned.number}, which is pinned")
        if found.hash != pinned.hash:
            raise WrongChain(f"the endpoint of {self.chain.name} has another block {pinned.number} than is pinned")
        self._has_pinned = True
        return answers

    def _head_calls(self) -> list[Call]:
        tags = ["latest"] if self.chain.depth is not None else ["latest", "finalized"]
        return [Call("eth_getBlockByNumber", (tag, False)) for tag in tags]

    def _heads(self, answers: Sequence[Result], floor: int) -> Heads:
        head = _block(answers[0])
        if head is None:
            raise Untrusted("the endpoint has no newest block")
        final = _block(answers[1]) if self.chain.depth is None else None
        finalized = final.number if final else None
        if self.chain.depth is not None:
            finalized = head.number - self.chain.depth
        self.finalized = max(finalized or 0, 0)
        heads = believe_heads(head, finalized, max(min(floor, self._highest), floor - LAG_BLOCKS))
        self._highest = max(self._highest, heads.finalized)
        return heads

    def _receipt(self, answer: Result, tx_hash: str) -> Told:
        if isinstance(answer, ChainFailure):
            return answer
        try:
            return wire.receipt(answer, tx_hash)
        except wire.Malformed as failure:
            RPC_ERRORS.labels(self.chain.name, failure.kind).inc()
            log.warning(
                "receipt_malformed",
                chain=self.chain.name,
                operator=self.operator,
                tx_hash=tx_hash,
                error=str(failure),
            )
            return failure


def _header(answer: Result, number: int) -> Header | None:
    try:
        header = _block(answer)
    except ChainFailure:
        return None
    return header if header is not None and header.number == number else None


def _transactions(answer: Result, block_hash: str) -> frozenset[str] | None:
    try:
        return None if isinstance(answer, ChainFailure) else wire.transactions(answer, block_hash)
    except wire.Malformed:
        return None


def _mined(answer: Result, tx_hash: str) -> Receipt:
    if isinstance(answer, ChainFailure):
        raise answer
    receipt = wire.receipt(answer, tx_hash)
    if receipt is None:
        raise Untrusted("the endpoint does not know a transaction of a block that it shows")
    return receipt


def _block(answer: Result) -> Header | None:
    if isinstance(answer, ChainFailure):
        raise answer
    return wire.header(answer)
