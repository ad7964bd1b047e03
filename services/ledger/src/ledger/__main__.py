"""`python -m ledger`"""

from __future__ import annotations

from kit.process import Process, run
from ledger import bootstrap
from ledger.settings import Settings


def main() -> None:
    """Reads the settings and runs until told to stop."""
    settings = Settings()

    async def start(process: Process) -> None:
        await bootstrap.start(process, settings)

    run("ledger", log_level=settings.log_level, metrics_listen=settings.metrics_listen, start=start)


if __name__ == "__main__":
    main()
