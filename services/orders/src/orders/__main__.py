"""`python -m orders`: settings → bootstrap → run."""

from __future__ import annotations

from kit import process
from kit.process import Process
from orders.bootstrap import start
from orders.settings import Settings


def main() -> None:
    """Runs the service until it is told to stop."""
    settings = Settings()

    async def begin(running: Process) -> None:
        await start(running, settings)

    process.run("orders", log_level=settings.log_level, metrics_listen=settings.metrics_listen, start=begin)


if __name__ == "__main__":
    main()
