"""Rules about files that no linter has: see CONTRIBUTING.md."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_FUNCTION = 70  # lines
MAX_FILE = 400  # lines of a module; past it, it becomes a folder
DRAWERS = {"common", "helper", "helpers", "misc", "util", "utils"}
LOCKS = re.compile(r"^requirements/.*\.txt$")
# A clone must work anywhere: no path of one machine, no address of one network, no place to download from.
FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.])/(?:home|root|Users|work|opt/(?!ospay|packages))/?[\w.-]*"),
    "an address of a private network": re.compile(
        r"(?<![\d.])(?:10\.\d+|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d+\.\d+(?![\d.])"
    ),
    "a registry's host": re.compile(r"pypi\.org|pythonhosted\.org|registry\.npmjs\.org|registry\.yarnpkg\.com"),
}


def files() -> list[Path]:
    """What is in the repository or would be added to it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = sorted({ROOT / name for name in listed.stdout.split("\0") if name})
    return [path for path in found if path.is_file() and path != Path(__file__).resolve()]


def check_name(path: Path) -> Iterator[str]:
    parts = {Path(part).stem for part in path.relative_to(ROOT).parts}
    for drawer in sorted(parts & DRAWERS):
        yield f"a drawer: {drawer}; name it after what is in it"


def check_text(path: Path) -> Iterator[str]:
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        yield "not text: nothing generated or built is kept here"
        return
    for number, line in enumerate(text.splitlines(), 1):
        for what, pattern in FORBIDDEN.items():
            if found := pattern.search(line):
                yield f"line {number}: {what}: {found.group()}"


def check_python(path: Path) -> Iterator[str]:
    source = path.read_text()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION:
                yield f"{node.name}: {length} lines, more than {MAX_FUNCTION}"
    if "src" in path.parts and source.count("\n") > MAX_FILE:
        yield f"{source.count(chr(10))} lines, more than {MAX_FILE}: make it a folder"
    if "services" in path.parts and "src" in path.parts and "domain" in (path.stem, path.parent.name):
        for name in sorted(imports(tree) - sys.stdlib_module_names):
            yield f"a domain imports the standard library only, not {name}"


def imports(tree: ast.Module) -> set[str]:
    """Top-level packages that a module imports."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def check(path: Path) -> Iterator[str]:
    yield from check_name(path)
    if not LOCKS.match(path.relative_to(ROOT).as_posix()):
        yield from check_text(path)
    if path.suffix == ".py":
        yield from check_python(path)


def main() -> int:
    """1 if something was found; it is printed."""
    problems = [f"{path.relative_to(ROOT)}: {problem}" for path in files() for problem in check(path)]
    print("\n".join(problems) or "nothing found")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
