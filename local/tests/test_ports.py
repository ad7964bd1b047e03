"""Ports are chosen long before they are listened on: nobody else may choose the same meanwhile."""

import subprocess
import sys

from local import ports

CHOOSE = "from local import ports; ports.CHOICE = range({0}, {0} + 3); print(ports.free_port())"


def test_two_processes_never_choose_the_same(monkeypatch):
    """With two of three ports given out here, another process is given the third."""
    first = next(each for each in range(14000, 14900, 3) if all(ports.is_free(each + place) for place in range(3)))
    monkeypatch.setattr(ports, "CHOICE", range(first, first + 3))
    mine = {ports.free_port(), ports.free_port()}
    command = [sys.executable, "-c", CHOOSE.format(first)]
    theirs = {int(subprocess.run(command, capture_output=True, check=True, timeout=20).stdout) for _ in range(3)}
    assert theirs == set(range(first, first + 3)) - mine
