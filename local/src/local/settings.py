"""What the user may set. The only reader of the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local.places import REPOSITORY

SERVICES = ("orders", "verifier", "ledger", "gateway")
DEFAULT_PORTS = {
    "gateway": 8080,
    "orders": 7001,
    "verifier": 7002,
    "ledger": 7003,
    "postgres": 5433,
    "nats": 4223,
    "anvil": 8546,
}
FREE = 0  # as a port: any that is free


class SettingsError(Exception):
    """A setting that cannot be used, in one line."""


@dataclass(frozen=True)
class Settings:
    """How to run the suite. `environment` goes to the services, and what stands in it wins over our choices."""

    data: Path
    ports: Mapping[str, int]
    replicas: Mapping[str, int]
    block_time: float
    rpc_url: str | None
    environment: Mapping[str, str]


def read_settings(environment: Mapping[str, str]) -> Settings:
    def number(name: str, default: int, highest: int, lowest: int = 0) -> int:
        text = environment.get(name, str(default))
        if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= highest:
            raise SettingsError(f"{name} must be a whole number, {lowest} to {highest}, and is {text!r}")
        return int(text)

    return Settings(
        data=Path(environment.get("OSPAY_DATA_DIR", REPOSITORY / ".ospay")).absolute(),
        ports={part: number(f"OSPAY_PORT_{part.upper()}", port, 65535) for part, port in DEFAULT_PORTS.items()},
        replicas={service: number(f"OSPAY_REPLICAS_{service.upper()}", 1, 64, lowest=1) for service in SERVICES},
        block_time=_block_time(environment.get("OSPAY_BLOCK_TIME", "1")),
        rpc_url=environment.get("BSC_RPC_URL") or None,
        environment=environment,
    )


def _block_time(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    # Written so that NaN is refused too.
    if not 0 <= seconds <= 3600:
        raise SettingsError(f"OSPAY_BLOCK_TIME must be seconds, 0 (only on demand) to 3600, and is {text!r}")
    return seconds


def suite_defaults(file: Path = REPOSITORY / "config" / "suite.env") -> dict[str, str]:
    """The tuning that `make run` shares with docker compose: NAME=value lines, as compose reads them."""
    lines = (line.strip() for line in file.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
