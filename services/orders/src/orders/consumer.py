"""The NATS twin of rpc: verdicts and reports from the verifier, confirmations from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from google.protobuf.message import DecodeError
from opentelemetry.trace import SpanKind

from kit import telemetry
from kit.bus import Bus
from kit.database import Database
from kit.process import Process
from orders.domain import Report, Verdict
from orders.doorbell import Doorbell
from orders.messages import to_report, to_verdict
from orders.peers import read_results
from orders.reports import Reports
from orders.workflow import claims, debts
from ospay.ledger.v1 import ledger_pb2
from ospay.verifier.v1 import verifier_pb2

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
        self, bus: Bus, database: Database, doorbell: Doorbell, reports: Reports, first_look: timedelta
    ) -> None:
        self._bus = bus
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
        found: list[Verdict] = []
        for payload in payloads:
            try:
                found += [to_verdict(item) for item in verifier_pb2.BatchVerifyResponse.FromString(payload).verdicts]
            except (DecodeError, ValueError) as error:
                await debts.dead_letter(self._database, VERDICT, payload, repr(error))
        if not found:
            return
        with telemetry.spans(
            "orders apply verdicts", [item.traceparent for item in found], kind=SpanKind.CONSUMER
        ) as onward:
            marked = [item.onward(onward.get(item.traceparent, item.traceparent)) for item in found]
            await claims.apply(self._database, self._doorbell, marked, first_look=self._first_look)

    async def transfers(self, payloads: Sequence[bytes]) -> None:
        """Applies reports of transfers that nobody had to claim."""
        found: list[Report] = []
        for payload in payloads:
            try:
                found += [to_report(item) for item in verifier_pb2.TakeReportsResponse.FromString(payload).reports]
            except (DecodeError, ValueError) as error:
                await debts.dead_letter(self._database, TRANSFERS, payload, repr(error))
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
        booked: list[UUID] = []
        refused: dict[UUID, str] = {}
        parents: list[str] = []
        for payload in payloads:
            try:
                response = ledger_pb2.BatchPostResponse.FromString(payload)
                some_booked, some_refused = read_results(response)
            except (DecodeError, ValueError) as error:
                await debts.dead_letter(self._database, POSTED, payload, repr(error))
                continue
            booked += some_booked
            refused |= some_refused
            parents += [result.traceparent for result in response.results]
        with telemetry.spans("orders close debts", parents, kind=SpanKind.CONSUMER):
            await debts.close(self._database, booked, refused)
