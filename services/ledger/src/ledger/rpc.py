"""The ledger's gRPC service."""

from __future__ import annotations

from typing import Any

import grpc

from kit.database import Database
from kit.errors import Fault, Kind
from ledger import contract, cursor, workflow
from ledger.domain import Outcome
from ospay.ledger.v1 import ledger_pb2 as pb
from ospay.ledger.v1 import ledger_pb2_grpc

DEFAULT_PAGE = 100

Context = grpc.aio.ServicerContext[Any, Any]


class LedgerServicer(ledger_pb2_grpc.LedgerServiceServicer):
    """Writes and reads have a pool each: a queue of writers keeps nobody from reading."""

    def __init__(self, writing: Database, reading: Database) -> None:
        self._writing = writing
        self._reading = reading

    async def Post(self, request: pb.PostRequest, context: Context) -> pb.PostResponse:
        posting = contract.posting_of(request.posting, "posting.")
        [result] = await workflow.post(self._writing, [posting])
        if result.outcome is Outcome.CONFLICT:
            metadata = {"event_id": result.event_id_text}
            raise Fault(Kind.CONFLICT, "event_conflict", result.detail, metadata=metadata)
        return pb.PostResponse(result=contract.result_of(result))

    async def BatchPost(self, request: pb.BatchPostRequest, context: Context) -> pb.BatchPostResponse:
        return contract.response_of(await workflow.post(self._writing, contract.items_of(request.postings)))

    async def GetBalances(self, request: pb.GetBalancesRequest, context: Context) -> pb.GetBalancesResponse:
        as_of = contract.time_of(request.as_of, "as_of") if request.HasField("as_of") else None
        balances = await workflow.read_balances(self._reading, request.merchant_id, request.asset, as_of)
        return pb.GetBalancesResponse(
            merchant_balance_minor=str(balances.merchant),
            clearing_balance_minor=str(balances.clearing),
            suspense_balance_minor=str(balances.suspense),
            as_of=contract.timestamp_of(balances.as_of),
        )

    async def ListEntries(self, request: pb.ListEntriesRequest, context: Context) -> pb.ListEntriesResponse:
        listing = f"{request.merchant_id} {request.order_id}"
        before = cursor.decode(request.page_token, listing=listing)
        size = request.page_size or DEFAULT_PAGE
        entries, end = await workflow.list_entries(self._reading, request.merchant_id, request.order_id, before, size)
        return pb.ListEntriesResponse(
            entries=[contract.entry_of(entry) for entry in entries],
            next_page_token=cursor.encode(end, listing=listing) if end else "",
        )
