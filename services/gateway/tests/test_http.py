"""What HTTP itself can bring: sizes, types, methods, paths, slow and broken clients."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator

import pytest

PROBLEM = {"type", "title", "status", "detail", "instance", "code", "request_id"}


async def raw(suite, *parts: bytes, wait: float = 15) -> bytes:
    """Sends bytes as they are; what comes back until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", suite.wiring.ports["gateway"][0])
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), wait)
    finally:
        writer.close()


def head(request: str, *lines: str) -> bytes:
    """The head of a request on a connection that is not kept."""
    return "\r\n".join([request, "Host: localhost", "Connection: close", *lines, "", ""]).encode()


def read(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers in lower case, body."""
    start, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = start.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return int(first.split()[1]), headers, body


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/orders", "GET, HEAD, OPTIONS, POST"),
        ("DELETE", "/orders/abc", "GET, HEAD, OPTIONS"),
        ("GET", "/orders/refund", "OPTIONS, POST"),
        ("HEAD", "/merchants", "OPTIONS, POST"),
        ("PATCH", "/health", "GET, HEAD, OPTIONS"),
        ("TRACE", "/health", "GET, HEAD, OPTIONS"),
        ("PROPFIND", "/orders", "GET, HEAD, OPTIONS, POST"),
    ],
)
async def test_wrong_method(client, method, path, allow) -> None:
    """405 that names the methods of the path, before any key is asked for."""
    answer = await client.send(method, path)
    assert (405, allow) == (answer.status, answer.headers["Allow"])
    if method != "HEAD":
        assert (set(answer.body), answer.code) == (PROBLEM, "method_not_allowed")


async def test_options_and_head(client) -> None:
    """OPTIONS names the methods; HEAD is GET without the body."""
    options = await client.send("OPTIONS", "/orders")
    assert (options.status, options.headers["Allow"], options.body) == (204, "GET, HEAD, OPTIONS, POST", b"")
    whole, headless = await client.get("/health"), await client.send("HEAD", "/health")
    assert (headless.status, headless.body) == (200, b"")
    assert whole.headers["Content-Length"] == headless.headers["Content-Length"]


@pytest.mark.parametrize(
    "path",
    ["/", "/nope", "/orders/", "/orders/a/b", "/orders/a%2Fb", "//orders", "/Orders", "/metrics", "/..%2forders"],
)
async def test_unknown_path(client, path) -> None:
    """404 as a problem, also for what only looks like a path of ours."""
    answer = await client.get(path)
    assert (answer.status, answer.code) == (404, "path_not_found")
    assert set(answer.body) == PROBLEM
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "application/jsonx",
        "application/problem+json",
    ],
)
async def test_wrong_content_type(merchant, content_type) -> None:
    """415."""
    body = json.dumps(merchant.order()).encode()
    answer = await merchant.client.post("/orders", body, Content_Type=content_type)
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=UTF-8"])
async def test_right_content_type(merchant, content_type) -> None:
    """JSON, in UTF-8 if it says so."""
    body = json.dumps(merchant.order()).encode()
    assert (await merchant.client.post("/orders", body, Content_Type=content_type)).status == 201


async def test_compressed_body(merchant) -> None:
    """415: a small body that grows when unpacked would pass the limit."""
    answer = await merchant.client.post("/orders", b"x", Content_Encoding="gzip")
    assert answer.status == 415


async def test_large_body(suite, merchant) -> None:
    """413 by its length, 413 when it comes in chunks without one, 400 just below the limit."""
    padded = json.dumps(merchant.order()).encode()
    assert (await merchant.client.post("/orders", padded.ljust(65_536))).status == 201
    answer = await merchant.client.post("/orders", padded.ljust(65_537))
    assert (answer.status, answer.code) == (413, "payload_too_large")

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(70):
            yield b" " * 1024

    sent = {**merchant.client.headers, "Content-Type": "application/json"}
    async with merchant.client._session.post(f"{suite.url}/orders", data=endless(), headers=sent) as chunked:
        assert chunked.status == 413


async def test_endless_body_is_cut(suite) -> None:
    """A client that goes on after its 413 is not listened to for ever."""
    _, writer = await asyncio.open_connection("127.0.0.1", suite.wiring.ports["gateway"][0])
    start = head(
        "POST /events/payment-detected HTTP/1.1", "Content-Type: application/json", "Content-Length: 999999999"
    )
    writer.write(start.replace(b"Connection: close\r\n", b""))
    sent = 0
    try:
        while sent < 64 * 1_048_576:
            writer.write(b" " * 65_536)
            sent += 65_536
            await asyncio.wait_for(writer.drain(), 5)
    except ConnectionError:
        pass
    finally:
        writer.close()
    assert sent < 64 * 1_048_576


async def test_request_id(client) -> None:
    """A sane one is kept, another is replaced; it stands in the header and in the problem."""
    for path in ("/health", "/nope"):
        answer = await client.get(path, X_Request_Id="my.id:1-2_3")
        assert answer.headers["X-Request-Id"] == "my.id:1-2_3"
    assert answer.body["request_id"] == "my.id:1-2_3"
    for insane in ("", "a b", "x" * 129, "é", '"'):
        assert re.fullmatch("[0-9a-f]{32}", (await client.get("/health", X_Request_Id=insane)).headers["X-Request-Id"])


async def test_every_request_is_logged(suite, client, merchant) -> None:
    """One line with its id, route, status and merchant, within a second."""
    from local.process import until

    await merchant.client.get("/orders/some-order", X_Request_Id="logged-1")
    lines: list[str] = []

    async def written() -> bool:
        lines[:] = [line for line in suite.log("gateway").splitlines() if '"logged-1"' in line]
        return bool(lines)

    await until(written, "the log line", bound=5)
    assert len(lines) == 1
    line = json.loads(lines[0])
    assert ("request", "info", "gateway", "GET", "/orders/{id}", 404, merchant.id) == tuple(
        line[name] for name in ("event", "level", "service", "method", "route", "status", "merchant_id")
    )


async def test_answers_cannot_be_sniffed_or_cached(client) -> None:
    """An answer may hold a key."""
    headers = (await client.get("/health")).headers
    assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")
    assert "Server" not in headers


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 5x\r\n\r\nhello",
        b"POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"POST /orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_is_not_http(suite, request_bytes) -> None:
    """4xx as a problem and the end of the connection, never a 5xx; nothing can be smuggled."""
    answer = await raw(suite, request_bytes)
    status, headers, body = read(answer)
    assert 400 <= status < 500
    assert headers["content-type"] == "application/problem+json"
    assert set(json.loads(body)) == PROBLEM
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_large_head(suite) -> None:
    """431, without reading on for ever."""
    lines = [f"X-{number}: {'x' * 1000}" for number in range(64)]
    reader, writer = await asyncio.open_connection("127.0.0.1", suite.wiring.ports["gateway"][0])
    writer.write(b"GET /health HTTP/1.1\r\n")
    received = b""
    for line in lines:
        writer.write(line.encode() + b"\r\n")
        try:
            await writer.drain()
            received = await asyncio.wait_for(reader.read(65_536), 0.01)
            break
        except (TimeoutError, ConnectionError):
            continue
    writer.close()
    assert received.startswith(b"HTTP/1.1 431 ")


async def test_slow_clients_are_cut(suite) -> None:
    """A head or a body that does not come takes a connection for seconds only."""
    lines = ["Content-Type: application/json", "Content-Length: 10"]
    slow = [
        (),
        (b"GET /health HT",),
        (b"\r\n",),
        (head("POST /events/payment-detected HTTP/1.1", *lines), b"{"),
    ]
    began = time.monotonic()
    assert [b""] * len(slow) == await asyncio.gather(*(raw(suite, *parts) for parts in slow))
    assert time.monotonic() - began < 13


async def test_upgrade_is_ignored(suite) -> None:
    """There is no other protocol here: the request is answered as it is."""
    lines = ["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    start = head("GET /health HTTP/1.1", *lines).replace(b"Connection: close", b"Connection: Upgrade, close")
    status, _, body = read(await raw(suite, start))
    assert (status, json.loads(body)) == (200, {"status": "ok"})


async def test_pipelined_requests_are_answered_in_order(suite) -> None:
    """Two requests at once on one connection."""
    first = head("GET /nope HTTP/1.1").replace(b"Connection: close\r\n", b"")
    answer = await raw(suite, first + head("GET /health HTTP/1.1"))
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"404", b"200"]


async def test_expect_continue(suite) -> None:
    """A client that asks first is told to go on, and a large body is refused before it is sent."""
    lines = ["Content-Type: application/json", "Expect: 100-continue"]
    small = head("POST /events/payment-detected HTTP/1.1", "Content-Length: 2", *lines)
    answer = await raw(suite, small, b"{}")
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"100", b"400"]
    large = head("POST /events/payment-detected HTTP/1.1", "Content-Length: 99999", *lines)
    assert (await raw(suite, large)).startswith(b"HTTP/1.1 413")
