"""What every service is told by its environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, PlainValidator, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIN_SECRET_LENGTH = 32


def _host_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("expected host:port")
    return value


def _callers(value: object) -> dict[str, SecretStr]:
    """`name=token,name=token`"""
    if isinstance(value, dict):
        return value
    pairs = [item.partition("=") for item in str(value).split(",") if item]
    if any(not name or not token for name, _, token in pairs):
        raise ValueError("expected name=token,name=token")
    return {name: SecretStr(token) for name, _, token in pairs}


HostPort = Annotated[str, AfterValidator(_host_port)]
Callers = Annotated[dict[str, SecretStr], NoDecode, PlainValidator(_callers)]


class Tls(BaseModel):
    """Files in PEM form. With a certificate authority both sides prove who they are (mTLS)."""

    cert: Path
    key: Path
    ca: Path


class ServiceSettings(BaseSettings):
    """Settings that all services have. A subclass sets `env_prefix` and adds its own.

    Names without the prefix (`NATS_URL` …) are shared by the suite.
    """

    model_config = SettingsConfigDict(extra="ignore", hide_input_in_errors=True, populate_by_name=True)

    environment: Literal["local", "production"] = Field("production", validation_alias="OSPAY_ENVIRONMENT")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", validation_alias="LOG_LEVEL")
    tls_cert: Path | None = Field(None, validation_alias="GRPC_TLS_CERT")
    tls_key: Path | None = Field(None, validation_alias="GRPC_TLS_KEY")
    tls_ca: Path | None = Field(None, validation_alias="GRPC_TLS_CA")
    metrics_listen: HostPort

    @property
    def tls(self) -> Tls | None:
        """The three files, when all are given."""
        if self.tls_cert and self.tls_key and self.tls_ca:
            return Tls(cert=self.tls_cert, key=self.tls_key, ca=self.tls_ca)
        return None

    @model_validator(mode="after")
    def _refuse_half_tls(self) -> ServiceSettings:
        given = [self.tls_cert, self.tls_key, self.tls_ca]
        if any(given) and not all(given):
            raise ValueError("GRPC_TLS_CERT, GRPC_TLS_KEY and GRPC_TLS_CA go together")
        return self

    @model_validator(mode="after")
    def _refuse_weak_secrets(self) -> ServiceSettings:
        if self.environment == "local":
            return self
        for name, value in self:
            if any(_is_weak(item) for item in (value.values() if isinstance(value, dict) else [value])):
                raise ValueError(f"{name}: a default or a secret of less than {MIN_SECRET_LENGTH} characters")
        return self


def _is_weak(value: object) -> bool:
    """A short secret, or a default, which may also be a part of a URL."""
    if isinstance(value, SecretStr):
        return len(value.get_secret_value()) < MIN_SECRET_LENGTH or "change-me" in value.get_secret_value()
    return isinstance(value, str) and "change-me" in value
