"""The bus' twin of the rpc: takes claims from `ospay.orders.v1.payment_claimed`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog
from google.protobuf.message import DecodeError

from kit.errors import Fault, Kind
from kit.server import check
from ospay.verifier.v1 import verifier_pb2 as pb
from verifier.desk import Closed
from verifier.domain import Claim
from verifier.messages import Messages
from verifier.metrics import POISON
from verifier.workers import Line

log = structlog.get_logger()

STREAM = "OSPAY_ORDERS"
SUBJECT = "ospay.orders.v1.payment_claimed"
DURABLE = "verifier"
# Messages at once; each may hold up to 500 claims, and what the queue has no room for waits at NATS.
MESSAGES = 20
# Below the bus' ack wait, past which NATS would hand the messages to somebody else.
ROOM_SECONDS = 10.0


class Consumer:
    """Hands claims to the desks of their chains. Poison is counted, logged and passed over."""

    def __init__(self, lines: Mapping[str, Line], messages: Messages) -> None:
        self._lines = lines
        self._messages = messages

    async def handle(self, payloads: Sequence[bytes]) -> None:
        """Returns when every claim is on a desk: the messages may be acknowledged, the debt is orders' row.

        Errors: Fault when there is no room for too long; the messages come again.
        """
        claims: dict[str, list[Claim]] = {}
        for payload in payloads:
            for claim in self._claims(payload):
                claims.setdefault(claim.chain, []).append(claim)
        # Side by side: a chain whose queue is full does not hold up the claims on another.
        taking = [self._lines[chain].desk.take(group, ROOM_SECONDS) for chain, group in claims.items()]
        for outcome in await asyncio.gather(*taking, return_exceptions=True):
            if isinstance(outcome, TimeoutError | Closed):
                raise Fault(Kind.EXHAUSTED, "queue_full", "no room for the claims") from None
            if isinstance(outcome, BaseException):
                raise outcome

    def _claims(self, payload: bytes) -> list[Claim]:
        try:
            request = pb.BatchVerifyRequest.FromString(payload)
        except DecodeError:
            POISON.labels("unreadable").inc()
            log.error("poison_message", bytes=len(payload))
            return []
        claims = [self._claim(message) for message in request.claims]
        return [claim for claim in claims if claim is not None]

    def _claim(self, message: pb.Claim) -> Claim | None:
        try:
            check(message)
            claim = self._messages.claim(message)
        except Fault as fault:
            POISON.labels(fault.reason).inc()
            log.error("poison_claim", claim_id=message.claim_id[:64], reason=fault.reason, error=fault.detail[:500])
            return None
        if claim.chain not in self._lines:
            POISON.labels("not_served").inc()
            log.error("claim_not_served", claim_id=claim.claim_id, chain=claim.chain)
            return None
        return claim
