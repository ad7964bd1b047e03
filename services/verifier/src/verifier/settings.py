"""What the verifier is told by its environment; nothing else reads it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from chains import Chain, Registry
from kit.settings import Callers, HostPort, ServiceSettings

# A comma may be part of a URL: it parts two endpoints only where another one follows.
BETWEEN = re.compile(r",\s*(?=(?:[\w.:-]+=)?https?://)", re.ASCII)
NAMED = re.compile(r"([\w.:-]{1,64})=(https?://.*)", re.ASCII)
HOST = re.compile(r"[\w.:-]+", re.ASCII)
# What is left of an endpoint that cannot be one: another scheme, or a name without a URL.
OTHER_SCHEME = re.compile(r",[^,]*://")
NO_URL = re.compile(r",\s*[\w.:-]+=$", re.ASCII)
DEFAULT_PORTS = {"http": 80, "https": 443}


class Settings(ServiceSettings):
    """See README.md for the table."""

    model_config = SettingsConfigDict(env_prefix="VERIFIER_")

    grpc_listen: HostPort
    grpc_callers: Callers
    database_url: SecretStr
    nats_url: str = Field(validation_alias="NATS_URL")
    chains_file: Path = Field(validation_alias="OSPAY_CHAINS_FILE")
    workers: int = Field(4, ge=1, le=64)
    queue_max: int = Field(10_000, ge=1, le=1_000_000)
    rpc_concurrency: int = Field(4, ge=1, le=64)


@dataclass(frozen=True)
class Endpoint:
    """Where a chain is asked, and who runs that. The URL may hold a key."""

    operator: str
    url: SecretStr


@dataclass(frozen=True)
class Endpoints:
    """The endpoints of a chain, in the order in which they are asked, and how many operators have to agree."""

    endpoints: tuple[Endpoint, ...]
    quorum: int


def endpoints(registry: Registry, environment: Mapping[str, str] = os.environ) -> dict[str, Endpoints]:
    """The endpoints of each chain that has any, by its name. Errors: ValueError where there are none or bad ones."""
    found = {
        name: _endpoints(chain, environment)
        for name, chain in registry.chains.items()
        if environment.get(chain.rpc_url_env)
    }
    if not found:
        names = ", ".join(chain.rpc_url_env for chain in registry.chains.values())
        raise ValueError(f"no chain has an endpoint: set at least one of {names}")
    return found


def _endpoints(chain: Chain, environment: Mapping[str, str]) -> Endpoints:
    given = [_endpoint(text, chain.rpc_url_env) for text in BETWEEN.split(environment[chain.rpc_url_env].strip(" ,"))]
    if len({place for _, place in given}) < len(given):
        raise ValueError(f"{chain.rpc_url_env}: one URL twice")
    operators = len({endpoint.operator for endpoint, _ in given})
    name = f"{chain.name.upper().replace('-', '_')}_RPC_QUORUM"
    quorum = environment.get(name) or str(min(operators, 2))
    if not (quorum.isascii() and quorum.isdigit() and 1 <= int(quorum) <= operators):
        raise ValueError(f"{name}: expected 1 … {operators}, the number of operators in {chain.rpc_url_env}")
    return Endpoints(tuple(endpoint for endpoint, _ in given), int(quorum))


def _endpoint(text: str, name: str) -> tuple[Endpoint, tuple[object, ...]]:
    """`operator=url` or a bare URL, whose host then names the operator; and what tells one URL from another."""
    named = NAMED.fullmatch(text.strip())
    operator, url = named.groups() if named else ("", text.strip())
    try:
        parts = urlsplit(url)
        default = DEFAULT_PORTS[parts.scheme]
        host, port = parts.hostname or "", parts.port or default
    except (ValueError, KeyError):
        host = ""
    if not HOST.fullmatch(host) or OTHER_SCHEME.search(url) or (named and NO_URL.search(url)):
        # The URL is not repeated: it may hold a key.
        raise ValueError(f"{name}: expected http://… or https://…; several as operator=URL with commas between")
    bare = host if port == default else f"{host}:{port}"
    place = (parts.scheme, host, port, parts.path.rstrip("/"), parts.query)
    # Capitals make no other operator: it would have two voices.
    return Endpoint((operator or bare).lower(), SecretStr(url)), place
