"""Where things are: the repository, the installed programs, and folders for a user who is not root."""

import os
import platform
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
PROGRAMS = Path(sys.executable).parent  # the venv's bin: wheels put nats-server and dbmate there
# Files there survive a reboot; each of ours is in a folder with a random name.
ELSEWHERE = Path("/var/tmp")  # noqa: S108
ELSEWHERE_PREFIX = "ospay-"


def anvil_program() -> Path:
    cpu = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    return REPOSITORY / "node_modules" / "@foundry-rs" / f"anvil-linux-{cpu}" / "bin" / "anvil"


def open_to_others(path: Path) -> bool:
    """Whether a user who is neither owner nor group gets to this file or folder and may read it."""
    wanted = stat.S_IXOTH | stat.S_IROTH
    path = path.resolve()
    here = path.stat().st_mode & wanted == wanted
    return here and all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents)


def folder_for(link: Path, uid: int, gid: int) -> Path:
    """A folder that another user can reach and owns: at `link` itself, or elsewhere with `link` pointing there.

    A home of mode 700 hides everything in it from PostgreSQL's user, whoever owns the folder. Opening the
    parents up would be rude; so the folder goes elsewhere.
    """
    if link.is_symlink() and not link.exists():
        link.unlink()  # the machine cleaned /var/tmp: start afresh
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        if uid == os.geteuid() or all(folder.stat().st_mode & stat.S_IXOTH for folder in link.resolve().parents):
            link.mkdir(mode=0o700)
        else:
            _forget_orphans()
            link.symlink_to(tempfile.mkdtemp(prefix=ELSEWHERE_PREFIX, dir=ELSEWHERE))
            (link / "origin").write_text(str(link.absolute()))
        os.chown(link, uid, gid)
    return link.resolve()


def _forget_orphans() -> None:
    """Removes folders of tests that were killed: their link was in the temporary folder, and is gone."""
    for origin in ELSEWHERE.glob(f"{ELSEWHERE_PREFIX}*/origin"):
        with suppress(FileNotFoundError):  # another test may do the same right now
            link = Path(origin.read_text())
            if link.is_relative_to(tempfile.gettempdir()) and not link.is_symlink():
                shutil.rmtree(origin.parent, ignore_errors=True)


def remove(folder: Path) -> None:
    """Removes a data folder, and what its links point to where we put it."""
    if not folder.exists():
        return
    for entry in folder.iterdir():
        target = entry.resolve()
        if entry.is_symlink() and target.parent == ELSEWHERE and target.name.startswith(ELSEWHERE_PREFIX):
            shutil.rmtree(target, ignore_errors=True)
    shutil.rmtree(folder)
