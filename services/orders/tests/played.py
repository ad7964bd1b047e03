"""A verifier and a ledger as tests of orders play them, over real gRPC."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import SecretStr

from kit.errors import Fault, Kind
from kit.server import Server, Service
from ospay.ledger.v1 import ledger_pb2, ledger_pb2_grpc
from ospay.verifier.v1 import verifier_pb2, verifier_pb2_grpc

TOKEN = SecretStr("t" * 40)
# The height of the chain when the orders of a test are made, unless it says otherwise.
HEAD = 100
DONE = verifier_pb2.SPAN_STATE_DONE


class PlayedVerifier(verifier_pb2_grpc.VerifierServiceServicer):
    """A verifier that knows a height, notes what it is to watch, and hands out what a test puts in.

    It has looked through everything, but for what is in `span_states`, by address or chain.
    """

    def __init__(self) -> None:
        self.head = HEAD
        self.is_up = True
        # Chains that it is not configured for.
        self.unknown: set[str] = set()
        self.watches: list[verifier_pb2.Watch] = []
        self.reports: list[verifier_pb2.Report] = []
        self.confirmed: list[tuple[str, int]] = []
        # By transaction, without the claim's id.
        self.verdicts: dict[str, verifier_pb2.Verdict] = {}
        self.checked: list[verifier_pb2.Span] = []
        self.span_states: dict[str, verifier_pb2.SpanState.ValueType] = {}
        service = Service(
            "ospay.verifier.v1.VerifierService", verifier_pb2_grpc.add_VerifierServiceServicer_to_server, self
        )
        self.server = Server("127.0.0.1:0", callers={"orders": TOKEN}, services=[service], tls=None)

    def _refuse_when_down(self) -> None:
        if not self.is_up:
            raise Fault(Kind.EXHAUSTED, "queue_full", "the test has it down")

    async def GetHead(self, request: verifier_pb2.GetHeadRequest, _: Any) -> verifier_pb2.GetHeadResponse:
        return verifier_pb2.GetHeadResponse(block_number=self.head)

    async def BatchVerify(self, request: verifier_pb2.BatchVerifyRequest, _: Any) -> verifier_pb2.BatchVerifyResponse:
        self._refuse_when_down()
        response = verifier_pb2.BatchVerifyResponse()
        for claim in request.claims:
            response.verdicts.add(claim_id=claim.claim_id).MergeFrom(self.verdicts[claim.tx_hash])
        return response

    async def BatchWatch(self, request: verifier_pb2.BatchWatchRequest, _: Any) -> verifier_pb2.BatchWatchResponse:
        self._refuse_when_down()
        for place, watch in enumerate(request.watches):
            if watch.chain in self.unknown:
                raise Fault(Kind.INVALID, "unknown_chain", f"watches[{place}].chain: {watch.chain} is not configured")
        self.watches += request.watches
        return verifier_pb2.BatchWatchResponse()

    async def CheckSpans(self, request: verifier_pb2.CheckSpansRequest, _: Any) -> verifier_pb2.CheckSpansResponse:
        self._refuse_when_down()
        self.checked += request.spans
        told = [self.span_states.get(span.address, self.span_states.get(span.chain, DONE)) for span in request.spans]
        return verifier_pb2.CheckSpansResponse(states=told)

    async def TakeReports(self, request: verifier_pb2.TakeReportsRequest, _: Any) -> verifier_pb2.TakeReportsResponse:
        self._refuse_when_down()
        return verifier_pb2.TakeReportsResponse(reports=self.reports[: request.limit])

    async def ConfirmReports(
        self, request: verifier_pb2.ConfirmReportsRequest, _: Any
    ) -> verifier_pb2.ConfirmReportsResponse:
        self._refuse_when_down()
        told = {(item.report_id, item.version) for item in request.reports}
        self.confirmed += sorted(told)
        self.reports = [item for item in self.reports if (item.report_id, item.version) not in told]
        return verifier_pb2.ConfirmReportsResponse()


class PlayedLedger(ledger_pb2_grpc.LedgerServiceServicer):
    """A ledger that says of everything that it is booked, while it does not hang."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = asyncio.Event()
        service = Service("ospay.ledger.v1.LedgerService", ledger_pb2_grpc.add_LedgerServiceServicer_to_server, self)
        self.server = Server("127.0.0.1:0", callers={"orders": TOKEN}, services=[service], tls=None)

    async def BatchPost(self, request: ledger_pb2.BatchPostRequest, _: Any) -> ledger_pb2.BatchPostResponse:
        self.asked.set()
        await self.answers.wait()
        posted = ledger_pb2.POST_OUTCOME_POSTED
        results = [ledger_pb2.PostResult(event_id=item.event_id, outcome=posted) for item in request.postings]
        return ledger_pb2.BatchPostResponse(results=results)
