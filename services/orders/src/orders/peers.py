"""The calls that orders makes: the verifier proves, the ledger books."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from kit.channel import Peer
from orders.domain import Debt, Report, Verdict
from orders.messages import Reader, to_result, understood
from ospay.ledger.v1 import ledger_pb2, ledger_pb2_grpc
from ospay.verifier.v1 import verifier_pb2, verifier_pb2_grpc

CALL_SECONDS = 10.0
# A consumer waits for it, and what is not confirmed is told again.
CONFIRM_SECONDS = 2.0
# It is asked again a second later.
CHECK_SECONDS = 2.0


class Verifier:
    """The verifier, asked directly."""

    def __init__(self, peer: Peer, reader: Reader) -> None:
        self._peer = peer
        self._reader = reader
        self._stub = verifier_pb2_grpc.VerifierServiceStub(peer.channel)

    async def verify(self, debts: Sequence[Debt], seconds: float = CALL_SECONDS) -> list[Verdict]:
        """What the chain says now of these claims, as far as it is understood here, within `seconds`. Errors: Fault."""
        claims = [verifier_pb2.Claim.FromString(debt.payload) for debt in debts]
        request = verifier_pb2.BatchVerifyRequest(claims=claims)
        response = await self._peer.call(self._stub.BatchVerify, request, timeout=seconds)
        return self._reader.verdicts(response.verdicts)

    async def watch(self, debts: Sequence[Debt]) -> None:
        """Has these addresses watched; on disk there when this returns. Errors: Fault."""
        watches = [verifier_pb2.Watch.FromString(debt.payload) for debt in debts]
        request = verifier_pb2.BatchWatchRequest(watches=watches)
        await self._peer.call(self._stub.BatchWatch, request, timeout=CALL_SECONDS)

    async def check(self, spans: Sequence[verifier_pb2.Span]) -> list[verifier_pb2.SpanState.ValueType]:
        """Whether more may come to light of each of these. Errors: Fault."""
        request = verifier_pb2.CheckSpansRequest(spans=spans)
        return list((await self._peer.call(self._stub.CheckSpans, request, timeout=CHECK_SECONDS)).states)

    async def take_reports(self, limit: int) -> tuple[list[Report], int]:
        """What was not confirmed in time, as far as it is understood here, and the number of all. Errors: Fault."""
        request = verifier_pb2.TakeReportsRequest(limit=limit)
        told = (await self._peer.call(self._stub.TakeReports, request, timeout=CALL_SECONDS)).reports
        return self._reader.reports(told), len(told)

    async def confirm_reports(self, reports: Sequence[Report]) -> None:
        """Says that these are on disk here. Errors: Fault."""
        versions = [verifier_pb2.ReportVersion(report_id=str(item.id), version=item.version) for item in reports]
        request = verifier_pb2.ConfirmReportsRequest(reports=versions)
        await self._peer.call(self._stub.ConfirmReports, request, timeout=CONFIRM_SECONDS)


class Ledger:
    """The ledger, asked directly."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stub = ledger_pb2_grpc.LedgerServiceStub(peer.channel)

    async def post(self, debts: Sequence[Debt]) -> tuple[list[UUID], dict[UUID, str]]:
        """Books events. Returns those that are booked, and those refused with the reason. Errors: Fault."""
        postings = [ledger_pb2.Posting.FromString(debt.payload) for debt in debts]
        request = ledger_pb2.BatchPostRequest(postings=postings)
        response = await self._peer.call(self._stub.BatchPost, request, timeout=CALL_SECONDS)
        return read_results(response.results)


def read_results(results: Iterable[ledger_pb2.PostResult]) -> tuple[list[UUID], dict[UUID, str]]:
    """(booked, refused with the reason), as far as it is understood here."""
    read = understood(to_result, results)
    return [id for id, why in read if why is None], {id: why for id, why in read if why is not None}
