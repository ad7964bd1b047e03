"""What uvicorn writes in pieces leaves in one, on a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.connection import OneWrite


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
