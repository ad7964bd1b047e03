"""Ports on 127.0.0.1."""

import asyncio
import fcntl
import os
import random
import socket
import tempfile
from functools import cache
from pathlib import Path

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
    """A free port that no other process of this user is given, as long as this one lives.

    What is chosen is taken only when its part listens, a second later: test processes side by side chose the same.
    """
    choice = random.SystemRandom()
    while True:
        port = choice.choice(CHOICE)
        if port not in _given and is_free(port) and _reserve(port):
            _given.add(port)
            return port


def _reserve(port: int) -> bool:
    """Locks the byte of this port in a file that all processes of this user share; the lock ends with the process."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):  # POSIX allows either for a lock that another process has
        return False
    return True


@cache
def _reservations() -> int:
    path = Path(tempfile.gettempdir()) / f"ospay-ports-{os.getuid()}"
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
