"""Tells verdicts and reports over NATS. What is not taken is let go: orders asks again for what stays open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import structlog

from kit.bus import Bus
from kit.errors import Fault
from kit.process import Process
from ospay.verifier.v1 import verifier_pb2 as pb
from verifier.domain import Verdict
from verifier.messages import Messages
from verifier.metrics import UNPUBLISHED
from verifier.watch.decisions import Report

log = structlog.get_logger()

SUBJECT = "ospay.verifier.v1.verdict"
REPORTS_SUBJECT = "ospay.verifier.v1.transfers"
PAUSES_SECONDS = (0.1, 0.4)
# NATS takes 1 MiB by default; a verdict of a transaction with very many transfers gets a message of its own.
PACK_BYTES = 256 * 1024

Item = TypeVar("Item", pb.Verdict, pb.Report)


class Publisher:
    """Publishes batches, each packed in as few messages as fit."""

    def __init__(self, bus: Bus, messages: Messages, process: Process) -> None:
        self._bus = bus
        self._messages = messages
        self._process = process

    async def publish(self, verdicts: Sequence[Verdict]) -> bool:
        """Whether NATS has all of these verdicts."""
        packs = _packs([self._messages.verdict(each) for each in verdicts])
        messages = [pb.BatchVerifyResponse(verdicts=pack) for pack in packs]
        return all([await self._publish(SUBJECT, each.SerializeToString(), len(each.verdicts)) for each in messages])

    async def publish_reports(self, reports: Sequence[Report]) -> bool:
        """Whether NATS has all of these reports."""
        told = [message for message in map(self._messages.report, reports) if message is not None]
        messages = [pb.TakeReportsResponse(reports=pack) for pack in _packs(told)]
        return all(
            [await self._publish(REPORTS_SUBJECT, each.SerializeToString(), len(each.reports)) for each in messages]
        )

    async def _publish(self, subject: str, payload: bytes, count: int) -> bool:
        for pause in (*PAUSES_SECONDS, None):
            try:
                await self._bus.publish(subject, payload)
            except Fault as fault:
                if pause is not None:
                    await self._process.sleep(pause)
                    continue
                UNPUBLISHED.inc(count)
                log.warning("not_published", subject=subject, count=count, error=fault.detail)
                return False
            return True
        return False


def _packs(items: Sequence[Item]) -> Iterator[list[Item]]:
    pack: list[Item] = []
    size = 0
    for item in items:
        if pack and size + item.ByteSize() > PACK_BYTES:
            yield pack
            pack, size = [], 0
        pack.append(item)
        size += item.ByteSize()
    if pack:
        yield pack
