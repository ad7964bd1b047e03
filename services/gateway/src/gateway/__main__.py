"""`python -m gateway`: settings → bootstrap → run."""

from __future__ import annotations

from gateway import bootstrap
from gateway.settings import Settings
from kit.process import Process, run


def main() -> None:
    """Runs the gateway until it is told to stop."""
    settings = Settings()

    async def start(process: Process) -> None:
        await bootstrap.start(process, settings)

    run("gateway", log_level=settings.log_level, metrics_listen=settings.metrics_listen, start=start)


if __name__ == "__main__":
    main()
