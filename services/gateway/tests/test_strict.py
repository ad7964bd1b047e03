"""Strict reading: only the exact form is taken, every wrong field is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.schemas.given import CreateMerchant, CreateOrder, Nothing, OrderListQuery, OrderQuery, RefundOrder
from gateway.strict import JsonReader, QueryReader
from kit.errors import Fault, Kind

ORDERS = JsonReader(CreateOrder)
GOOD = {"id": "ord_1", "merchant_id": "mrc_1", "asset": "USDT", "amount_minor": 5}
FIELDS = [*GOOD, "customer_wallet_address", "chain", "expires_in_seconds", "metadata"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def raw(**changes: str) -> bytes:
    """The good body with some values replaced by JSON text."""
    members = {name: json.dumps(value) for name, value in GOOD.items()} | changes
    return ("{" + ", ".join(f'"{name}": {text}' for name, text in members.items()) + "}").encode()


def refusal(reader: JsonReader[Any], body: bytes) -> Fault:
    """The fault that a body is refused with."""
    with pytest.raises(Fault) as caught:
        reader.read(body)
    assert (caught.value.kind, caught.value.reason) == (Kind.INVALID, "invalid_request")
    return caught.value


def fields_of(fault: Fault) -> list[str]:
    """The wrong fields."""
    return [item.field for item in fault.violations]


def test_takes_the_exact_form() -> None:
    """A right body gives its struct, optional fields absent or null."""
    body = raw(chain="null", metadata='{"a": [1.50, "x"]}')
    order = ORDERS.read(body)
    assert (
        order.id,
        order.amount_minor,
        order.chain,
        bytes(order.metadata),
    ) == ("ord_1", 5, None, b'{"a": [1.50, "x"]}')


@pytest.mark.parametrize(
    "amount",
    ['"5"', "5.0", "5.5", "1e3", "5e0", "true", "null", "0", "-1", "-0", "[5]", "{}", "9007199254740992", "9" * 400,
     "9" * 5000],
)  # fmt: skip
def test_refuses_every_other_form_of_an_amount(amount: str) -> None:
    """Strings, floats, exponents, booleans, zero, negative and too large numbers are no amounts."""
    assert fields_of(refusal(ORDERS, raw(amount_minor=amount))) == ["amount_minor"]


@pytest.mark.parametrize("zero", ["-0", " -0 ", "0.0", "-0.0", "0e0", "-0e0"])
def test_refuses_every_other_form_of_zero(zero: str) -> None:
    """Where zero is allowed, it is the plain one; in free-form data and in text the others are nobody's business."""
    merchants = JsonReader(CreateMerchant)
    body = '{"name": "-0", "underpayment_tolerance_minor": %s}'
    assert fields_of(refusal(merchants, (body % zero).encode())) == ["underpayment_tolerance_minor"]
    assert merchants.read((body % "0").encode()).underpayment_tolerance_minor == 0
    assert bytes(ORDERS.read(raw(metadata=f'{{"a":{zero}}}')).metadata) == f'{{"a":{zero}}}'.encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b"5",
        b'"x"',
        b"{",
        raw() + b" x",
        raw() + raw(),
        b"\xef\xbb\xbf" + raw(),
        raw(amount_minor="05"),
        raw(amount_minor="+5"),
        raw(amount_minor="0x5"),
        raw(amount_minor="NaN"),
        raw(amount_minor="Infinity"),
        raw(id="'ord'"),
        raw(id='"a\nb"'),
        raw(id='"\\ud800"'),
        raw(id='"\\x41"'),
        raw()[:-1] + b",}",
        b"/* */" + raw(),
        raw(metadata="[" * 30_000 + "]" * 30_000),
        raw(metadata='{"a":' * 10_000 + "1" + "}" * 10_000),
    ],
)
def test_refuses_what_is_not_json(body: bytes) -> None:
    """Malformed, trailing and endless documents are refused as a whole."""
    refusal(ORDERS, body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (raw()[:-1] + b', "amount_minor": 5}', "more than once"),
        (raw()[:-1] + b', "amount_\\u006dinor": 5}', "more than once"),
        (raw(amount_minor='"5"')[:-1] + b', "amount_minor": 5}', "more than once"),
        (raw(metadata='{"a": 1, "a": 1}'), "more than once"),
        (raw(metadata='{"a": {"b": [{"c": 1, "c": 2}]}}'), "more than once"),
        (raw(metadata='{"a": "\\u0000"}'), "NUL"),
        (raw(metadata='{"\\u0000": 1}'), "NUL"),
        (raw(metadata='{"a": 1e999}'), "out of range"),
        (raw(metadata='{"a":' * 40 + "1" + "}" * 40), "nested"),
        (raw(metadata='{"a": "%s"}').replace(b"%s", b"\xff"), "UTF-8"),
        (raw(metadata='{"a": "%s"}').replace(b"%s", b"\xed\xa0\x80"), "UTF-8"),
    ],
)
def test_refuses_what_the_decoder_lets_through(body: bytes, message: str) -> None:
    """Duplicate keys, NUL, depth, endless numbers and broken text are found wherever they are."""
    assert message in refusal(ORDERS, body).detail


@pytest.mark.parametrize("inmost", ["{}", "[]", '{"a": 1}', "[1]"])
def test_metadata_may_have_thirty_levels(inmost: str) -> None:
    """Thirty are taken and thirty-one are not, also where the inmost holds nothing."""
    ORDERS.read(raw(metadata='{"a":' * 29 + inmost + "}" * 29))
    assert "nested" in refusal(ORDERS, raw(metadata='{"a":' * 30 + inmost + "}" * 30)).detail


def test_names_every_wrong_field() -> None:
    """All wrong fields are told at once: unknown, mistyped and missing ones."""
    fault = refusal(ORDERS, b'{"id": "a b", "merchant_id": 5, "amount_minor": "5", "amount": 5}')
    assert {"amount", "id", "merchant_id", "amount_minor", "asset"} == set(fields_of(fault))
    assert {"is required"} == {item.message for item in fault.violations if item.field == "asset"}


def test_refuses_nul_in_text() -> None:
    """PostgreSQL holds no NUL, so none gets that far; an escaped backslash before u0000 is none."""
    refund = '{"order_id": "o", "refund_id": "r", "reason": "%s"}'
    assert fields_of(refusal(JsonReader(RefundOrder), (refund % "a\\u0000b").encode())) == ["reason"]
    assert JsonReader(RefundOrder).read((refund % "a\\\\u0000b").encode()).reason == "a\\u0000b"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """No bytes raise anything but the one fault."""
    refusal(ORDERS, body)  # no bytes of chance make a whole order


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*FIELDS, "other"]), json_values, max_size=9))
def test_any_members_are_read_exactly_or_refused(members: dict[str, Any]) -> None:
    """What is taken is what was given: no value is turned into another."""
    body = json.dumps(GOOD | members).encode()
    try:
        order = ORDERS.read(body)
    except Fault:
        assert all(item.field and item.message for item in refusal(ORDERS, body).violations)
        return
    for name, value in (GOOD | members).items():
        taken = getattr(order, name)
        assert value == (json.loads(bytes(taken)) if name == "metadata" else taken)
        assert name == "metadata" or type(value) is type(taken)


@given(st.lists(st.tuples(st.sampled_from(FIELDS), json_values), min_size=1, max_size=4))
def test_no_duplicate_gets_through(extra: list[tuple[str, Any]]) -> None:
    """A key that is given twice is refused, wherever it stands and whatever its value."""
    pairs = [*GOOD.items(), *extra]
    names = [name for name, _ in pairs]
    body = ("{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs) + "}").encode()
    if len(set(names)) < len(names):
        refusal(ORDERS, body)


def test_reads_queries() -> None:
    """Integers in their plain form, defaults where nothing is given."""
    reader = QueryReader(OrderListQuery)
    assert OrderListQuery("PAID", 7, "abc=") == reader.read(b"status=PAID&limit=7&cursor=abc%3D", {})
    assert OrderListQuery(None, 50, None) == reader.read(b"", {})


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (b"limit=0", "limit"),
        (b"limit=101", "limit"),
        (b"limit=5.0", "limit"),
        (b"limit=%205", "limit"),
        (b"limit=%2B5", "limit"),
        (b"limit=05", "limit"),
        (b"limit=1_0", "limit"),
        (b"limit=", "limit"),
        (b"limit=" + b"9" * 50, "limit"),
        (b"limit=5&limit=5", "limit"),
        (b"status=paid", "status"),
        (b"status=", "status"),
        (b"cursor=", "cursor"),
        (b"cursor=%00", "cursor"),
        (b"cursor=" + b"x" * 257, "cursor"),
        (b"offset=1", "offset"),
        (b"limit", "query"),
        (b"&&", "query"),
        (b"cursor=%ff", "query"),
        (b"cursor=\xff", "query"),
        (b"a=" + b"x" * 5000, "query"),
        (b"&".join(b"a%d=1" % number for number in range(60)), "query"),
    ],
)
def test_refuses_other_queries(query: bytes, field: str) -> None:
    """Unknown, repeated and mistyped parameters are named."""
    with pytest.raises(Fault) as caught:
        QueryReader(OrderListQuery).read(query, {})
    assert [field] == fields_of(caught.value)


def test_ids_of_dots_are_made_no_more_and_read_still() -> None:
    """A client takes `.` and `..` out of a path, so none is made; what was made before can be named."""
    for dots in (".", "..", "." * 64):
        assert fields_of(refusal(ORDERS, raw(id=f'"{dots}"'))) == ["id"]
        assert QueryReader(OrderQuery).read(f"id={dots}".encode(), {}).id == dots
    for id in ("." * 63 + "a", "a" + "." * 63, ":"):
        assert ORDERS.read(raw(id=f'"{id}"')).id == id


def test_nothing_is_nothing() -> None:
    """An operation without parameters takes none."""
    assert Nothing() == QueryReader(Nothing).read(b"", {})
    with pytest.raises(Fault):
        QueryReader(Nothing).read(b"a=1", {})
