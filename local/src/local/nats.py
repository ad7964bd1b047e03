"""NATS with JetStream on disk."""

import json
import os
from pathlib import Path

from local.places import PROGRAMS
from local.ports import listens
from local.process import Command


class Nats:
    """A server whose streams live in `<folder>/nats`."""

    name = "nats"

    def __init__(self, folder: Path, port: int, log: Path) -> None:
        self.port = port
        self.store = folder / "nats"
        self._config = folder / "nats.conf"
        self._log = log

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"nats://{self.address}"

    async def prepare(self) -> None:
        self.store.mkdir(parents=True, exist_ok=True)
        # Rewritten at every start: the port may have changed. JSON is NATS's own syntax too, and quotes well.
        jetstream = {"store_dir": str(self.store)}
        self._config.write_text(json.dumps({"listen": self.address, "jetstream": jetstream}, indent=2))

    def command(self) -> Command:
        return Command(argv=[PROGRAMS / "nats-server", "-c", self._config], log=self._log, env=dict(os.environ))

    async def ready(self, pid: int) -> bool:
        # By TCP: a client whose first connect fails sleeps two seconds.
        return await listens(self.port)
