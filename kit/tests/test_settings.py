"""What a service refuses to start with."""

from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from kit.settings import Callers, HostPort, ServiceSettings

GOOD = "s" * 32


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="KITTEST_")

    listen: HostPort
    callers: Callers
    secret: SecretStr
    url: str = ""


def read(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    given = {
        "KITTEST_LISTEN": "127.0.0.1:1",
        "KITTEST_METRICS_LISTEN": "127.0.0.1:2",
        "KITTEST_CALLERS": f"gateway={GOOD},operator={GOOD}",
        "KITTEST_SECRET": GOOD,
    }
    for name, value in {**given, **environment}.items():
        monkeypatch.setenv(name, value)
    return Settings()


def test_good_settings_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers are a list of names with tokens, and no secret shows in the text of the settings."""
    found = read(monkeypatch)
    assert sorted(found.callers) == ["gateway", "operator"]
    assert GOOD not in repr(found)


@pytest.mark.parametrize(
    "environment",
    [
        {"KITTEST_SECRET": "short"},
        {"KITTEST_SECRET": "change-me-" + GOOD},
        {"KITTEST_URL": "nats://ospay:change-me-nats@nats:4222"},
        {"KITTEST_CALLERS": "gateway=short"},
        {"KITTEST_CALLERS": "gateway"},
        {"KITTEST_CALLERS": f"={GOOD}"},
        {"KITTEST_LISTEN": "nonsense"},
        {"OSPAY_ENVIRONMENT": "elsewhere"},
        {"LOG_LEVEL": "LOUD"},
        {"GRPC_TLS_CERT": "/cert.pem"},
    ],
)
def test_bad_settings_are_refused(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """A default or weak secret, a malformed value or half of a TLS identity ends the start, and shows no secret."""
    with pytest.raises(ValidationError) as caught:
        read(monkeypatch, **environment)
    assert GOOD not in str(caught.value)


def test_the_local_runner_may_be_weak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only OSPAY_ENVIRONMENT=local takes a short secret."""
    assert read(monkeypatch, OSPAY_ENVIRONMENT="local", KITTEST_SECRET="short").environment == "local"
