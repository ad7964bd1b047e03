"""The service behind gRPC: who may call, what is refused and how, what is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic import SecretStr

from kit.channel import Peer
from kit.errors import Fault, Kind
from ledger.domain import Posting
from ospay.ledger.v1 import ledger_pb2 as pb
from ospay.ledger.v1.ledger_pb2_grpc import LedgerServiceStub

if TYPE_CHECKING:
    from .conftest import Running

Make = Callable[..., Posting]
ToMessage = Callable[[Posting], pb.Posting]
BALANCES = pb.GetBalancesRequest(merchant_id="m1", asset="USDT")


async def balances(running: Running) -> tuple[str, str]:
    """The balances of m1 in USDT that payments and refunds move."""
    answer = await running.call("GetBalances", BALANCES)
    return answer.merchant_balance_minor, answer.clearing_balance_minor


async def test_post_and_read_back(running: Running, posting: Make, message: ToMessage) -> None:
    """An event is booked, answered, and seen in balances and entries."""
    paid = posting(5_000_000, traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-00")
    answer = await running.call("Post", pb.PostRequest(posting=message(paid)))
    expected = pb.PostResult(event_id=paid.event_id_text, outcome=pb.POST_OUTCOME_POSTED, traceparent=paid.traceparent)
    assert expected == answer.result
    again = await running.call("Post", pb.PostRequest(posting=message(paid)))
    assert again.result.outcome == pb.POST_OUTCOME_ALREADY_POSTED
    assert await balances(running) == ("5000000", "-5000000")
    listed = await running.call("ListEntries", pb.ListEntriesRequest(merchant_id="m1", order_id="o1"))
    assert listed.next_page_token == ""
    credit = next(entry for entry in listed.entries if entry.bucket == pb.BUCKET_MERCHANT)
    debit = next(entry for entry in listed.entries if entry.bucket == pb.BUCKET_CLEARING)
    assert (
        credit.direction,
        credit.balance_after_minor,
        debit.direction,
        debit.balance_after_minor,
    ) == (pb.DIRECTION_CREDIT, "5000000", pb.DIRECTION_DEBIT, "-5000000")
    for entry in (credit, debit):
        assert (paid.event_id_text, pb.EVENT_TYPE_ORDER_PAID, "m1", "o1", "USDT", 5_000_000, paid.tx_hash, 1) == (
            entry.event_id,
            entry.event_type,
            entry.merchant_id,
            entry.order_id,
            entry.asset,
            entry.amount_minor,
            entry.tx_hash,
            entry.seq,
        )
        assert message(paid).effective_at == entry.effective_at
    as_of = pb.GetBalancesRequest(merchant_id="m1", asset="USDT", as_of=credit.created_at)
    then = await running.call("GetBalances", as_of)
    assert ("5000000", credit.created_at) == (then.merchant_balance_minor, then.as_of)
    before = Timestamp()
    before.FromNanoseconds(credit.created_at.ToNanoseconds() - 1000)
    as_of.as_of.CopyFrom(before)
    assert (await running.call("GetBalances", as_of)).merchant_balance_minor == "0"


async def test_conflict_is_a_fault_and_is_recorded(running: Running, posting: Make, message: ToMessage) -> None:
    """Another content under a known id: FAILED_PRECONDITION `event_conflict`, and a row for the operator."""
    paid = posting(5)
    await running.call("Post", pb.PostRequest(posting=message(paid)))
    with pytest.raises(Fault) as caught:
        await running.call("Post", pb.PostRequest(posting=message(posting(6, event_id=paid.event_id))))
    assert (Kind.CONFLICT, "event_conflict", {"event_id": paid.event_id_text}) == (
        caught.value.kind,
        caught.value.reason,
        caught.value.metadata,
    )
    assert [row["reason"] for row in await running.books.rejected()] == ["CONFLICT"]
    assert await balances(running) == ("5", "-5")


async def test_batch_answers_item_by_item(running: Running, posting: Make, message: ToMessage) -> None:
    """Good, invalid, conflicting and repeated items: each has a result, in order, with a reason."""
    first, second = posting(5), posting(7)
    bad = message(posting(1))
    bad.amount_minor = -1
    no_id = message(posting(1))
    no_id.event_id = "x" * 1000
    items = [message(first), bad, message(posting(6, event_id=first.event_id)), no_id, message(first), message(second)]
    answer = await running.call("BatchPost", pb.BatchPostRequest(postings=items))
    assert [result.outcome for result in answer.results] == [
        pb.POST_OUTCOME_POSTED,
        pb.POST_OUTCOME_INVALID,
        pb.POST_OUTCOME_CONFLICT,
        pb.POST_OUTCOME_INVALID,
        pb.POST_OUTCOME_ALREADY_POSTED,
        pb.POST_OUTCOME_POSTED,
    ]
    assert [item.event_id[:64] for item in items] == [result.event_id for result in answer.results]
    assert answer.results[1].detail.startswith("amount_minor: ")
    assert answer.results[3].detail.startswith("event_id: ")
    assert await balances(running) == ("12", "-12")
    reasons = [row["reason"] for row in await running.books.rejected()]
    assert sorted(reasons) == ["CONFLICT", "INVALID", "INVALID"]


async def test_largest_batch(running: Running, posting: Make, message: ToMessage) -> None:
    """A thousand events in one call, and the same call again."""
    request = pb.BatchPostRequest(postings=[message(posting(2**63 - 1, order=f"o{n}")) for n in range(1000)])
    for expected in (pb.POST_OUTCOME_POSTED, pb.POST_OUTCOME_ALREADY_POSTED):
        answer = await running.call("BatchPost", request)
        assert [expected] * 1000 == [result.outcome for result in answer.results]
    total = 1000 * (2**63 - 1)
    assert (str(total), str(-total)) == await balances(running)
    assert await running.books.broken() == []


LONG = Timestamp(seconds=2**60)
POSTING = {
    "event_id": "0190b8f0-0000-7000-8000-000000000001",
    "event_type": 1,
    "merchant_id": "m1",
    "order_id": "o1",
    "asset": "USDT",
    "amount_minor": 5,
    "effective_at": Timestamp(seconds=1),
}


INVALID = [
    ("Post", pb.PostRequest(), {"posting"}),
    ("Post", pb.PostRequest(posting=pb.Posting(**{**POSTING, "amount_minor": 0})), {"posting.amount_minor"}),
    (
        "Post",
        pb.PostRequest(posting=pb.Posting(**{**POSTING, "asset": "$", "order_id": ""})),
        {"posting.asset"},
    ),
    ("Post", pb.PostRequest(posting=pb.Posting(**{**POSTING, "order_id": ""})), {"posting.order_id"}),
    ("Post", pb.PostRequest(posting=pb.Posting(**{**POSTING, "event_type": 5, "order_id": ""})), {"posting.order_id"}),
    ("Post", pb.PostRequest(posting=pb.Posting(**{**POSTING, "effective_at": LONG})), {"posting.effective_at"}),
    (
        "Post",
        pb.PostRequest(posting=pb.Posting(**{**POSTING, "effective_at": Timestamp(nanos=-1)})),
        {"posting.effective_at"},
    ),
    ("BatchPost", pb.BatchPostRequest(), {"postings"}),
    ("BatchPost", pb.BatchPostRequest(postings=[pb.Posting(**POSTING)] * 1001), {"postings"}),
    ("GetBalances", pb.GetBalancesRequest(), {"merchant_id", "asset"}),
    ("GetBalances", pb.GetBalancesRequest(merchant_id="m1", asset="USDT", as_of=LONG), {"as_of"}),
    ("ListEntries", pb.ListEntriesRequest(), {"merchant_id"}),
    (
        "ListEntries",
        pb.ListEntriesRequest(merchant_id="m", order_id="o\0", page_size=501, page_token="x" * 257),
        {"order_id", "page_size", "page_token"},
    ),
    ("ListEntries", pb.ListEntriesRequest(merchant_id="m", page_size=-1), {"page_size"}),
]


async def test_invalid_requests_name_their_fields(running: Running) -> None:
    """INVALID_ARGUMENT `invalid_request` with every wrong field, and nothing changes."""
    for name, request, fields in INVALID:
        with pytest.raises(Fault) as caught:
            await running.call(name, request)
        assert (caught.value.kind, caught.value.reason) == (Kind.INVALID, "invalid_request"), request
        assert fields == {violation.field for violation in caught.value.violations}, request
    assert await running.books.bytes() == {"accounts": [], "balances": [], "events": [], "entries": []}


async def test_pages_by_token(running: Running, posting: Make, message: ToMessage) -> None:
    """Tokens lead from page to page; the token of another listing or of nobody is `invalid_cursor`."""
    postings = [message(posting(n + 1, order=f"o{n % 2}")) for n in range(7)]
    await running.call("BatchPost", pb.BatchPostRequest(postings=postings))
    request = pb.ListEntriesRequest(merchant_id="m1", page_size=4)
    sizes, seen = [], []
    while True:
        page = await running.call("ListEntries", request)
        sizes.append(len(page.entries))
        seen += [entry.entry_id for entry in page.entries]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert (sizes, len(set(seen))) == ([4, 4, 4, 2], 14)
    for bad in (
        pb.ListEntriesRequest(merchant_id="m1", page_token="AAAA"),
        pb.ListEntriesRequest(merchant_id="m1", page_token="é"),
        pb.ListEntriesRequest(merchant_id="m1", order_id="o1", page_token=request.page_token),
        pb.ListEntriesRequest(merchant_id="m2", page_token=request.page_token),
    ):
        with pytest.raises(Fault) as caught:
            await running.call("ListEntries", bad)
        assert (caught.value.kind, caught.value.reason) == (Kind.INVALID, "invalid_cursor")


async def test_without_a_known_token_nothing_is_answered(running: Running) -> None:
    """UNAUTHENTICATED for every rpc, reflection included; health alone is open."""
    channel = running.peer.channel
    stub = LedgerServiceStub(channel)
    for authorization in (None, "", "Bearer ", "Bearer wrong", "Bearer " + "t" * 39):
        metadata = None if authorization is None else [("authorization", authorization)]
        for call in (stub.Post, stub.BatchPost, stub.GetBalances, stub.ListEntries):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(BALANCES if call is stub.GetBalances else pb.PostRequest(), timeout=5, metadata=metadata)
            assert grpc.StatusCode.UNAUTHENTICATED is caught.value.code()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await services(channel, metadata)
        assert grpc.StatusCode.UNAUTHENTICATED is caught.value.code()


async def services(channel: grpc.aio.Channel, metadata: list[tuple[str, str]] | None) -> set[str]:
    """What reflection lists."""

    async def ask() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    found: set[str] = set()
    async for answer in stub.ServerReflectionInfo(ask(), timeout=5, metadata=metadata):
        found |= {service.name for service in answer.list_services_response.service}
    return found


async def test_reflection(running: Running) -> None:
    """A caller with a token can find out what there is to call."""
    assert {
        "ospay.ledger.v1.LedgerService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    } == await services(running.peer.channel, [("authorization", "Bearer " + "t" * 40)])


async def test_health(running: Running) -> None:
    """The process, its database and NATS are shown as serving, to anybody."""
    stub = health_pb2_grpc.HealthStub(running.peer.channel)

    async def serving() -> bool:
        requests = [health_pb2.HealthCheckRequest(service=name) for name in ("", "database", "nats")]
        try:
            answers = [await stub.Check(request, timeout=5) for request in requests]
        except grpc.aio.AioRpcError:  # a component that was not asked for the first time yet is not known
            return False
        return all(answer.status == health_pb2.HealthCheckResponse.SERVING for answer in answers)

    await running.until(serving)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="rpc"), timeout=5)
    assert grpc.StatusCode.NOT_FOUND is caught.value.code()


async def test_caller_that_goes_away_does_not_cut_the_commit(
    running: Running, posting: Make, message: ToMessage
) -> None:
    """Cancelled calls leave whole events or none, and asking again completes the work."""
    requests = [
        pb.BatchPostRequest(postings=[message(posting(1, merchant=f"m{n}")) for _ in range(50)]) for n in range(10)
    ]
    calls = [asyncio.ensure_future(running.call("BatchPost", request)) for request in requests]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    for request in requests:
        await running.call("BatchPost", request)
    assert await running.books.owner.fetchval("SELECT count(*) FROM events") == 500
    assert await running.books.broken() == []


async def test_two_callers_at_once(running: Running, posting: Make, message: ToMessage) -> None:
    """Many calls on one hot merchant wait for each other and are all answered."""
    other = Peer(running.target, token=SecretStr("t" * 40))
    stub = LedgerServiceStub(other.channel)
    requests = [pb.BatchPostRequest(postings=[message(posting(1)) for _ in range(20)]) for _ in range(40)]
    calls = [
        running.call("BatchPost", request) if n % 2 else other.call(stub.BatchPost, request, timeout=20)
        for n, request in enumerate(requests)
    ]
    answers = await asyncio.gather(*calls)
    await other.close()
    assert {pb.POST_OUTCOME_POSTED} == {result.outcome for answer in answers for result in answer.results}
    assert await balances(running) == ("800", "-800")
    assert await running.books.broken() == []


async def test_event_ids_in_any_case_are_one(running: Running, posting: Make, message: ToMessage) -> None:
    """The same id in capital letters is the same event, and is answered as it was written."""
    event_id = uuid4()
    lower, upper = message(posting(event_id=event_id)), message(posting(event_id=event_id))
    upper.event_id = str(event_id).upper()
    answer = await running.call("BatchPost", pb.BatchPostRequest(postings=[lower, upper]))
    assert [(lower.event_id, pb.POST_OUTCOME_POSTED), (upper.event_id, pb.POST_OUTCOME_ALREADY_POSTED)] == [
        (result.event_id, result.outcome) for result in answer.results
    ]
