"""The verifier and the operator, as tests of orders play them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
from bip32 import BIP32, HARDENED_INDEX

from chains import Registry
from kit.bus import Bus
from kit.errors import Fault
from orders.domain import Outcome, Report, Transfer, Verdict
from orders.doorbell import Doorbell
from orders.messages import Reader
from orders.workflow import claims, found, orders
from ospay.ledger.v1 import ledger_pb2
from ospay.orders.v1 import orders_pb2
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.conftest import WALLET, Suite  # type: ignore[import-not-found]

LATER = timedelta(hours=1)
FIVE = 5_000_000
CHAINS = Path(__file__).with_name("chains.toml")
# A seed that everybody knows: of no use for money.
SEED = bytes(range(16))
PAYER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"

SEEN = verifier_pb2.SIGHTING_STATE_SEEN
FINAL = verifier_pb2.SIGHTING_STATE_FINAL
GONE = verifier_pb2.SIGHTING_STATE_GONE
REVERSED = verifier_pb2.SIGHTING_STATE_REVERSED


def tx(number: int) -> str:
    return f"0x{number:064x}"


def xpub(account: int = 0) -> str:
    """The extended public key m/44'/60'/account'."""
    path = [44 + HARDENED_INDEX, 60 + HARDENED_INDEX, account + HARDENED_INDEX]
    return str(BIP32.from_seed(SEED).get_xpub_from_path(path))


def transfer(number: int = 1, amount_minor: int = FIVE, **fields: object) -> Transfer:
    base = Transfer(
        chain_id=56,
        tx_hash=tx(number),
        log_index=0,
        block_number=101,
        block_hash=tx(99),
        block_time=datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1),
        sender=WALLET,
        amount_base=amount_minor * 10**12,
        amount_minor=amount_minor,
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def report(
    to: str,
    number: int = 1,
    amount_minor: int = FIVE,
    state: verifier_pb2.SightingState.ValueType = FINAL,
    *,
    version: int = 1,
    report_id: UUID | None = None,
    chain: str = "BSC",
    asset: str = "USDT",
    head: int = 110,
    **fields: object,
) -> verifier_pb2.Report:
    """A transfer that was found, from `PAYER` unless told otherwise; each (number, log index, block) is a report."""
    moved = transfer(number, amount_minor, **{"sender": PAYER, **fields})
    sent = verifier_pb2.Transfer(
        chain_id=moved.chain_id,
        tx_hash=moved.tx_hash,
        log_index=moved.log_index,
        block_number=moved.block_number,
        block_hash=moved.block_hash,
        sender=moved.sender,
        recipient=to,
        amount_base=str(moved.amount_base),
        amount_minor=moved.amount_minor,
    )
    sent.block_time.FromDatetime(moved.block_time)
    identity = report_id or UUID(int=number << 64 | moved.log_index << 32 | int(moved.block_hash[-8:], 16))
    return verifier_pb2.Report(
        report_id=str(identity),
        version=version,
        chain=chain,
        asset=asset,
        transfer=sent,
        state=state,
        head_number=head,
        finalized_number=head if state == FINAL else 0,
    )


class Desk:
    """A suite whose claims, verdicts and reports are given by the test."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self._reader = Reader(Registry.load(CHAINS))
        self._doorbell = Doorbell(Bus("nats://127.0.0.1:1", name="none", streams={}), suite.process)

    async def claim(
        self, order_id: str = "ord_1", number: int = 1, merchant_id: str = "mrc_1", *, by_merchant: bool = False
    ) -> UUID:
        asked = [claims.Asked(merchant_id, order_id, tx(number), "", by_merchant)]
        (result,) = await claims.detect(self.suite.database, asked, give_up_after=LATER, first_look=LATER)
        if isinstance(result, Fault):
            raise result
        async with self.suite.database.connection() as connection:
            known = await connection.fetchval(
                "SELECT id FROM claims WHERE order_id = $1 AND tx_hash = $2 AND merchant_id = $3",
                order_id,
                tx(number),
                merchant_id,
            )
        assert isinstance(known, UUID)
        return known

    async def detect(self, *numbers: int) -> list[tuple[str, bool]]:
        """Claims `ord_<number>` by its transaction, all in one call; (state, whether it is queued) of each."""
        items = [orders_pb2.DetectPaymentRequest(order_id=f"ord_{number}", tx_hash=tx(number)) for number in numbers]
        request = orders_pb2.BatchDetectPaymentsRequest(requests=items)
        response = await self.suite.peer.call(self.suite.orders.BatchDetectPayments, request, timeout=15)
        detected = [item.detected for item in response.results]
        return [(orders_pb2.OrderState.Name(item.state).removeprefix("ORDER_STATE_"), item.queued) for item in detected]

    async def apply(self, *verdicts: Verdict) -> None:
        await claims.apply(self.suite.database, self._doorbell, verdicts, first_look=LATER)

    async def pay(self, order_id: str = "ord_1", number: int = 1, amount_minor: int = FIVE) -> None:
        claim = await self.claim(order_id, number)
        await self.apply(Verdict(claim, Outcome.FINAL, transfers=(transfer(number, amount_minor),)))

    async def find(self, *reports: verifier_pb2.Report) -> list[Report]:
        """Applies reports; returns those that may be confirmed."""
        read = self._reader.reports(reports)
        return await found.apply(self.suite.database, self._doorbell, read, first_look=LATER)

    async def expire(self) -> None:
        """Expires what is due, as if the verifier had looked through everything."""
        due = await orders.due(self.suite.database, timedelta(0), [], None, 100)
        await orders.expire(self.suite.database, [order.key for order in due])

    async def state(self, order_id: str = "ord_1", merchant_id: str = "mrc_1") -> str:
        order = await self.suite.get(order_id, merchant_id)
        return orders_pb2.OrderState.Name(order.state).removeprefix("ORDER_STATE_")

    async def value(self, sql: str, *arguments: object) -> Any:
        async with self.suite.database.connection() as connection:
            return await connection.fetchval(sql, *arguments)

    async def are_waiting(self, count: int) -> bool:
        """Whether so many connections wait for a lock."""
        sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return bool(await self.value(sql) >= count)

    async def payments(self, order_id: str = "ord_1", merchant_id: str = "mrc_1") -> list[tuple[str, int, str]]:
        """(state, credited, reason) of an order's transfers."""
        request = orders_pb2.ListPaymentsRequest(merchant_id=merchant_id, order_id=order_id)
        response = await self.suite.peer.call(self.suite.orders.ListPayments, request, timeout=5)
        return [
            (
                orders_pb2.PaymentState.Name(item.state).removeprefix("PAYMENT_STATE_"),
                item.credited_minor,
                item.reason,
            )
            for item in response.payments
        ]

    async def suspense(self, merchant_id: str = "mrc_1") -> list[tuple[str, str, int]]:
        """(reason, state, amount) of a merchant's items, oldest first."""
        async with self.suite.database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT reason, state, amount_minor FROM suspense WHERE merchant_id = $1
                ORDER BY created_at, block_number, log_index, tx_hash
                """,
                merchant_id,
            )
        return [(row["reason"], row["state"], row["amount_minor"]) for row in rows]

    async def booked(self) -> dict[str, int]:
        """What is owed to the ledger: minor units by type of event."""
        totals: Counter[str] = Counter()
        for posting in await self.postings():
            totals[ledger_pb2.EventType.Name(posting.event_type).removeprefix("EVENT_TYPE_")] += posting.amount_minor
        return dict(totals)

    async def postings(self) -> list[ledger_pb2.Posting]:
        """The events that are owed to the ledger."""
        async with self.suite.database.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT payload FROM outbox
                WHERE subject IN ('ospay.orders.v1.order_paid', 'ospay.orders.v1.money_moved')
                """
            )
        return [ledger_pb2.Posting.FromString(row["payload"]) for row in rows]

    async def owner(self, sql: str, *arguments: object) -> None:
        """Does what the service has no right to."""
        connection = await asyncpg.connect(self.suite.owner_url)
        try:
            await connection.execute(sql, *arguments)
        finally:
            await connection.close()

    async def check(self) -> None:
        """Whatever happened: what is booked is what the rows say, and no transfer is worth more than it moved."""
        booked = await self.booked()
        open_minor = await self.value(
            "SELECT coalesce(sum(amount_minor), 0)::bigint FROM suspense WHERE state = 'OPEN'"
        )
        assert booked.get("SUSPENSE_RECEIVED", 0) - booked.get("SUSPENSE_RELEASED", 0) == open_minor
        credited = await self.value(
            """
            SELECT (SELECT coalesce(sum(coalesce(credited_minor, amount_minor)), 0) FROM payments)::bigint
                 + (SELECT coalesce(sum(amount_minor), 0) FROM suspense WHERE paid_event_id IS NOT NULL)::bigint
            """
        )
        assert booked.get("ORDER_PAID", 0) == credited
        reversed_minor = await self.value("SELECT coalesce(sum(reversed_minor), 0)::bigint FROM orders")
        assert booked.get("PAYMENT_REVERSED", 0) == reversed_minor
        received = await self.value(
            "SELECT coalesce(sum(received_minor), 0)::bigint FROM orders WHERE state IN ('PAID', 'SETTLED', 'REFUNDED')"
        )
        assert received == credited
        # A transfer's credit and what of it is in suspense, not counting what was taken back, is at most the transfer.
        too_much = await self.value(
            """
            SELECT count(*) FROM (
                SELECT tx_hash, log_index, sum(amount) AS known, max(whole) AS whole FROM (
                    SELECT tx_hash, log_index, coalesce(credited_minor, amount_minor) AS amount, amount_minor AS whole
                    FROM payments WHERE state = 'CREDITED'
                    UNION ALL
                    SELECT tx_hash, log_index, amount_minor, transfer_minor FROM suspense
                    WHERE state IN ('OPEN', 'RETURNED') OR (state = 'ALLOCATED' AND paid_event_id IS NOT NULL)
                ) part GROUP BY 1, 2
            ) t WHERE known > whole
            """
        )
        assert too_much == 0


async def expire_by_hand(desk: Desk, order_id: str) -> None:
    await desk.owner(
        """
        UPDATE orders SET created_at = now() - interval '2 hours', expires_at = now() - interval '1 hour'
        WHERE id = $1
        """,
        order_id,
    )


async def xpub_merchant(suite: Suite, merchant_id: str = "mrc_1", account: int = 0, **fields: object) -> None:
    """A merchant whose orders have addresses of their own."""
    request = orders_pb2.CreateMerchantRequest(merchant_id=merchant_id, name="Shop", xpub=xpub(account), **fields)  # type: ignore[arg-type]
    await suite.peer.call(suite.merchants.CreateMerchant, request, timeout=5)


def postings_of(postings: Sequence[ledger_pb2.Posting], event_type: str) -> list[tuple[str, int]]:
    """(order id, amount) of the events of one type."""
    wanted = ledger_pb2.EventType.Value(f"EVENT_TYPE_{event_type}")
    return sorted((item.order_id, item.amount_minor) for item in postings if item.event_type == wanted)
