"""Answers that are not exactly as the standard says are not believed."""

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier import wire
from verifier.wire import Malformed

TX = "0x" + "11" * 32
BLOCK = "0x" + "22" * 32
LOG = {
    "address": "0x" + "55" * 20,
    "topics": ["0x" + "33" * 32],
    "data": "0x00FF",
    "blockHash": BLOCK,
    "blockNumber": "0xA",
    "transactionHash": TX,
    "logIndex": "0x0",
    "removed": False,
}
RECEIPT = {
    "transactionHash": TX,
    "blockHash": BLOCK,
    "blockNumber": "0xa",
    "status": "0x1",
    "logs": [LOG],
    "gasUsed": "0x1",
}
BLOCK_JSON = {"hash": BLOCK, "number": "0xa", "timestamp": "0x64", "transactions": []}
MISSING = object()


def raw(value):
    """A value as it comes in an answer."""
    return msgspec.Raw(json.dumps(value).encode())


def changed(base, name, value):
    """A copy with one field changed or left out."""
    copy = {**base, name: value}
    if value is MISSING:
        del copy[name]
    return copy


def test_a_good_receipt():
    """What is right is read, in lower case."""
    found = wire.receipt(raw(RECEIPT), TX)
    assert found is not None
    assert (
        found.tx_hash,
        found.block_number,
        found.block_hash,
        found.succeeded,
        len(found.logs),
    ) == (TX, 10, BLOCK, True, 1)
    assert found.logs[0].data == "0x00ff"
    assert wire.receipt(raw(None), TX) is None


BAD_HEX = [MISSING, None, 1, True, "", "0x", "11", "0xzz", TX + "\n", TX + "0", [TX], "0x_1", " 0x1"]
BAD_NUMBER = [MISSING, None, 10, 1.5, True, "", "0x", "10", "0x0a", "-0x1", "0x1_0", "0xa\n", "0x" + "f" * 17, " 0xa"]


@pytest.mark.parametrize("value", [*BAD_HEX, "0x" + "44" * 32])
@pytest.mark.parametrize("field", ["transactionHash", "blockHash"])
def test_bad_hashes(field, value):
    """A hash that is none, or another one than asked for or than the logs name."""
    with pytest.raises(Malformed):
        wire.receipt(raw(changed(RECEIPT, field, value)), TX)
    with pytest.raises(Malformed):
        wire.receipt(raw({**RECEIPT, "logs": [changed(LOG, field, value)]}), TX)


@pytest.mark.parametrize("value", [*BAD_NUMBER, "0xb", "0xffffffffffffffff"])
def test_bad_heights(value):
    """A height that is none, too large, or another one than the logs name."""
    with pytest.raises(Malformed):
        wire.receipt(raw(changed(RECEIPT, "blockNumber", value)), TX)
    with pytest.raises(Malformed):
        wire.receipt(raw({**RECEIPT, "logs": [changed(LOG, "blockNumber", value)]}), TX)


@pytest.mark.parametrize("value", [MISSING, None, 1, True, "0x", "0x2", "0x01", "1", "0x1\n", "success"])
def test_bad_status(value):
    """A status that is neither 0 nor 1 decides nothing."""
    with pytest.raises(Malformed):
        wire.receipt(raw(changed(RECEIPT, "status", value)), TX)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("address", value) for value in BAD_HEX),
        *(("topics", value) for value in [MISSING, None, TX, [1], ["0x12"], [TX] * 5, [None]]),
        *(("data", value) for value in [MISSING, None, 1, "", "0x1", "00", "0xgg", "0x00\n"]),
        *(("logIndex", value) for value in [*BAD_NUMBER, "0x80000000"]),
        *(("removed", value) for value in [None, 0, "false"]),
    ],
)
def test_bad_logs(field, value):
    """A log with a broken field spoils its receipt."""
    with pytest.raises(Malformed):
        wire.receipt(raw({**RECEIPT, "logs": [changed(LOG, field, value)]}), TX)


@pytest.mark.parametrize("value", [[], {}, "x", 1, True, [RECEIPT], {"logs": []}])
def test_not_a_receipt(value):
    """Something else altogether."""
    with pytest.raises(Malformed):
        wire.receipt(raw(value), TX)


def test_two_logs_with_one_index():
    """The index identifies a log for ever: it cannot be there twice."""
    with pytest.raises(Malformed):
        wire.receipt(raw({**RECEIPT, "logs": [LOG, LOG]}), TX)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("hash", value) for value in BAD_HEX),
        *(("number", value) for value in BAD_NUMBER),
        *(("timestamp", value) for value in [*BAD_NUMBER, "0xffffffffff"]),
    ],
)
def test_bad_blocks(field, value):
    """A block with a broken field is no block (a pending one has no hash)."""
    with pytest.raises(Malformed):
        wire.header(raw(changed(BLOCK_JSON, field, value)))


def test_what_is_in_a_block():
    """The transactions of exactly the block that was asked for, in lower case; one that is not known holds nothing."""
    block = {**BLOCK_JSON, "transactions": [TX, "0x" + "AA" * 32]}
    assert {TX, "0x" + "aa" * 32} == wire.transactions(raw(block), BLOCK)
    assert wire.transactions(raw(BLOCK_JSON), BLOCK) == frozenset()
    assert wire.transactions(raw(None), BLOCK) is None
    for bad in ({"hash": TX}, {"transactions": None}, {"transactions": [{"hash": TX}]}, {"transactions": ["0x12"]}):
        with pytest.raises(Malformed):
            wire.transactions(raw({**block, **bad}), BLOCK)


@given(data=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_noise(data):
    """No bytes make anything but a receipt, nothing or Malformed."""
    with suppress(Malformed):
        assert wire.receipt(msgspec.Raw(data), TX) is None


def test_deep_nesting():
    """An answer nested very deep is refused, not a crash."""
    with pytest.raises(Malformed):
        wire.receipt(msgspec.Raw(b'{"x":' + b"[" * 100_000), TX)


def test_good_logs():
    """Logs of a range are read like those of a receipt, in lower case."""
    (found,) = wire.logs(raw([{**LOG, "blockTimestamp": "0x1"}]))
    assert (found.tx_hash, found.block_number, found.block_hash) == (TX, 10, BLOCK)
    assert (found.log.address, found.log.data, found.log.log_index) == (LOG["address"], "0x00ff", 0)
    assert wire.logs(raw([])) == []


@pytest.mark.parametrize("name", sorted(LOG.keys() - {"removed"}))
@pytest.mark.parametrize("value", [MISSING, None, 7, "0x", "0xg", [], {}])
def test_bad_logs_are_not_believed(name, value):
    """A log that lacks a field, or holds what the standard does not know, spoils its answer."""
    if (name, value) in (("data", "0x"), ("topics", [])):
        assert len(wire.logs(raw([changed(LOG, name, value)]))) == 1
        return
    for answer in ([LOG, changed(LOG, name, value)], LOG, None):
        with pytest.raises(Malformed):
            wire.logs(raw(answer))
