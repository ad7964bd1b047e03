"""The NATS twin of rpc.py: what orders rings the bell for is booked, and the outcome is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from google.protobuf.message import DecodeError

from kit.database import Database
from kit.errors import Fault
from kit.server import check
from ledger import contract, workflow
from ledger.domain import MAX_POSTINGS, Refusal
from ospay.ledger.v1 import ledger_pb2 as pb

POSTED = "ospay.ledger.v1.posted"

Publish = Callable[[str, bytes], Awaitable[None]]


# While PostgreSQL books one statement the next is read, checked and hashed.
IN_FLIGHT = 2


class Consumer:
    """Books messages in batches: many messages, few statements."""

    def __init__(self, database: Database, publish: Publish) -> None:
        self._database = database
        self._publish = publish
        self._turns = asyncio.Semaphore(IN_FLIGHT)

    async def handle(self, payloads: list[bytes]) -> None:
        """Books all postings of the messages and publishes the outcomes; a message that is none is recorded.

        Errors: those of the database and of the bus, which get better. Then the messages come again, what is booked
        answers ALREADY_POSTED, and that is published.
        """
        postings: list[pb.Posting] = []
        refusals: list[Refusal] = []
        for payload in payloads:
            try:
                postings += _parse(payload)
            except (DecodeError, Fault) as error:
                refusals.append(contract.unparseable(payload, str(error)))
        if refusals:
            await workflow.record(self._database, refusals)
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(postings), MAX_POSTINGS):
                group.create_task(self._book(postings[start : start + MAX_POSTINGS]))

    async def _book(self, postings: list[pb.Posting]) -> None:
        async with self._turns:
            results = await workflow.post(self._database, contract.items_of(postings))
            await self._publish(POSTED, contract.response_of(results).SerializeToString())


def _parse(payload: bytes) -> list[pb.Posting]:
    request = pb.BatchPostRequest.FromString(payload)
    check(request)
    return list(request.postings)
