"""The only reader of the environment; the README has the table."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from kit.settings import Callers, HostPort, ServiceSettings


def _seconds(value: object) -> object:
    """A number of seconds, as the environment gives it."""
    return timedelta(seconds=float(value)) if isinstance(value, str) else value


Seconds = Annotated[timedelta, BeforeValidator(_seconds), Field(ge=timedelta(0), le=timedelta(days=30))]


class Settings(ServiceSettings):
    """What orders is told."""

    model_config = SettingsConfigDict(env_prefix="ORDERS_")

    grpc_listen: HostPort
    grpc_callers: Callers
    grpc_token: SecretStr
    verifier_target: str
    ledger_target: str
    database_url: SecretStr
    database_pool: Annotated[int, Field(ge=2, le=100)] = 10
    nats_url: str = Field(validation_alias="NATS_URL")
    chains_file: Path = Field(validation_alias="OSPAY_CHAINS_FILE")
    api_key_pepper: SecretStr
    order_ttl: Annotated[Seconds, Field(ge=timedelta(seconds=1))] = timedelta(minutes=30)
    settlement_delay: Seconds = timedelta(minutes=5)
    watch_period: Annotated[timedelta, BeforeValidator(_seconds), Field(ge=timedelta(0), le=timedelta(days=3650))] = (
        timedelta(days=30)
    )
    claim_ttl: Seconds = timedelta(minutes=30)
    claim_queue_max: Annotated[int, Field(ge=0, le=1_000_000)] = 10_000
