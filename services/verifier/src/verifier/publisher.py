"""Tells verdicts over NATS. What is not taken is let go: orders asks again for what stays open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog

from kit.bus import Bus
from kit.errors import Fault
from kit.process import Process
from ospay.verifier.v1 import verifier_pb2 as pb
from verifier.domain import Verdict
from verifier.messages import Messages
from verifier.metrics import UNPUBLISHED

log = structlog.get_logger()

SUBJECT = "ospay.verifier.v1.verdict"
PAUSES_SECONDS = (0.1, 0.4)
# NATS takes 1 MiB by default; a verdict of a transaction with very many transfers gets a message of its own.
PACK_BYTES = 256 * 1024


class Publisher:
    """Publishes batches of verdicts, each packed in as few messages as fit."""

    def __init__(self, bus: Bus, messages: Messages, process: Process) -> None:
        self._bus = bus
        self._messages = messages
        self._process = process

    async def publish(self, verdicts: Sequence[Verdict]) -> bool:
        """Whether all of them are on NATS' disk."""
        published = [await self._publish(pack) for pack in _packs([self._messages.verdict(each) for each in verdicts])]
        return all(published)

    async def _publish(self, pack: pb.BatchVerifyResponse) -> bool:
        payload = pack.SerializeToString()
        for pause in (*PAUSES_SECONDS, None):
            try:
                await self._bus.publish(SUBJECT, payload)
            except Fault as fault:
                if pause is not None:
                    await self._process.sleep(pause)
                    continue
                UNPUBLISHED.inc(len(pack.verdicts))
                log.warning("verdicts_not_published", verdicts=len(pack.verdicts), error=fault.detail)
                return False
            return True
        return False


def _packs(verdicts: Sequence[pb.Verdict]) -> Iterator[pb.BatchVerifyResponse]:
    pack, size = pb.BatchVerifyResponse(), 0
    for verdict in verdicts:
        if pack.verdicts and size + verdict.ByteSize() > PACK_BYTES:
            yield pack
            pack, size = pb.BatchVerifyResponse(), 0
        pack.verdicts.append(verdict)
        size += verdict.ByteSize()
    if pack.verdicts:
        yield pack
