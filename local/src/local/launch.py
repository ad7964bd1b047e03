"""Becomes a child command that dies with its parent. Run as a script: standard library only.

Why a program of its own and not `preexec_fn`: Python code between fork and exec may deadlock in a parent
that has threads (grpc does), and a change of user clears the death signal, so the order matters.

    python -I -S launch.py <parent pid> <death signal> <user or -> <command> [argument …]
"""

import ctypes
import os
import pwd
import sys

PR_SET_PDEATHSIG = 1


def become(user: str) -> None:
    account = pwd.getpwnam(user)
    os.initgroups(user, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


def die_with(parent: int, death_signal: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # The parent may have died before the call above: then no signal will ever come.
    if os.getppid() != parent:
        sys.exit("the parent is gone")


def main() -> None:
    parent, death_signal, user, *command = sys.argv[1:]
    if user != "-":
        become(user)
    die_with(int(parent), int(death_signal))
    os.execvp(command[0], command)  # noqa: S606  a shell would be wrong here


if __name__ == "__main__":
    main()
