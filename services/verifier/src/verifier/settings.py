"""What the verifier is told by its environment; nothing else reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from chains import Registry
from kit.settings import Callers, HostPort, ServiceSettings


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


def rpc_urls(registry: Registry, environment: Mapping[str, str] = os.environ) -> dict[str, SecretStr]:
    """The endpoint of each chain that has one, by the chain's name. Errors: ValueError where none or a bad one is."""
    urls = {}
    for name, chain in registry.chains.items():
        url = environment.get(chain.rpc_url_env, "")
        if not url:
            continue
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{chain.rpc_url_env}: expected http://… or https://…")
        urls[name] = SecretStr(url)
    if not urls:
        names = ", ".join(chain.rpc_url_env for chain in registry.chains.values())
        raise ValueError(f"no chain has an endpoint: set at least one of {names}")
    return urls
