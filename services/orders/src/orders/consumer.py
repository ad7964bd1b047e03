"""The NATS twin of rpc: verdicts from the verifier, confirmations from the ledger."""

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
from orders.domain import Verdict
from orders.doorbell import Doorbell
from orders.messages import to_verdict
from orders.peers import read_results
from orders.workflow import claims, debts
from ospay.ledger.v1 import ledger_pb2
from ospay.verifier.v1 import verifier_pb2

STREAMS = {
    "OSPAY_ORDERS": "ospay.orders.v1.>",
    "OSPAY_VERIFIER": "ospay.verifier.v1.>",
    "OSPAY_LEDGER": "ospay.ledger.v1.>",
}
VERDICT = "ospay.verifier.v1.verdict"
POSTED = "ospay.ledger.v1.posted"


class Consumer:
    """Hands messages to the workflow, many at once; what cannot be read is kept as a dead letter."""

    def __init__(self, bus: Bus, database: Database, doorbell: Doorbell, first_look: timedelta) -> None:
        self._bus = bus
        self._database = database
        self._doorbell = doorbell
        self._first_look = first_look

    def start(self, process: Process) -> None:
        """Consumes in the background."""
        verdicts = self._bus.consume(
            stream="OSPAY_VERIFIER", subject=VERDICT, durable="orders_verdicts", handle=self.verdicts
        )
        posted = self._bus.consume(stream="OSPAY_LEDGER", subject=POSTED, durable="orders_posted", handle=self.posted)
        process.start("consume verdicts", verdicts)
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
