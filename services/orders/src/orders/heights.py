"""How high a chain is when an order is made."""

from __future__ import annotations

import asyncio
import time
from contextvars import Context

import structlog

from kit.channel import Peer
from kit.errors import Fault
from kit.stream import Stream
from ospay.verifier.v1 import verifier_pb2, verifier_pb2_grpc

log = structlog.get_logger()

# An order waits this long for the height, and is made without one if it does not come: clocks then decide, and they
# cannot tell what was mined earlier in the same second. So a slow answer is waited for; a dead verifier shows at once.
READ_SECONDS = 1.5
AFTER_FAILURE_SECONDS = 2.0


class Heights:
    """The newest height of each chain, read from the verifier one call at a time.

    A caller gets a read that began after it came: a height kept for a moment would let pass what was mined meanwhile.
    """

    def __init__(self, verifier: Peer) -> None:
        stub = verifier_pb2_grpc.VerifierServiceStub(verifier.channel)
        # Over a stream: as unary calls these reads cost a third of what a small batch did.
        self._heads = Stream[verifier_pb2.GetHeadRequest, verifier_pb2.GetHeadResponse](
            verifier, stub.StreamHeads, stub.GetHead, timeout=READ_SECONDS
        )
        self._down_until: dict[str, float] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._next: dict[str, asyncio.Task[int | None]] = {}

    async def of(self, chain: str) -> int | None:
        """A height that the chain had reached before this was asked or while it was; None when it cannot be had."""
        if self._is_down(chain):
            return None
        if chain not in self._next:
            # A context of its own: a read that many share has no one's deadline.
            self._next[chain] = asyncio.create_task(self._read_next(chain), context=Context())
        return await asyncio.shield(self._next[chain])

    def _is_down(self, chain: str) -> bool:
        return time.monotonic() < self._down_until.get(chain, 0.0)

    async def _read_next(self, chain: str) -> int | None:
        async with self._turns.setdefault(chain, asyncio.Lock()):
            del self._next[chain]  # whoever comes from here on waits for the read after this one
            return None if self._is_down(chain) else await self._read(chain)

    async def _read(self, chain: str) -> int | None:
        request = verifier_pb2.GetHeadRequest(chain=chain)
        try:
            return (await self._heads.call(request)).block_number
        except Fault as fault:
            log.warning("height_unknown", chain=chain, reason=fault.reason, detail=fault.detail)
            self._down_until[chain] = time.monotonic() + AFTER_FAILURE_SECONDS
            return None
