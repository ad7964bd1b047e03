"""Looking through blocks for transfers: what is asked of an endpoint, and what is made of its answers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from verifier import wire
from verifier.domain import ADDRESS_PADDING, TRANSFER_TOPIC, ChainFailure, FoundLog, Header, LogRange, Untrusted
from verifier.jsonrpc import LOGS_METHOD, Call, Result

RECIPIENTS_AT_ONCE = 500


def log_calls(
    first: int, last: int, contracts: Sequence[str], recipients: Sequence[str] | None, cursor: int | None
) -> list[Call]:
    """The header of the range's end, that at the cursor's height where there is one, and the logs."""
    groups: list[list[str] | None] = [None]
    if recipients is not None:
        topics = [ADDRESS_PADDING + recipient.removeprefix("0x").lower() for recipient in recipients]
        groups = [topics[at : at + RECIPIENTS_AT_ONCE] for at in range(0, len(topics), RECIPIENTS_AT_ONCE)]
    where = {"fromBlock": hex(first), "toBlock": hex(last), "address": list(contracts)}
    return [
        *(Call("eth_getBlockByNumber", (hex(height), False)) for height in (last, cursor) if height is not None),
        *(Call(LOGS_METHOD, ({**where, "topics": [TRANSFER_TOPIC, None, group]},)) for group in groups),
    ]


def log_range(answers: Sequence[Result], operator: str, first: int, last: int, cursor: int | None) -> LogRange:
    """What the answers to `log_calls` say. Errors: ChainFailure, the first that any of them is."""
    end, *rest = [_raw(answer) for answer in answers]
    header = wire.header(end)
    at_cursor = wire.header(rest.pop(0)) if cursor is not None else None
    logs = tuple(log for answer in rest for log in wire.found_logs(answer))
    if header is None or header.number != last:
        raise Untrusted(f"the endpoint does not show block {last}")
    for log in logs:
        _refuse_strangers(log, first, header)
    return LogRange(operator, header, at_cursor, logs)


def _raw(answer: Result) -> msgspec.Raw:
    if isinstance(answer, ChainFailure):
        raise answer
    return answer


def _refuse_strangers(log: FoundLog, first: int, end: Header) -> None:
    if not first <= log.block_number <= end.number:
        raise Untrusted("a log lies outside the range that was asked for")
    if log.block_number == end.number and log.block_hash != end.hash:
        raise Untrusted("a log of the last block is of another block")
