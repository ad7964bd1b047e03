"""The locks in requirements/ are in step with what they were made from. Needs no network.

Each direct requirement has a pin that satisfies it; runtime.txt holds all that the runtime needs and nothing else;
the locks agree with each other; none names a place to download from.
"""

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "requirements"
RUNTIME = [
    ROOT / folder / "pyproject.toml"
    for folder in ("protos", "kit", "chains", *sorted(str(path) for path in (ROOT / "services").iterdir()))
]
SOURCES = {
    "runtime": RUNTIME,
    "build": [*RUNTIME, LOCKS / "build.in"],
    "migrations": [LOCKS / "migrations.in"],
    "dev": [*RUNTIME, ROOT / "local" / "pyproject.toml", LOCKS / "build.in", LOCKS / "dev.in"],
}
PLACE = re.compile(r"https?://|file:|--find-links|--index-url|--extra-index-url|^/", re.MULTILINE)
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)(?: ; ([^\\\n]+?))? \\$", re.MULTILINE)


def ours() -> set[str]:
    """Packages of this repository: never in a lock."""
    return {line for line in (LOCKS / "ours.in").read_text().splitlines() if line and line[0] != "#"}


def wanted(source: Path) -> list[Requirement]:
    """The direct requirements of a pyproject.toml or of an .in file, without our own packages."""
    if source.suffix == ".toml":
        lines = tomllib.loads(source.read_text())["project"]["dependencies"]
    else:
        lines = [line for line in source.read_text().splitlines() if line and line[0] not in "#-"]
    found = [Requirement(line) for line in lines]
    return [each for each in found if canonicalize_name(each.name) not in ours()]


def pins(lock: str) -> dict[str, str]:
    """Version by package, of those that apply here."""
    found = PIN.findall((LOCKS / f"{lock}.txt").read_text())
    here = [(name, version) for name, version, marker in found if not marker or Marker(marker).evaluate()]
    return {canonicalize_name(name): version for name, version in here}


def reachable(direct: list[Requirement]) -> set[str]:
    """All packages that these need on this machine, as far as they are installed."""
    seen: set[tuple[str, str]] = set()
    waiting = [(each, "") for each in direct]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wished in ("", *requirement.extras):
            key = (canonicalize_name(requirement.name), wished)
            if key not in seen:
                seen.add(key)
                waiting += [(Requirement(line), wished) for line in needs(requirement.name)]
    return {name for name, _ in seen}


def needs(package: str) -> list[str]:
    """What an installed package says that it needs."""
    try:
        return requires(package) or []
    except PackageNotFoundError:
        raise SystemExit(f"{package} is not installed: `make install`") from None


def check(lock: str) -> list[str]:
    """What is wrong with one lock."""
    locked = pins(lock)
    direct = [each for source in SOURCES[lock] for each in wanted(source)]
    problems = [
        f"{lock}.txt: {each} is wanted, {locked.get(canonicalize_name(each.name), 'nothing')} is locked"
        for each in direct
        if not each.specifier.contains(locked.get(canonicalize_name(each.name), "0"), prereleases=True)
        or canonicalize_name(each.name) not in locked
    ]
    needed = reachable(direct)
    problems += [f"{lock}.txt: {name} is needed and not locked" for name in sorted(needed - locked.keys())]
    problems += [f"{lock}.txt: {name} is locked and not needed" for name in sorted(locked.keys() - needed)]
    if found := PLACE.search((LOCKS / f"{lock}.txt").read_text()):
        problems.append(f"{lock}.txt: names a place: {found.group()}")
    development = pins("dev")
    problems += [
        f"{lock}.txt: {name}=={version}, but {development[name]} in dev.txt"
        for name, version in locked.items()
        if development.get(name, version) != version
    ]
    return problems


def main() -> int:
    """The number of problems, printed."""
    problems = [problem for lock in SOURCES for problem in check(lock)]
    print("\n".join(problems) or "the locks are in step")
    return len(problems)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
