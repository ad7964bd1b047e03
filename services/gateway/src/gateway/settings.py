"""The only reader of the environment; the README has the table."""

from __future__ import annotations

from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from kit.settings import HostPort, ServiceSettings


class Settings(ServiceSettings):
    """`GATEWAY_…` and what the suite shares."""

    model_config = SettingsConfigDict(
        env_prefix="GATEWAY_", extra="ignore", hide_input_in_errors=True, populate_by_name=True
    )

    http_listen: HostPort
    grpc_token: SecretStr
    orders_target: str
    ledger_target: str
    verifier_target: str
    admin_key: SecretStr
