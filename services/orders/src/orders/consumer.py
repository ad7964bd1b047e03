"""The NATS twin of rpc: verdicts and reports from the verifier, confirmations from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from opentelemetry.trace import SpanKind

from kit import telemetry
from kit.bus import Bus
from kit.database import Database
from kit.process import Process
from orders.doorbell import Doorbell
from orders.messages import Reader
from orders.peers import read_results
from orders.reports import Reports
from orders.workflow import claims, debts
from ospay.ledger.v1 import ledger_pb2
from ospay.verifier.v1 import verifier_pb2

M = TypeVar("M", bound=Message)

STREAMS = {
    "OSPAY_ORDERS": "ospay.orders.v1.>",
    "OSPAY_VERIFIER": "ospay.verifier.v1.>",
    "OSPAY_LEDGER": "ospay.ledger.v1.>",
}
VERDICT = "ospay.verifier.v1.verdict"
TRANSFERS = "ospay.verifier.v1.transfers"
POSTED = "ospay.ledger.v1.posted"
# Of up to 200 verdicts each: after a long backlog one commit must stay well within the time of a statement.
VERDICT_MESSAGES = 20


class Consumer:
    """Hands messages to the workflow, many at once; what cannot be read is kept as a dead letter."""

    def __init__(
        self, bus: Bus, database: Database, doorbell: Doorbell, reports: Reports, reader: Reader, first_look: timedelta
    ) -> None:
        self._bus = bus
        self._reader = reader
        self._database = database
        self._doorbell = doorbell
        self._reports = reports
        self._first_look = first_look

    def start(self, process: Process) -> None:
        """Consumes in the background."""
        verdicts = self._bus.consume(
            stream="OSPAY_VERIFIER",
            subject=VERDICT,
            durable="orders_verdicts",
            handle=self.verdicts,
            batch=VERDICT_MESSAGES,
        )
        transfers = self._bus.consume(
            stream="OSPAY_VERIFIER", subject=TRANSFERS, durable="orders_transfers", handle=self.transfers
        )
        posted = self._bus.consume(stream="OSPAY_LEDGER", subject=POSTED, durable="orders_posted", handle=self.posted)
        process.start("consume verdicts", verdicts)
        process.start("consume transfers", transfers)
        process.start("consume posted", posted)

    async def verdicts(self, payloads: Sequence[bytes]) -> None:
        """Applies verdicts, in one commit."""
        told = await self._read(VERDICT, verifier_pb2.BatchVerifyResponse, payloads)
        found = self._reader.verdicts([item for message in told for item in message.verdicts])
        if not found:
            return
        with telemetry.spans(
            "orders apply verdicts", [item.traceparent for item in found], kind=SpanKind.CONSUMER
        ) as onward:
            marked = [item.onward(onward.get(item.traceparent, item.traceparent)) for item in found]
            await claims.apply(self._database, self._doorbell, marked, first_look=self._first_look)

    async def transfers(self, payloads: Sequence[bytes]) -> None:
        """Applies reports of transfers that nobody had to claim."""
        told = await self._read(TRANSFERS, verifier_pb2.TakeReportsResponse, payloads)
        found = self._reader.reports([item for message in told for item in message.reports])
        if not found:
            return
        with telemetry.spans(
            "orders apply reports", [item.arrival.traceparent for item in found], kind=SpanKind.CONSUMER
        ) as onward:
            parents = [item.arrival.traceparent for item in found]
            marked = [item.onward(onward.get(parent, parent)) for item, parent in zip(found, parents, strict=True)]
            await self._reports.take_in(marked)

    async def posted(self, payloads: Sequence[bytes]) -> None:
        """Closes the debts that the ledger confirms."""
        told = await self._read(POSTED, ledger_pb2.BatchPostResponse, payloads)
        results = [item for message in told for item in message.results]
        booked, refused = read_results(results)
        with telemetry.spans("orders close debts", [item.traceparent for item in results], kind=SpanKind.CONSUMER):
            await debts.close(self._database, booked, refused)

    async def _read(self, subject: str, kind: type[M], payloads: Sequence[bytes]) -> list[M]:
        """The messages; what is none is kept as a dead letter."""
        messages: list[M] = []
        for payload in payloads:
            try:
                messages.append(kind.FromString(payload))
            except DecodeError as error:
                await debts.dead_letter(self._database, subject, payload, repr(error))
        return messages
