"""A merchant that refunds, and what the verifier tells of its transactions."""

from __future__ import annotations

from datetime import timedelta

from kit.bus import Bus
from orders.consumer import Consumer
from orders.domain import Outcome, Verdict
from orders.doorbell import Doorbell
from orders.peers import Verifier
from orders.reports import Reports
from ospay.orders.v1 import orders_pb2
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.conftest import WALLET, Suite  # type: ignore[import-not-found]
from services.orders.tests.desk import Desk, transfer, tx  # type: ignore[import-not-found]

LATER = timedelta(hours=1)


PAYER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"


OTHER = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"


OTHER_WALLET = "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65"


TOKEN_CONTRACT = "0x55d398326f99059fF775485246999027B3197955"


PAID_BLOCK = 101


RECORDED = orders_pb2.REFUND_STATE_RECORDED


CONFIRMED = orders_pb2.REFUND_STATE_CONFIRMED


REFUTED = orders_pb2.REFUND_STATE_REFUTED


CLAIMED = "ospay.orders.v1.payment_claimed"


def moved(number: int, amount_minor: int = 1_000_000, **fields: object) -> verifier_pb2.Transfer:
    """A transfer from the merchant's wallet to the payer, as the verifier tells it."""
    given_fields = {"sender": WALLET, "block_number": PAID_BLOCK + 5, "log_index": 0, **fields}
    found = verifier_pb2.Transfer(
        chain_id=56,
        tx_hash=tx(number),
        block_hash=tx(98),
        recipient=PAYER,
        amount_base=str(amount_minor * 10**12),
        amount_minor=amount_minor,
        **given_fields,  # type: ignore[arg-type]
    )
    found.block_time.GetCurrentTime()
    return found


def final(claim_id: str, *transfers: verifier_pb2.Transfer) -> verifier_pb2.Verdict:
    return verifier_pb2.Verdict(claim_id=claim_id, final=verifier_pb2.Final(transfers=transfers))


def waiting(claim_id: str, reason: str) -> verifier_pb2.Verdict:
    number = verifier_pb2.WaitReason.Value(f"WAIT_REASON_{reason.upper()}")
    return verifier_pb2.Verdict(claim_id=claim_id, waiting=verifier_pb2.Waiting(reason=number))


def rejected(claim_id: str, reason: str) -> verifier_pb2.Verdict:
    number = verifier_pb2.RejectReason.Value(f"REJECT_REASON_{reason.upper()}")
    return verifier_pb2.Verdict(claim_id=claim_id, rejected=verifier_pb2.Rejected(reason=number))


class Shop(Desk):  # type: ignore[misc]
    """A merchant whose verifier is the test: its verdicts come as messages, through the consumer."""

    def __init__(self, suite: Suite) -> None:
        super().__init__(suite)
        nowhere = Bus("nats://127.0.0.1:1", name="none", streams={})
        doorbell = Doorbell(nowhere, suite.process)
        reports = Reports(suite.database, doorbell, Verifier(suite.peer, self._reader), LATER)  # none come here
        self._consumer = Consumer(nowhere, suite.database, doorbell, reports, self._reader, LATER)

    async def sell(self, order_id: str, number: int, sender: str = PAYER) -> None:
        """An order of 5 USDT that this transaction has paid."""
        await self.suite.create(order_id)
        claim = await self.claim(order_id, number)
        await self.apply(Verdict(claim, Outcome.FINAL, transfers=(transfer(number, sender=sender),)))

    async def refund(self, refund_id: str = "r1", order_id: str = "ord_1", **fields: object) -> object:
        """A refund of 1 USDT."""
        given_fields = {"merchant_id": "mrc_1", "reason": "asked", "amount_minor": 1_000_000, **fields}
        request = orders_pb2.RefundOrderRequest(order_id=order_id, refund_id=refund_id, **given_fields)  # type: ignore[arg-type]
        return await self.suite.peer.call(self.suite.orders.RefundOrder, request, timeout=5)

    async def attach(self, number: int, refund_id: str = "r1", merchant_id: str = "mrc_1") -> orders_pb2.Refund:
        request = orders_pb2.AttachRefundTransactionRequest(
            merchant_id=merchant_id, refund_id=refund_id, tx_hash=tx(number)
        )
        return (await self.suite.peer.call(self.suite.orders.AttachRefundTransaction, request, timeout=5)).refund

    async def refunds(self, order_id: str = "ord_1", merchant_id: str = "mrc_1") -> list[orders_pb2.Refund]:
        request = orders_pb2.ListRefundsRequest(merchant_id=merchant_id, order_id=order_id)
        return list((await self.suite.peer.call(self.suite.orders.ListRefunds, request, timeout=5)).refunds)

    async def shown(self, refund_id: str = "r1", order_id: str = "ord_1") -> orders_pb2.Refund:
        (found,) = [item for item in await self.refunds(order_id) if item.refund_id == refund_id]
        return found

    async def stands(self, refund_id: str = "r1", order_id: str = "ord_1") -> tuple[int, str]:
        """(state, reason)"""
        found = await self.shown(refund_id, order_id)
        return found.state, found.state_reason

    async def claims(self) -> list[verifier_pb2.Claim]:
        """What is owed to the verifier, oldest first."""
        async with self.suite.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT payload FROM outbox WHERE subject = $1 ORDER BY created_at, event_id", CLAIMED
            )
        return [verifier_pb2.Claim.FromString(row["payload"]) for row in rows]

    async def named(self, number: int, refund_id: str = "r1", **fields: object) -> str:
        """A refund with this transaction; returns the claim's id."""
        await self.refund(refund_id, tx_hash=tx(number), **fields)
        return (await self.claims())[-1].claim_id

    async def say(self, *verdicts: verifier_pb2.Verdict) -> None:
        """The verifier's word, in one message."""
        await self._consumer.verdicts([verifier_pb2.BatchVerifyResponse(verdicts=verdicts).SerializeToString()])
