"""VerifierService: protobuf ↔ domain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
import structlog

from chains import Registry
from kit import deadlines
from kit.errors import Fault, Kind
from kit.server import streamed
from ospay.verifier.v1 import verifier_pb2 as pb
from ospay.verifier.v1 import verifier_pb2_grpc
from verifier.desk import Closed, QueueFull
from verifier.domain import (
    CHAIN_UNAVAILABLE,
    ChainFailure,
    Claim,
    Rejected,
    RejectReason,
    StoreUnavailable,
    Verdict,
)
from verifier.messages import SPAN_STATES, Messages
from verifier.panel import LOOK_SECONDS, Health
from verifier.watch.register import Register
from verifier.workers import Line

log = structlog.get_logger()

ANSWER_SECONDS = 12.0
# A chain without an endpoint here that was looked through since has one in another replica: this one's configuration is
# behind. Longer than a chain, or all of its operators, may be away.
LOOKED_AT = timedelta(days=1)
# gRPC carries 4 MiB. Thousands of transfers in one transaction make a large verdict, and anyone can make one.
MAX_RESPONSE_BYTES = 3 * 1024 * 1024

HEALTH = {
    Health.OK: pb.CHAIN_HEALTH_OK,
    Health.DEGRADED: pb.CHAIN_HEALTH_DEGRADED,
    Health.UNAVAILABLE: pb.CHAIN_HEALTH_UNAVAILABLE,
}

Context = grpc.aio.ServicerContext[object, object]


class VerifierRpc(verifier_pb2_grpc.VerifierServiceServicer):
    """The rpcs of the verifier; errors as the contract documents them."""

    def __init__(self, registry: Registry, lines: Mapping[str, Line], messages: Messages, register: Register) -> None:
        self._registry = registry
        self._lines = lines
        self._messages = messages
        self._register = register

    async def Verify(self, request: pb.VerifyRequest, context: Context) -> pb.VerifyResponse:
        """What the chain says now of one claim."""
        claim = self._messages.claim(request.claim)
        (verdict,) = await self._look([claim])
        return pb.VerifyResponse(verdict=self._messages.verdict(verdict))

    async def BatchVerify(self, request: pb.BatchVerifyRequest, context: Context) -> pb.BatchVerifyResponse:
        """What the chain says now of many."""
        claims = [self._messages.claim(message, f"claims[{place}]") for place, message in enumerate(request.claims)]
        verdicts = await self._look(claims)
        return pb.BatchVerifyResponse(verdicts=self._fitting(verdicts))

    async def GetHead(self, request: pb.GetHeadRequest, context: Context) -> pb.GetHeadResponse:
        """The newest block, read now."""
        self._messages.chain_id(request.chain)
        line = self._lines.get(request.chain)
        if line is None:
            raise _no_endpoint(request.chain)
        try:
            number = await asyncio.wait_for(line.panel.head_number(), deadlines.shave(5.0))
        except (ChainFailure, TimeoutError):
            raise Fault(Kind.UNAVAILABLE, "unavailable", f"no head of {request.chain} is known now") from None
        return pb.GetHeadResponse(block_number=number)

    StreamHeads = streamed(GetHead)

    async def BatchWatch(self, request: pb.BatchWatchRequest, context: Context) -> pb.BatchWatchResponse:
        """Takes addresses to watch."""
        watches = [self._messages.watch(each, f"watches[{place}]") for place, each in enumerate(request.watches)]
        with _stored():
            await self._register.watch(watches)
        return pb.BatchWatchResponse()

    async def TakeReports(self, request: pb.TakeReportsRequest, context: Context) -> pb.TakeReportsResponse:
        """Hands out reports that were not confirmed in time."""
        with _stored():
            taken = await self._register.take(request.limit)
        reports = [(report, self._messages.report(report)) for report in taken]
        for report, message in reports:
            if message is None:
                log.error("report_not_configured", report_id=str(report.id), contract=report.transfer.contract)
        return pb.TakeReportsResponse(reports=[message for _, message in reports if message is not None])

    async def ConfirmReports(self, request: pb.ConfirmReportsRequest, context: Context) -> pb.ConfirmReportsResponse:
        """Closes reports."""
        with _stored():
            await self._register.confirm([(UUID(each.report_id), each.version) for each in request.reports])
        return pb.ConfirmReportsResponse()

    async def ListCoverage(self, request: pb.ListCoverageRequest, context: Context) -> pb.ListCoverageResponse:
        """Tells how far a chain has been looked through."""
        chain_id = self._messages.chain_id(request.chain)
        with _stored():
            return self._messages.coverage(await self._register.coverage(chain_id))

    async def CheckSpans(self, request: pb.CheckSpansRequest, context: Context) -> pb.CheckSpansResponse:
        """Whether more may come to light of these spans."""
        # A chain that only orders is configured for will be looked through: nobody gives up on it before.
        known = self._registry.chains
        states = [
            pb.SPAN_STATE_NOT_SERVED if each.chain in known else pb.SPAN_STATE_CHAIN_BEHIND for each in request.spans
        ]
        asked = known.keys() & {each.chain for each in request.spans}
        looked_at = {name for name in asked if await self._is_looked_at(name)}
        served = [place for place, each in enumerate(request.spans) if each.chain in looked_at]
        spans = [self._messages.span(request.spans[place], f"spans[{place}]") for place in served]
        with _stored():
            found = await self._register.check(spans) if spans else []
        for place, state in zip(served, found, strict=True):
            states[place] = SPAN_STATES[state]
        for place, each in enumerate(request.spans):
            # Its configuration is ahead of ours, or ours is wrong: what came of that asset will not have been found.
            if states[place] == pb.SPAN_STATE_DONE and not self._messages.is_looked_for(each):
                states[place] = pb.SPAN_STATE_ADDRESS_BEHIND
        return pb.CheckSpansResponse(states=states)

    async def _is_looked_at(self, name: str) -> bool:
        """Whether this process looks through a chain, or another one did of late."""
        if name in self._lines:
            return True
        with _stored():
            until = await self._register.looked_through(self._registry.chains[name].chain_id)
        return until is not None and datetime.now(UTC) - until < LOOKED_AT

    async def ListChains(self, request: pb.ListChainsRequest, context: Context) -> pb.ListChainsResponse:
        """How each configured chain is seen."""
        names = sorted(self._registry.chains)
        return pb.ListChainsResponse(chains=await asyncio.gather(*(self._status(name) for name in names)))

    async def _look(self, claims: Sequence[Claim]) -> list[Verdict]:
        """A verdict for each claim within the deadline; what is not looked at by then waits."""
        asked = [(claim, self._lines.get(claim.chain)) for claim in claims]
        futures = self._ask([(claim, line) for claim, line in asked if line is not None])
        if futures:
            await asyncio.wait(futures.values(), timeout=deadlines.shave(ANSWER_SECONDS))
        return [_verdict(claim, futures.get(claim.key)) for claim in claims]

    def _ask(self, asked: Sequence[tuple[Claim, Line]]) -> dict[tuple[str, ...], asyncio.Future[Verdict]]:
        """Puts all claims on their desks, or none."""
        groups: dict[str, dict[tuple[str, ...], Claim]] = {}
        for claim, _ in asked:
            groups.setdefault(claim.chain, {})[claim.key] = claim
        futures: dict[tuple[str, ...], asyncio.Future[Verdict]] = {}
        try:
            if not all(self._lines[chain].desk.has_room(list(group.values())) for chain, group in groups.items()):
                raise QueueFull
            for chain, group in groups.items():
                futures.update(zip(group, self._lines[chain].desk.ask(list(group.values())), strict=True))
        except QueueFull:
            raise Fault(Kind.EXHAUSTED, "queue_full", "the verification queue is full; try again") from None
        except Closed:
            raise _stopping() from None
        return futures

    def _fitting(self, verdicts: Sequence[Verdict]) -> list[pb.Verdict]:
        """The verdicts as messages; the largest ones wait, when together they pass what gRPC carries."""
        messages = [self._messages.verdict(verdict) for verdict in verdicts]
        room = MAX_RESPONSE_BYTES
        for place in sorted(range(len(messages)), key=lambda place: messages[place].ByteSize()):
            room -= messages[place].ByteSize()
            if room < 0:
                claim = verdicts[place].claim
                messages[place] = self._messages.verdict(Verdict(claim, CHAIN_UNAVAILABLE, claim.traceparent))
        return messages

    async def _status(self, name: str) -> pb.ChainStatus:
        chain_id = self._registry.chains[name].chain_id
        line = self._lines.get(name)
        if line is None:
            error = f"{self._registry.chains[name].rpc_url_env} is not set"
            return pb.ChainStatus(chain=name, chain_id=chain_id, error=error, health=HEALTH[Health.UNAVAILABLE])
        panel = line.panel
        health = await panel.look(min(LOOK_SECONDS, deadlines.shave(LOOK_SECONDS)))
        seen = panel.last_heads
        return pb.ChainStatus(
            chain=name,
            chain_id=chain_id,
            available=health is not Health.UNAVAILABLE,
            head_number=seen.head.number if seen else 0,
            finalized_number=seen.finalized if seen else 0,
            waiting_count=line.desk.waiting_count,
            error=panel.error,
            health=HEALTH[health],
            endpoints=[
                pb.EndpointStatus(
                    operator=node.operator,
                    available=not panel.fault(node),
                    logs=bool(node.logs_served),
                    finalized_number=node.finalized,
                    error=panel.fault(node),
                )
                for node in panel.nodes
            ],
        )


@contextmanager
def _stored() -> Iterator[None]:
    try:
        yield
    except StoreUnavailable:
        raise Fault(Kind.UNAVAILABLE, "unavailable", "the database does not answer; try again") from None


def _verdict(claim: Claim, future: asyncio.Future[Verdict] | None) -> Verdict:
    if future is not None and future.cancelled():
        raise _stopping()
    if future is not None and future.done():
        return future.result()
    if future is not None:
        future.cancel()  # nobody listens any more: the verdict will be published
    # On a chain without an endpoint nobody will look: there our own clock gives a claim up.
    is_over = future is None and time.time() > claim.give_up_at
    return Verdict(claim, Rejected(RejectReason.GIVEN_UP) if is_over else CHAIN_UNAVAILABLE, claim.traceparent)


def _stopping() -> Fault:
    return Fault(Kind.UNAVAILABLE, "unavailable", "this process stops; try again")


def _no_endpoint(chain: str) -> Fault:
    return Fault(Kind.UNAVAILABLE, "unavailable", f"no endpoint is configured for {chain}")
