"""What leaves in one write, when a connection is overdue, what is a request and what is none, on a real socket."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from gateway.connection import Connection, OneWrite


class Counted:
    """A transport that counts its writes."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self.writes += 1
        self._transport.write(data)


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.settimeout(5)
    with near, far:
        yield near, far


async def counted(sock: socket.socket) -> Counted:
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=sock)
    return Counted(transport)


async def test_pieces_of_a_turn_are_one_write(sockets: tuple[socket.socket, socket.socket]) -> None:
    """Head and body go together, the next answer by itself, and a close loses nothing."""
    transport = await counted(sockets[0])
    answers = OneWrite(transport)  # type: ignore[arg-type]  # as far as it is used
    for number in (1, 2):
        answers.write(b"head ")
        answers.write(b"body ")
        await asyncio.sleep(0)
        assert (transport.writes, sockets[1].recv(100)) == (number, b"head body ")
    answers.write(b"last")
    answers.close()
    assert (await asyncio.to_thread(sockets[1].recv, 100), transport.is_closing()) == (b"last", True)


async def test_an_aborted_connection_is_written_to_no_more(sockets: tuple[socket.socket, socket.socket]) -> None:
    """What was held back when it ended is dropped."""
    transport = await counted(sockets[0])
    answers = OneWrite(transport)  # type: ignore[arg-type]  # as far as it is used
    answers.write(b"late")
    answers.abort()
    await asyncio.sleep(0)
    assert (transport.writes, await asyncio.to_thread(sockets[1].recv, 100)) == (0, b"")


async def served(sock: socket.socket, app: ASGIApp) -> Connection:
    config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None)
    config.load()
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(config=config, server_state=ServerState(), app_state={}), sock=sock
    )
    return connection


async def test_an_idle_connection_is_overdue_after_half_a_minute(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    """It is counted from the last answer, and no timer is left behind for it."""
    connection = await served(sockets[0], PlainTextResponse("answer"))
    for _ in range(2):
        asked = time.monotonic()
        sockets[1].sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        assert (await asyncio.to_thread(sockets[1].recv, 1000)).endswith(b"answer")
        answered = time.monotonic()
        assert (connection.overdue(asked + 30), connection.overdue(answered + 30.1)) == (False, True)
    assert (connection.timeout_keep_alive_task, connection.server_state.total_requests) == (None, 2)
    connection.cut()


async def test_an_answer_that_ends_its_connection_may_be_taken_slowly(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    """What is closed after its answer is not idle."""
    connection = await served(sockets[0], PlainTextResponse("x" * 5_000_000))
    asked = time.monotonic()
    sockets[1].sendall(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    assert await asyncio.to_thread(sockets[1].recv, 1000, socket.MSG_PEEK)
    answered = time.monotonic()
    assert connection.transport.is_closing()
    assert (connection.overdue(asked + 29.9), connection.overdue(answered + 30.1)) == (False, True)
    connection.cut()


SMALL = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
LARGE = b"GET / HTTP/1.1\r\nHost: here\r\nX-Large: " + b"x" * 40_000 + b"\r\n\r\n"
POSTED = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 40000\r\n\r\n" + b"x" * 40_000


@pytest.mark.parametrize(
    ("read", "statuses"),
    [(LARGE, [b"431"]), (POSTED + LARGE, [b"431"]), (POSTED + SMALL, [b"200", b"200"])],
    ids=["large head", "large head behind a body", "large body"],
)
async def test_a_head_is_measured_without_what_is_read_with_it(
    sockets: tuple[socket.socket, socket.socket], read: bytes, statuses: list[bytes]
) -> None:
    """Its bound holds also where it comes in one read; a body or another request is none of it."""
    connection = await served(sockets[0], PlainTextResponse("answer"))
    sockets[1].sendall(read)
    received = b""
    while len(found := re.findall(rb"HTTP/1\.1 (\d+)", received)) < len(statuses):
        received += await asyncio.to_thread(sockets[1].recv, 1000)
    connection.cut()
    assert statuses == found


async def told(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what the request was, each answer in angle brackets."""
    request = Request(scope, receive)
    body = (await request.body()).decode()
    answer = PlainTextResponse(f"<{request.method} {request.url.path} {body!r} {request.headers.get('x-api-key')}>")
    await answer(scope, receive, send)


async def told_to(sock: socket.socket, count: int = 1_000_000) -> list[str]:
    """What `told` has answered: so many, or all until the connection ends."""
    received = b""
    while received.count(b">") < count and (some := await asyncio.to_thread(sock.recv, 65_536)):
        received += some
    return re.findall("<.*>", received.decode())


INNER = "GET /inner HTTP/1.1\r\nHost: here\r\n\r\n"
SIZED = f"Content-Length: {len(INNER)}\r\n\r\n", INNER
CHUNKED = "Transfer-Encoding: chunked\r\n\r\n", f"{len(INNER):x}\r\n{INNER}\r\n0\r\n\r\n"


@pytest.mark.parametrize("reads", [1, 2])
@pytest.mark.parametrize("body", [SIZED, CHUNKED], ids=["sized", "chunked"])
@pytest.mark.parametrize(
    ("version", "fields", "kept"),
    [
        ("1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", True),
        ("1.1", "Connection: Upgrade, HTTP2-Settings\r\nUPGRADE: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", True),
        ("1.1", "Upgrade: a\r\nConnection: Upgrade, close\r\nUpgrade: b\r\n", False),
        ("1.0", "Upgrade: h2c\r\nConnection: upgrade\r\n", False),
    ],
    ids=["websocket", "h2c", "not kept", "HTTP/1.0"],
)
async def test_upgrade_is_ignored(
    sockets: tuple[socket.socket, socket.socket],
    version: str,
    fields: str,
    kept: bool,
    body: tuple[str, str],
    reads: int,
) -> None:
    """What follows the head is the request's body, also in a later read, and no other request."""
    connection = await served(sockets[0], told)
    head = f"POST /outer?a=b HTTP/{version}\r\nHost: here\r\nX-Api-Key: k\r\n{fields}{body[0]}"
    for read in [head + body[1]] if reads == 1 else [head, body[1]]:
        connection.data_received(read.encode())
    connection.data_received(b"GET /next HTTP/1.1\r\nHost: here\r\n\r\n")
    expected = [f"<POST /outer {INNER!r} k>", "<GET /next '' None>"]
    assert (expected if kept else expected[:1]) == await told_to(sockets[1], 2 if kept else 1_000_000)
    connection.cut()


async def test_many_upgrades_in_one_read(sockets: tuple[socket.socket, socket.socket]) -> None:
    """Each is answered once, in order, however many there are."""
    connection = await served(sockets[0], told)
    head = "POST /{} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\nx"
    connection.data_received("".join(head.format(number) for number in range(1500)).encode())
    assert [f"<POST /{number} 'x' None>" for number in range(1500)] == await told_to(sockets[1], 1500)
    connection.cut()


async def test_connect_ends_the_connection(sockets: tuple[socket.socket, socket.socket]) -> None:
    """There is no tunnel here, and what was meant for one is not taken for a request."""
    connection = await served(sockets[0], told)
    connection.data_received(b"CONNECT /tunnel HTTP/1.1\r\nHost: here\r\n\r\n" + INNER.encode())
    refusal = await asyncio.to_thread(sockets[1].recv, 65_536)
    assert (b"HTTP/1.1 400", 1) == (refusal[:12], refusal.count(b"HTTP/1.1"))
    assert await asyncio.to_thread(sockets[1].recv, 65_536) == b""


CHUNK = b"POST /chunked HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n"


async def test_a_trailer_is_no_header(sockets: tuple[socket.socket, socket.socket]) -> None:
    """A key that comes behind the body is nobody's, neither this request's nor the next one's."""
    connection = await served(sockets[0], told)
    connection.data_received(CHUNK % (1, b"x") + b"0\r\nX-Api-Key: k\r\n\r\n" + INNER.encode())
    assert ["<POST /chunked 'x' None>", "<GET /inner '' None>"] == await told_to(sockets[1], 2)
    connection.cut()


@pytest.mark.parametrize("first", [b"x", b"x" * 60_000], ids=["small", "large"])
@pytest.mark.parametrize(
    ("begin", "piece", "end"),
    [
        (b"0\r\nX-A: ", b"a" * 1000, b"\r\n\r\n"),
        (b"0\r\n", b"X-A: " + b"a" * 993 + b"\r\n", b"\r\n"),
        (b"1;a=", b"a" * 1000, b"\r\nx\r\n0\r\n\r\n"),
    ],
    ids=["a long trailer", "many trailers", "a long extension"],
)
async def test_what_frames_a_body_is_bounded(
    sockets: tuple[socket.socket, socket.socket], first: bytes, begin: bytes, piece: bytes, end: bytes
) -> None:
    """Up to 32 KiB of it are taken, and not more for a large body; then the connection is cut."""
    connection = await served(sockets[0], told)
    for pieces in (32, 32, 33):
        connection.data_received(CHUNK % (len(first), first))
        for part in [begin, *[piece] * pieces, *([end] if pieces == 32 else [])]:
            connection.data_received(part)
        assert connection.transport.is_closing() == (pieces == 33)
        if pieces == 32:
            assert len(await told_to(sockets[1], 1)) == 1
    assert await told_to(sockets[1]) == []


async def test_a_request_has_one_answer(sockets: tuple[socket.socket, socket.socket]) -> None:
    """What is wrong in a body whose request has its answer ends the connection without another one."""
    connection = await served(sockets[0], PlainTextResponse("early"))
    connection.data_received(CHUNK % (1, b"x"))
    assert (await asyncio.to_thread(sockets[1].recv, 1000)).endswith(b"early")
    connection.data_received(b"no size\r\n")
    assert await asyncio.to_thread(sockets[1].recv, 1000) == b""
