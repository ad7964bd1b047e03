"""JSON from an endpoint → facts of the domain, strictly: what is not exactly as the standard says is not believed."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Literal, TypeVar

import msgspec

from verifier.domain import ChainFailure, FoundLog, Header, Log, Receipt

MAX_HEIGHT = 2**63 - 1
MAX_LOG_INDEX = 2**31 - 1
MAX_TIMESTAMP = 253_402_300_799  # the end of the year 9999, past which no Timestamp goes

# By length only: `_hex` and `_number` look at the digits of all that is made a fact of, and remember, for what a batch
# says it says fifty times (its block, its token, whom it pays). A pattern for each field, matched each time, was half
# of reading a receipt: 12 µs, and 6 now.
Quantity = Annotated[str, msgspec.Meta(max_length=18)]
Hash = Annotated[str, msgspec.Meta(min_length=66, max_length=66)]
Address = Annotated[str, msgspec.Meta(min_length=42, max_length=42)]
REMEMBERED = 4096
HEX = re.compile("0x[0-9a-fA-F]*")
QUANTITY = re.compile("0x(0|[1-9a-fA-F][0-9a-fA-F]*)")

Value = TypeVar("Value")


class Malformed(ChainFailure):
    """An answer that breaks the standard's form: its endpoint cannot be trusted."""

    kind = "malformed"


class _Log(msgspec.Struct, rename="camel"):
    address: Address
    topics: Annotated[list[Hash], msgspec.Meta(max_length=4)]
    data: str
    block_hash: Hash
    block_number: Quantity
    transaction_hash: Hash
    log_index: Quantity
    removed: bool = False


class _Receipt(msgspec.Struct, rename="camel"):
    transaction_hash: Hash
    block_hash: Hash
    block_number: Quantity
    status: Literal["0x0", "0x1"]
    logs: list[_Log]


class _Block(msgspec.Struct, rename="camel"):
    hash: Hash
    number: Quantity
    timestamp: Quantity


class _Contents(msgspec.Struct):
    hash: Hash
    transactions: list[Hash]


_receipt = msgspec.json.Decoder(_Receipt | None)
_block = msgspec.json.Decoder(_Block | None)
_contents = msgspec.json.Decoder(_Contents | None)
_quantity = msgspec.json.Decoder(Quantity)
_logs = msgspec.json.Decoder(list[_Log])


def quantity(raw: msgspec.Raw) -> int:
    """A non-negative integer below 2^63. Errors: Malformed."""
    return _number(_decoded(_quantity, raw), MAX_HEIGHT)


def header(raw: msgspec.Raw) -> Header | None:
    """A block, or None where the endpoint knows none. Errors: Malformed."""
    block = _decoded(_block, raw)
    if block is None:
        return None
    return Header(_number(block.number, MAX_HEIGHT), _hex(block.hash), _number(block.timestamp, MAX_TIMESTAMP))


def transactions(raw: msgspec.Raw, block_hash: str) -> frozenset[str] | None:
    """The hashes of the transactions of the block asked for, or None where it is not known. Errors: Malformed."""
    found = _decoded(_contents, raw)
    if found is None:
        return None
    if found.hash.lower() != block_hash:
        raise Malformed("the block is another one")
    return frozenset(each.lower() for each in found.transactions)


def receipt(raw: msgspec.Raw, tx_hash: str) -> Receipt | None:
    """The receipt of the transaction asked for, or None where the endpoint knows none. Errors: Malformed."""
    found = _decoded(_receipt, raw)
    if found is None:
        return None
    if found.transaction_hash.lower() != tx_hash:
        raise Malformed("the receipt is of another transaction")
    logs = tuple(_log(found, each) for each in found.logs)
    if len({log.log_index for log in logs}) != len(logs):
        raise Malformed("two logs have the same index")
    return Receipt(
        tx_hash=tx_hash,
        block_number=_number(found.block_number, MAX_HEIGHT),
        block_hash=_hex(found.block_hash),
        succeeded=found.status == "0x1",
        logs=logs,
    )


def logs(raw: msgspec.Raw) -> list[FoundLog]:
    """Logs of mined blocks (one that is pending has no block). Errors: Malformed."""
    return [
        FoundLog(
            log=_fact(each),
            tx_hash=_hex(each.transaction_hash),
            block_number=_number(each.block_number, MAX_HEIGHT),
            block_hash=_hex(each.block_hash),
        )
        for each in _decoded(_logs, raw)
    ]


def _log(of: _Receipt, log: _Log) -> Log:
    theirs = (log.transaction_hash.lower(), log.block_hash.lower(), log.block_number.lower())
    if theirs != (of.transaction_hash.lower(), of.block_hash.lower(), of.block_number.lower()):
        raise Malformed("a log is of another transaction or block than its receipt")
    return _fact(log)


def _fact(log: _Log) -> Log:
    return Log(
        address=_hex(log.address),
        topics=tuple([_hex(topic) for topic in log.topics]),
        data=_whole_bytes(log.data),
        log_index=_number(log.log_index, MAX_LOG_INDEX),
        removed=log.removed,
    )


@lru_cache(REMEMBERED)
def _hex(text: str) -> str:
    if not HEX.fullmatch(text):
        raise Malformed("an answer is not as the standard says: expected hex digits")
    return text.lower()


def _whole_bytes(text: str) -> str:
    if len(text) % 2 or not HEX.fullmatch(text):
        raise Malformed("an answer is not as the standard says: expected the hex digits of whole bytes")
    return text.lower()


@lru_cache(REMEMBERED)
def _number(text: str, limit: int) -> int:
    if not QUANTITY.fullmatch(text):
        raise Malformed("an answer is not as the standard says: expected a quantity")
    value = int(text, 16)
    if value > limit:
        raise Malformed(f"a quantity is above {limit}")
    return value


def _decoded(decoder: msgspec.json.Decoder[Value], raw: msgspec.Raw) -> Value:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"an answer is not as the standard says: {error}") from None
