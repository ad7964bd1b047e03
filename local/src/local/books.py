"""Reads the ledger as an internal system does: over gRPC, with a caller's token."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from ospay.ledger.v1 import ledger_pb2, ledger_pb2_grpc

CALL_BOUND = 10.0  # seconds


@dataclass(frozen=True)
class Entry:
    """One line of the books, in words."""

    event: str
    bucket: str
    direction: str
    amount_minor: int
    balance_after_minor: int

    @property
    def signed(self) -> int:
        return self.amount_minor if self.direction == "CREDIT" else -self.amount_minor


async def entries(run: Mapping[str, Any], merchant_id: str, order_id: str) -> list[Entry]:
    """All of one order. `run` is what run.json says."""
    request = ledger_pb2.ListEntriesRequest(merchant_id=merchant_id, order_id=order_id)
    options = [("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(run["grpc"]["ledger"], options) as channel:
        stub: Any = ledger_pb2_grpc.LedgerServiceStub(channel)
        token = [("authorization", f"Bearer {run['grpc_token']}")]
        answer = await stub.ListEntries(request, timeout=CALL_BOUND, metadata=token)
    return [_entry(line) for line in reversed(answer.entries)]


def _entry(line: ledger_pb2.Entry) -> Entry:
    return Entry(
        event=ledger_pb2.EventType.Name(line.event_type).removeprefix("EVENT_TYPE_"),
        bucket=ledger_pb2.Bucket.Name(line.bucket).removeprefix("BUCKET_"),
        direction=ledger_pb2.Direction.Name(line.direction).removeprefix("DIRECTION_"),
        amount_minor=line.amount_minor,
        balance_after_minor=int(line.balance_after_minor),
    )
