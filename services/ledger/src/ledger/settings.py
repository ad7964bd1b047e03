"""What the ledger is told by its environment; README.md has the table."""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from kit.settings import Callers, HostPort, ServiceSettings


class Settings(ServiceSettings):
    """`LEDGER_…` and what the suite shares."""

    model_config = SettingsConfigDict(
        env_prefix="LEDGER_", extra="ignore", hide_input_in_errors=True, populate_by_name=True
    )

    grpc_listen: HostPort
    grpc_callers: Callers
    database_url: SecretStr
    nats_url: str = Field(validation_alias="NATS_URL")
