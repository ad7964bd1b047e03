"""A verifier as tests of orders play it, over real gRPC."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from kit.errors import Fault, Kind
from kit.server import Server, Service
from ospay.verifier.v1 import verifier_pb2, verifier_pb2_grpc

TOKEN = SecretStr("t" * 40)
# The height of the chain when the orders of a test are made, unless it says otherwise.
HEAD = 100


class PlayedVerifier(verifier_pb2_grpc.VerifierServiceServicer):
    """A verifier that knows a height, notes what it is to watch, and hands out the reports that a test puts in."""

    def __init__(self) -> None:
        self.head = HEAD
        self.is_up = True
        self.watches: list[verifier_pb2.Watch] = []
        self.reports: list[verifier_pb2.Report] = []
        self.confirmed: list[tuple[str, int]] = []
        service = Service(
            "ospay.verifier.v1.VerifierService", verifier_pb2_grpc.add_VerifierServiceServicer_to_server, self
        )
        self.server = Server("127.0.0.1:0", callers={"orders": TOKEN}, services=[service], tls=None)

    def _refuse_when_down(self) -> None:
        if not self.is_up:
            raise Fault(Kind.EXHAUSTED, "queue_full", "the test has it down")

    async def GetHead(self, request: verifier_pb2.GetHeadRequest, _: Any) -> verifier_pb2.GetHeadResponse:
        return verifier_pb2.GetHeadResponse(block_number=self.head)

    async def BatchWatch(self, request: verifier_pb2.BatchWatchRequest, _: Any) -> verifier_pb2.BatchWatchResponse:
        self._refuse_when_down()
        self.watches += request.watches
        return verifier_pb2.BatchWatchResponse()

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
