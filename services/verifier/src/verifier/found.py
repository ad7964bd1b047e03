"""Looking through blocks for transfers: what is asked of an endpoint, and what is made of its answers."""

from __future__ import annotations

from collections.abc import Container, Sequence

from verifier import wire
from verifier.domain import (
    ADDRESS_PADDING,
    TRANSFER_TOPIC,
    ChainFailure,
    FoundLog,
    Header,
    LogRange,
    Receipt,
    Untrusted,
    movement,
)
from verifier.jsonrpc import LOGS_METHOD, BlockRefused, Call, RangeTooLarge, Result, TooLarge

# bsc-geth takes 1000 values in one place of a filter, others fewer.
RECIPIENTS_PER_CALL = 500


def log_calls(
    first: int, last: int, contracts: Sequence[str], recipients: Sequence[str] | None, cursor: int | None
) -> list[Call]:
    """The header of the range's end, that at the cursor's height where there is one, and the logs."""
    heights = [last] if cursor is None else [last, cursor]
    return [
        *(Call("eth_getBlockByNumber", (hex(height), False)) for height in heights),
        *(Call(LOGS_METHOD, (query,)) for query in _queries(first, last, contracts, recipients)),
    ]


def log_range(
    answers: Sequence[Result], operator: str, first: int, last: int, cursor: int | None, *, filtered: bool
) -> LogRange:
    """What the answers to `log_calls` say. Errors: ChainFailure, the first that any of them is."""
    end = _header(answers[0], last)
    if end is None:
        raise Untrusted(f"the endpoint does not know block {last}, the end of the range")
    at_cursor = None if cursor is None else _header(answers[1], cursor)
    if cursor is not None and at_cursor is None:
        raise Untrusted(f"the endpoint does not know block {cursor}, up to which was looked through")
    logs = answers[1:] if cursor is None else answers[2:]
    return LogRange(operator, end, at_cursor, _logs(logs, first, end, filtered=filtered))


def logs_in(
    receipt: Receipt, block: Header, contracts: Container[str], recipients: Container[str] | None
) -> list[FoundLog]:
    """The logs of a transaction of this block that `log_calls` would find. Errors: Untrusted when it is of another."""
    if receipt.block_hash != block.hash:
        raise Untrusted("a transaction is in another block than the one that holds it")
    moved = [(log, movement(log)) for log in receipt.logs]
    return [
        FoundLog(log, receipt.tx_hash, block.number, block.hash)
        for log, each in moved
        if each is not None and each.contract in contracts and (recipients is None or each.recipient in recipients)
    ]


def _queries(
    first: int, last: int, contracts: Sequence[str], recipients: Sequence[str] | None
) -> list[dict[str, object]]:
    query = {"address": contracts, "fromBlock": hex(first), "toBlock": hex(last)}
    if recipients is None:
        return [{**query, "topics": [TRANSFER_TOPIC]}]
    topics = [ADDRESS_PADDING + recipient.removeprefix("0x") for recipient in recipients]
    chunks = (topics[start : start + RECIPIENTS_PER_CALL] for start in range(0, len(topics), RECIPIENTS_PER_CALL))
    return [{**query, "topics": [TRANSFER_TOPIC, None, chunk]} for chunk in chunks]


def _header(answer: Result, number: int) -> Header | None:
    if isinstance(answer, ChainFailure):
        return None
    found = wire.header(answer)
    return found if found is not None and found.number == number else None


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
        return BlockRefused("the endpoint refuses the logs of even one block")
    return RangeTooLarge(str(failure))
