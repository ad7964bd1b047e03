"""`python -m orders.rewatch`: has everything watched again, for a verifier whose database was restored."""

from __future__ import annotations

import asyncio
import sys

from chains import Registry
from kit.database import Database
from orders.settings import Settings
from orders.workflow.watches import watch_all_anew


async def rewatch(settings: Settings) -> int:
    """How many addresses the running service will have watched again. Errors: those of `Database.open`."""
    chains = sorted(Registry.load(settings.chains_file).chains)
    database = await Database.open(settings.database_url.get_secret_value(), application="orders rewatch", size=2)
    try:
        return await watch_all_anew(database, chains, settings.watch_period)
    finally:
        await database.close()


if __name__ == "__main__":
    sys.stdout.write(f"{asyncio.run(rewatch(Settings()))} addresses to watch are in the outbox\n")
