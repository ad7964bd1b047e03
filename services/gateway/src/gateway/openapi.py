"""The OpenAPI 3.1 document, made from the operations and the structs that the code itself uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway import problem
from gateway.operation import Access, Operation, Success
from gateway.schemas.answers import Problem
from gateway.schemas.given import Nothing

INTRODUCTION = """\
Create an order, let the customer pay it on chain, be told by the chain itself that it is paid.

Amounts are integers in the asset's minor units. Times are RFC 3339 in UTC. Bodies are strict: unknown fields,
duplicate keys, and numbers in any form but the plain integer are refused. Every answer names its request in
`X-Request-Id`; send your own in the same header if you like. Errors are `application/problem+json` (RFC 9457).
Creating and refunding are idempotent for ever on the id that you give: after a 5xx or a lost answer, send the same
again."""

_HEADERS = {
    "X-Request-Id": {
        "description": "Names this request in logs and traces.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,128}$"},
    },
    "Retry-After": {
        "description": "Seconds to wait before trying again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "Idempotent-Replayed": {
        "description": "`true` when the same request was served before.",
        "schema": {"type": "string", "const": "true"},
    },
    "Allow": {"description": "The methods of this path.", "required": True, "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "How to authenticate.", "required": True, "schema": {"type": "string"}},
}
_SECURITY: dict[Access, list[dict[str, list[str]]]] = {
    Access.PUBLIC: [],
    Access.KEY: [{"merchantKey": []}],
    Access.OPTIONAL_KEY: [{}, {"merchantKey": []}],
    Access.ADMIN: [{"adminKey": []}],
}
_ACCESS_ERRORS: dict[Access, tuple[tuple[int, str], ...]] = {
    Access.PUBLIC: (),
    Access.KEY: ((401, "missing_api_key"), (401, "invalid_api_key")),
    Access.OPTIONAL_KEY: ((401, "invalid_api_key"),),
    Access.ADMIN: ((401, "missing_admin_key"), (401, "invalid_admin_key")),
}
_COMMON_ERRORS = ((405, "method_not_allowed"), (500, "internal"), (503, "overloaded"))
_BODY_ERRORS = ((413, "payload_too_large"), (415, "unsupported_media_type"))
_STATUS_HEADERS = {401: "WWW-Authenticate", 405: "Allow", 429: "Retry-After", 503: "Retry-After"}


def document(operations: Sequence[Operation]) -> bytes:
    """The document, as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    named: dict[str, type[msgspec.Struct]] = {"Problem": Problem}
    for operation in operations:
        named |= {success.body.__name__: success.body for success in operation.success if success.body}
        if operation.method == "POST":
            named[operation.given.__name__] = operation.given
    content = {
        "openapi": "3.1.0",
        "info": {"title": "OSPay", "version": "1", "description": INTRODUCTION},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(list(named.values())),
            "headers": _HEADERS,
            "securitySchemes": {
                "merchantKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "adminKey": {"type": "apiKey", "in": "header", "name": "X-Admin-Key"},
            },
        },
    }
    return msgspec.json.encode(content)


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "security": _SECURITY[operation.access],
        "responses": _responses(operation),
    }
    if operation.method == "POST":
        media: dict[str, Any] = {"schema": _reference(operation.given)}
        if operation.example is not None:
            media["example"] = operation.example
        described["requestBody"] = {"required": True, "content": {"application/json": media}}
    elif parameters := _parameters(operation):
        described["parameters"] = parameters
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    schema = _schemas([operation.given])[operation.given.__name__]
    return [
        {
            "name": name,
            "in": "path" if "{" + name + "}" in operation.path else "query",
            "required": name in schema.get("required", ()),
            "description": found.get("description", ""),
            "schema": found,
        }
        for name, found in ((name, _without_null(each)) for name, each in schema["properties"].items())
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is there or not; it cannot be null as a member of a body can."""
    found = {key: value for key, value in schema.items() if key != "anyOf" and value is not None}
    for kind in schema.get("anyOf", ()):
        found |= {} if kind == {"type": "null"} else kind
    if isinstance(found.get("type"), list):
        found["type"] = found["type"][0]
    return found


def _responses(operation: Operation) -> dict[str, Any]:
    responses = {str(success.status): _success(success) for success in operation.success}
    errors = [*_ACCESS_ERRORS[operation.access], (400, "invalid_request"), *operation.errors, *_COMMON_ERRORS]
    if operation.method == "POST":
        errors += _BODY_ERRORS
    if operation.access is not Access.PUBLIC or operation.given is not Nothing:
        errors.append((503, "unavailable"))
    for status in sorted({status for status, _ in errors}):
        responses[str(status)] = _error(status, [code for each, code in errors if each == status])
    return responses


def _success(success: Success) -> dict[str, Any]:
    headers = {"X-Request-Id": _header("X-Request-Id")}
    if success.replayed:
        headers["Idempotent-Replayed"] = _header("Idempotent-Replayed")
    if success.body is not None:
        schema = _reference(success.body)
    else:
        schema = {"type": "object"} if success.media_type == "application/json" else {"type": "string"}
    media: dict[str, Any] = {"schema": schema}
    if success.example is not None:
        media["example"] = success.example
    return {"description": success.description, "headers": headers, "content": {success.media_type: media}}


def _error(status: int, codes: list[str]) -> dict[str, Any]:
    headers = {"X-Request-Id": _header("X-Request-Id")}
    if status in _STATUS_HEADERS:
        name = _STATUS_HEADERS[status]
        headers[name] = _header(name)
    example = {
        "type": f"urn:ospay:problem:{codes[0]}",
        "title": codes[0].replace("_", " ").capitalize(),
        "status": status,
        "detail": "…",
        "instance": "/…",
        "code": codes[0],
        "request_id": "0b5c…",
    }
    if status == 400:
        example["errors"] = [{"field": "amount_minor", "message": "Expected `int`, got `str`"}]
    return {
        "description": "Codes: " + ", ".join(f"`{code}`" for code in codes) + ".",
        "headers": headers,
        "content": {problem.CONTENT_TYPE.decode(): {"schema": _reference(Problem), "example": example}},
    }


def _reference(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{struct.__name__}"}


def _header(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}


def _schemas(types: list[type[msgspec.Struct]]) -> dict[str, Any]:
    """JSON Schema 2020-12 of these structs and of all that they name, by name."""
    _, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    for component in components.values():
        for name, schema in component.get("properties", {}).items():
            component["properties"][name] = _flat(schema)
    return components


def _flat(schema: dict[str, Any]) -> dict[str, Any]:
    """`anyOf: [{type: integer, …}, {type: null}]` as `type: [integer, null]`: the same, and easier to read."""
    kinds = schema.get("anyOf", [])
    if len(kinds) == 2 and kinds[1] == {"type": "null"} and "type" in kinds[0]:
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        return {**kinds[0], **rest, "type": [kinds[0]["type"], "null"]}
    return schema
