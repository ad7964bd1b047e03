"""`python -m verifier`"""

from kit.process import run
from verifier import bootstrap
from verifier.settings import Settings


def main() -> None:
    """Runs the service until SIGTERM or SIGINT."""
    settings = Settings()
    run(
        "verifier",
        log_level=settings.log_level,
        metrics_listen=settings.metrics_listen,
        start=lambda process: bootstrap.start(process, settings),
    )


if __name__ == "__main__":
    main()
