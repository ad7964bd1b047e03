"""Strict reading of bodies and query strings: what is not exactly right is refused, and every wrong field is named.

msgspec refuses coercions and unknown fields by itself. It takes the last of duplicate keys and `-0` for 0, and passes
NUL characters and what is inside free-form objects; a second, slow look is taken only at bodies that can hold one of
these.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Generic, NoReturn, TypeVar, get_args
from urllib.parse import parse_qsl

import msgspec

from kit.errors import Fault, Kind, Violation

T = TypeVar("T", bound=msgspec.Struct)

MAX_DEPTH = 32
MAX_VIOLATIONS = 20
MAX_QUERY_BYTES = 4096
_INTEGER = re.compile(r"(0|-?[1-9][0-9]{0,18})")
_AT = re.compile(r" - at `(\$[^`]*)`$")
_EMPTY = [None]  # an empty object or array is as deep as one that holds something


class JsonReader(Generic[T]):
    """Decodes JSON bodies into one struct type."""

    def __init__(self, struct: type[T]) -> None:
        self._fields = msgspec.structs.fields(struct)
        self._decoder = msgspec.json.Decoder(struct)

    def read(self, body: bytes) -> T:
        """The struct. Errors: Fault INVALID that names the fields."""
        try:
            given = self._decoder.decode(body)
        except (ValueError, RecursionError) as error:
            self._explain(body, error)
        values = msgspec.structs.astuple(given)
        present = len(values) - values.count(None) - values.count(msgspec.UNSET)
        # Every key brings a colon: as many colons as fields leave no room for a duplicate or a nested object. Arrays
        # nest without one, and how deep msgspec follows them depends on the interpreter's recursion limit.
        if body.count(b":") != present or b"[" in body or b"\\u0000" in body:
            _look_closely(body)
        if 0 in values and b"-0" in body:
            _refuse_negative_zeros(body)
        return given

    def _explain(self, body: bytes, error: Exception) -> NoReturn:
        if not isinstance(error, msgspec.ValidationError):
            refuse([Violation("body", _sentence(error))])
        try:
            members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        except (ValueError, RecursionError) as mistaken:
            refuse([Violation("body", _sentence(mistaken))])
        if found := _violations(self._fields, members, _decode_member):
            refuse(found)
        _look_closely(body)  # the wrong value was that of a duplicate
        refuse([Violation("body", _sentence(error))])


class QueryReader(Generic[T]):
    """Reads query strings and path parameters into one flat struct type."""

    def __init__(self, struct: type[T]) -> None:
        self._struct = struct
        self._fields = msgspec.structs.fields(struct)
        self._integers = {field.name for field in self._fields if _holds_integer(field.type)}

    def read(self, query: bytes, path: Mapping[str, str]) -> T:
        """The struct. Errors: Fault INVALID that names the parameters."""
        if not query and not path and not self._fields:
            return self._struct()
        members: dict[str, Any] = dict(path)
        for name, value in _pairs(query):
            if name in members:
                refuse([Violation(name[:64], "is given more than once")])
            members[name] = int(value) if name in self._integers and _INTEGER.fullmatch(value) else value
        try:
            return msgspec.convert(members, self._struct)
        except msgspec.ValidationError:
            refuse(_violations(self._fields, members, msgspec.convert))


def refuse(violations: list[Violation]) -> NoReturn:
    """Raises the fault of a request with these wrong fields."""
    shown = violations[:MAX_VIOLATIONS]
    detail = "; ".join(f"{item.field}: {item.message}" for item in shown[:5])
    raise Fault(Kind.INVALID, "invalid_request", detail, violations=shown) from None


def _pairs(query: bytes) -> list[tuple[str, str]]:
    if not query:
        return []
    if len(query) > MAX_QUERY_BYTES:
        refuse([Violation("query", f"is longer than {MAX_QUERY_BYTES} bytes")])
    try:
        return parse_qsl(
            query.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=50
        )
    except ValueError:
        refuse([Violation("query", "is malformed")])


def _holds_integer(kind: Any) -> bool:
    return kind is int or any(_holds_integer(part) for part in get_args(kind))


def _decode_member(raw: msgspec.Raw, type: Any) -> None:
    msgspec.json.decode(raw, type=type)


def _violations(fields: tuple[Any, ...], members: dict[str, Any], convert: Any) -> list[Violation]:
    """What is wrong with each member, by itself."""
    known = {field.name: field for field in fields}
    found = [Violation(name[:64], "is not a known field") for name in members if name not in known]
    for name, field in known.items():
        if name in members:
            try:
                convert(members[name], type=field.type)
            except ValueError as error:
                found.append(Violation(name, _sentence(error)))
        elif field.required:
            found.append(Violation(name, "is required"))
    return found


def _sentence(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "is not valid UTF-8"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    return _AT.sub("", str(error))


def _refuse_negative_zeros(body: bytes) -> None:
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    if found := [Violation(name, "Expected `int`, got `-0`") for name, raw in members.items() if bytes(raw) == b"-0"]:
        refuse(found)


def _look_closely(body: bytes) -> None:
    """Refuses duplicate keys, NUL, lone surrogates, deep nesting and numbers past any reader, anywhere in the body."""
    try:
        text = body.decode()
        document = json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        refuse([Violation("body", _sentence(error))])
    _walk(document)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"has the key {json.dumps(name[:64])} more than once")
        seen.add(name)
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("has a number out of range")
    return number


def _walk(document: Any) -> None:
    level = [document]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for value in level:
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, dict):
                deeper += [*value.keys(), *value.values()] or _EMPTY
            elif isinstance(value, list):
                deeper += value or _EMPTY
        if not deeper:
            return
        level = deeper
    refuse([Violation("body", f"is nested deeper than {MAX_DEPTH} levels")])


def _check_text(text: str) -> None:
    if "\0" in text:
        refuse([Violation("body", "has a NUL character in a string")])
    try:
        text.encode()
    except UnicodeEncodeError:
        refuse([Violation("body", "has half of a surrogate pair in a string")])
