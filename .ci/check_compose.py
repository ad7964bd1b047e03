"""docker-compose.yml gives every service what it asks for, from the same names that `make run` uses."""

import os
import re
import secrets
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from chains import Registry
from local.wiring import Wiring

ROOT = Path(__file__).resolve().parents[1]
SERVICES = ("orders", "verifier", "ledger", "gateway")
VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")
WEAK = "a default or a secret of less than"
READ_SETTINGS = "from {0}.settings import Settings; Settings()"


def read_env(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    return dict(line.split("=", 1) for line in lines)


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """As compose does: `${NAME:?}` must be there and not be empty, `${NAME:-default}` has a default."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        given = variables.get(name, "")
        if not given and operator != "-":
            raise SystemExit(f"docker-compose.yml: {name} is not in .env.example")
        return given or rest

    return VARIABLE.sub(value, text)


def environments(variables: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What each service is given, by service."""
    text = interpolate((ROOT / "docker-compose.yml").read_text(), variables)
    compose: dict[str, Any] = yaml.safe_load(text)
    shared = {
        service: [read_env(ROOT / file) for file in compose["services"][service]["env_file"]] for service in SERVICES
    }
    return {
        service: {name: value for file in shared[service] for name, value in file.items()}
        | {name: str(value) for name, value in compose["services"][service]["environment"].items()}
        for service in SERVICES
    }


def refusal(service: str, environment: Mapping[str, str]) -> str:
    """Why the service does not take these settings; empty when it does."""
    command = [sys.executable, "-c", READ_SETTINGS.format(service)]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def local_names(service: str) -> dict[str, str]:
    """What `make run` gives a service under the service's own prefix."""
    one: dict[str, list[int]] = {each: [1] for each in SERVICES}
    wiring = Wiring(one, one, lambda *_: "url", "url", "url", defaultdict(lambda: "secret"))
    given = wiring.environment() | wiring.listen(service, 0)
    return {name: value for name, value in given.items() if name.startswith(f"{service.upper()}_")}


def callers(value: str) -> list[str]:
    return sorted(pair.split("=")[0] for pair in value.split(","))


def check(service: str, good: Mapping[str, str], placeholders: Mapping[str, str]) -> list[str]:
    problems = []
    for name, value in local_names(service).items():
        if name not in good:
            problems.append(f"{service}: `make run` sets {name}, compose does not")
        elif name.endswith("_CALLERS") and callers(value) != callers(good[name]):
            problems.append(f"{service}: {name} has other callers under `make run`")
    if reason := refusal(service, good):
        problems.append(f"{service}: does not start with good secrets: {reason}")
    if WEAK not in refusal(service, placeholders):
        problems.append(f"{service}: does not refuse the placeholders of .env.example")
    return problems


def check_chains(verifier: Mapping[str, str]) -> list[str]:
    """What an installation sets for a chain has to reach the verifier."""
    chains = Registry.load(ROOT / "config" / "chains.toml").chains.values()
    names = {name for chain in chains for name in (chain.rpc_url_env, f"{chain.name.replace('-', '_')}_RPC_QUORUM")}
    return [f"verifier: compose does not pass {name} on" for name in sorted(names - verifier.keys())]


def main() -> int:
    """1 if something was found; it is printed."""
    example = read_env(ROOT / ".env.example")
    chosen = {name: secrets.token_hex(32) if "change-me" in value else value for name, value in example.items()}
    good, placeholders = environments(chosen), environments(example)
    used = {match[0] for match in VARIABLE.findall((ROOT / "docker-compose.yml").read_text())}
    problems = [f".env.example: {name} is of no use" for name in sorted(example.keys() - used)]
    problems += [problem for service in SERVICES for problem in check(service, good[service], placeholders[service])]
    problems += check_chains(good["verifier"])
    print("\n".join(problems) or "compose gives what the services ask for, and they refuse the placeholders")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
