"""What an operator sees: one trace for one payment, received over real OTLP."""

from __future__ import annotations

from local.background import RunningSuite
from tests.collector import Collector, Seen, orphans
from tests.shop import FIVE, eventually, open_shop

ROOT = "POST /events/payment-detected"
CREATE = "POST /orders"
BATCH = "ospay.orders.v1.OrderService/StreamCreateOrders"


async def test_a_payment_is_one_trace(traced: RunningSuite, collector: tuple[Collector, str]) -> None:
    """From the claim's HTTP request to the ledger's commit and its confirmation: one root, no orphan, every part."""
    seen = collector[0]
    async with open_shop(traced) as shop:
        order = await shop.create()
        tx = await shop.transfer()
        await shop.claim(order, tx)
        await shop.chain.finalize()
        await shop.reaches(order, "PAID")
        await shop.booked(FIVE)

    async def whole() -> list[Seen] | None:
        # Services send their spans by themselves: a child may come before its parent.
        found = seen.trace(ROOT)
        return found if "orders close debts" in {item.span.name for item in found} and not orphans(found) else None

    spans = await eventually(whole, 20, f"the whole trace; orphans: {orphans(seen.trace(ROOT))}")
    assert [item.span.name for item in spans if not item.span.parent_span_id] == [ROOT]
    assert {item.service for item in spans} == {"gateway", "orders", "verifier", "ledger"}
    names = {item.span.name for item in spans}
    assert {
        "ospay.orders.v1.OrderService/BatchDetectPayments",
        "detect payment",
        "publish ospay.orders.v1.payment_claimed",
        "orders apply verdicts",
        "publish ospay.orders.v1.order_paid",
    } <= names
    assert any("eth_getTransactionReceipt" in name for name in names), names
    assert any(item.service == "ledger" for item in spans)


async def test_an_order_is_one_trace(traced: RunningSuite, collector: tuple[Collector, str]) -> None:
    """From the HTTP request over the stream that carries its batch to orders: one root, no orphan."""
    seen = collector[0]
    async with open_shop(traced) as shop:
        await shop.create()

    async def whole() -> list[Seen] | None:
        found = seen.trace(CREATE)
        return found if BATCH in {item.span.name for item in found} and not orphans(found) else None

    spans = await eventually(whole, 20, f"the whole trace; orphans: {orphans(seen.trace(CREATE))}")
    assert [item.span.name for item in spans if not item.span.parent_span_id] == [CREATE]
    assert {("gateway", CREATE), ("gateway", "batch create orders"), ("orders", BATCH)} <= {
        (item.service, item.span.name) for item in spans
    }
