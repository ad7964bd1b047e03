"""The dev chain: anvil as BNB Smart Chain (id 56) with the token at its real address.

The chain is saved to a file every few seconds, more rarely when it is long, and when it stops, with blocks, receipts,
logs and balances. After a kill -9 it goes on from the last save: what was mined since is gone, as in a reorganisation.
"""

import asyncio
import gzip
import os
import time
from pathlib import Path

import aiohttp

from local.devchain import ChainError, DevChain
from local.places import anvil_program
from local.ports import listens
from local.process import Command

CHAIN_ID = 56
SAVE_INTERVAL = 2.0  # seconds between two saves while they are cheap
# A save that took t is followed by a pause of at least 100 t: the node answers nobody meanwhile (0.8 s with 24 000
# transactions).
SAVE_SHARE = 100
KEPT_STATES = "500"  # states of past blocks in memory: how deep a reorganisation can go


class Anvil:
    """A node whose chain lives in `<folder>/chain.json`. Block time 0: it mines only on demand."""

    name = "anvil"

    def __init__(self, folder: Path, port: int, log: Path, block_time: float = 0) -> None:
        self.port = port
        self._state = folder / "chain.json"
        self._log = log
        self._block_time = block_time

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    async def prepare(self) -> None:
        self._state.parent.mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        mining = [f"--block-time={self._block_time:g}"] if self._block_time else ["--no-mining"]
        chain = [f"--chain-id={CHAIN_ID}", "--slots-in-an-epoch=2", f"--prune-history={KEPT_STATES}"]
        options = [f"--port={self.port}", *chain, *mining, f"--state={self._state}", "--quiet"]
        return Command(argv=[anvil_program(), *options], log=self._log, env=dict(os.environ))

    async def ready(self, pid: int) -> bool:
        if not await listens(self.port):
            return False
        async with DevChain.connect(self.url) as chain:
            if not await chain.has_token():
                await chain.put_token()
        return True

    async def keep_saving(self) -> None:
        """Saves the chain from time to time, for ever. anvil can too, but not so that a kill leaves a whole file."""
        pause = SAVE_INTERVAL
        saved = -1
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            try:
                saved = await self._save_after(saved)
            except (OSError, TimeoutError, aiohttp.ClientError, ChainError):
                continue  # it is down and will be restarted
            pause = max(SAVE_INTERVAL, SAVE_SHARE * (time.monotonic() - began))

    async def _save_after(self, block: int) -> int:
        async with DevChain.connect(self.url) as chain:
            head = await chain.head()
            if head != block:
                self._write(await chain.rpc("anvil_dumpState"))
        return head

    def _write(self, dump: str) -> None:
        # Not in a thread: one could outlive its task and put an old chain over the one saved at exit.
        partial = self._state.with_suffix(".new")
        partial.write_bytes(gzip.decompress(bytes.fromhex(dump.removeprefix("0x"))))
        partial.replace(self._state)
