"""Ports on 127.0.0.1."""

import asyncio
import random
import socket

# Below the range from which kernels take ports for outgoing connections (32768 and up on Linux): a port that
# was free a moment ago must not become somebody's outgoing port before its part listens on it.
CHOICE = range(15000, 32000)

_given: set[int] = set()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a connection of an earlier server in TIME_WAIT does not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A free port, chosen at random, so that test processes side by side do not choose the same one."""
    choice = random.SystemRandom()
    while True:
        port = choice.choice(CHOICE)
        if port not in _given and is_free(port):
            _given.add(port)
            return port


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
