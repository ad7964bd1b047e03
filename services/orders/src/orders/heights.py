"""How high a chain is when an order is made."""

from __future__ import annotations

import asyncio
import time

import structlog

from kit.channel import Peer
from kit.errors import Fault
from ospay.verifier.v1 import verifier_pb2, verifier_pb2_grpc

log = structlog.get_logger()

# An order waits this long for the height, and is made without one if it does not come: clocks then decide, and they
# cannot tell what was mined earlier in the same second. So a slow answer is waited for; a dead verifier shows at once.
READ_SECONDS = 1.5
FRESH_SECONDS = 0.1
AFTER_FAILURE_SECONDS = 2.0


class Heights:
    """The newest height of each chain, read from the verifier at most ten times a second."""

    def __init__(self, verifier: Peer) -> None:
        self._peer = verifier
        self._stub = verifier_pb2_grpc.VerifierServiceStub(verifier.channel)
        self._known: dict[str, tuple[float, int | None]] = {}
        self._reading: dict[str, asyncio.Task[int | None]] = {}

    async def of(self, chain: str) -> int | None:
        """A height that the chain had reached at most a tenth of a second ago; None when it cannot be had."""
        until, height = self._known.get(chain, (0.0, None))
        if time.monotonic() < until:
            return height
        if chain not in self._reading:
            task = asyncio.create_task(self._read(chain))
            self._reading[chain] = task
            task.add_done_callback(lambda _: self._reading.pop(chain, None))
        return await asyncio.shield(self._reading[chain])

    async def _read(self, chain: str) -> int | None:
        request = verifier_pb2.GetHeadRequest(chain=chain)
        started = time.monotonic()
        try:
            response = await self._peer.call(self._stub.GetHead, request, timeout=READ_SECONDS)
        except Fault as fault:
            log.warning("height_unknown", chain=chain, reason=fault.reason, detail=fault.detail)
            self._known[chain] = (time.monotonic() + AFTER_FAILURE_SECONDS, None)
            return None
        self._known[chain] = (started + FRESH_SECONDS, response.block_number)
        return response.block_number
