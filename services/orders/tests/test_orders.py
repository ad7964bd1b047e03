"""Orders over its own gRPC, on a real database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest

from kit.errors import Fault
from ospay.orders.v1 import orders_pb2
from services.orders.tests.conftest import WALLET, Suite, order_request, token_of  # type: ignore[import-not-found]


async def reason(call: object) -> str:
    with pytest.raises(Fault) as caught:
        await call  # type: ignore[misc]
    return caught.value.reason


async def test_an_order_is_created_and_read(suite: Suite) -> None:
    """What was asked for comes back, with where to pay."""
    await suite.merchant()
    created = await suite.create(metadata_json='{"cart": 7}', customer_wallet_address=WALLET.lower())
    assert created.replayed is False
    order = await suite.get()
    assert order == created.order
    assert (order.state, order.deposit_address, order.customer_wallet_address) == (
        orders_pb2.ORDER_STATE_PENDING,
        WALLET,
        WALLET,
    )
    assert order.metadata_json == '{"cart": 7}'
    assert order.payment_uri == (
        f"ethereum:0x55d398326f99059fF775485246999027B3197955@56/transfer?address={WALLET}&uint256=5000000000000000000"
    )
    assert 1799 <= order.expires_at.seconds - order.created_at.seconds <= 1800


async def test_the_same_request_again_is_the_same_order(suite: Suite) -> None:
    """Same id and body replays; same id and another body is a mismatch and changes nothing."""
    await suite.merchant()
    first = await suite.create()
    again = await suite.create()
    assert (again.replayed, again.order) == (True, first.order)
    assert await reason(suite.create(amount_minor=6)) == "idempotency_mismatch"
    assert await suite.get() == first.order


async def test_concurrent_creates_make_one_order(suite: Suite) -> None:
    """Of many equal requests at once exactly one creates."""
    await suite.merchant()
    results = await asyncio.gather(*(suite.create() for _ in range(20)))
    assert sorted(item.replayed for item in results) == [False] + [True] * 19


async def test_a_batch_has_a_result_for_each_item(suite: Suite) -> None:
    """A bad item, a duplicate, a mismatch and an unknown merchant concern themselves alone."""
    await suite.merchant()
    items = [
        order_request("a"),
        order_request("b", amount_minor=0),
        order_request("a"),
        order_request("a", amount_minor=1),
        order_request("c", merchant_id="nobody"),
        order_request("d", asset="DOGE"),
        order_request("e"),
    ]
    request = orders_pb2.BatchCreateOrdersRequest(requests=items)
    response = await suite.peer.call(suite.orders.BatchCreateOrders, request, timeout=5)
    shape = [
        (item.created.order.order_id, item.created.replayed) if item.HasField("created") else item.error.message[:30]
        for item in response.results
    ]
    assert shape[0] == ("a", False)
    assert shape[1].startswith("amount_minor:")
    assert shape[2] == ("a", True)
    assert shape[3] == "order a was created with anoth"
    assert shape[4] == "there is no merchant nobody"
    assert shape[5] == "asset: DOGE is not configured "
    assert shape[6] == ("e", False)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"amount_minor": 2**53}, "amount_minor"),
        ({"amount_minor": -1}, "amount_minor"),
        ({"order_id": "a b"}, "order_id"),
        ({"order_id": "x" * 65}, "order_id"),
        ({"order_id": ".x" + "x" * 63}, "order_id"),
        ({"order_id": "."}, "order_id"),
        ({"order_id": ".."}, "order_id"),
        ({"order_id": "." * 64}, "order_id"),
        ({"chain": "NOPE"}, "chain"),
        ({"customer_wallet_address": "0x70997970c51812dc3A010C7d01b50e0d17dc79C8"}, "customer_wallet_address"),
        ({"customer_wallet_address": "0x12"}, "customer_wallet_address"),
        ({"expires_in_seconds": 0}, "expires_in_seconds"),
        ({"expires_in_seconds": 2_592_001}, "expires_in_seconds"),
        ({"metadata_json": "[1]"}, "metadata_json"),
    ],
)
async def test_bad_fields_are_named(suite: Suite, fields: dict[str, object], field: str) -> None:
    """A bad field is refused by name and nothing is created."""
    await suite.merchant()
    order_id = str(fields.pop("order_id", "ord_1"))
    with pytest.raises(Fault) as caught:
        await suite.create(order_id, **fields)
    assert [item.field for item in caught.value.violations] == [field]
    async with suite.database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM orders") == 0


async def test_no_id_of_dots_only_is_made(suite: Suite) -> None:
    """Merchants and refunds with one are refused; one that has another character is as long as any, and taken."""
    for id in (".", "..", "." * 64):
        assert await reason(suite.merchant(id)) == "invalid_request"
        refund = orders_pb2.RefundOrderRequest(merchant_id="mrc_1", order_id="ord_1", refund_id=id, reason="asked")
        assert await reason(suite.peer.call(suite.orders.RefundOrder, refund, timeout=5)) == "invalid_request"
    for id in ("." * 63 + "a", "a" + "." * 63, ":", "a" * 64):
        await suite.merchant(id)
        assert (await suite.create(id, merchant_id=id)).order.order_id == id


async def test_what_has_an_id_of_dots_is_read(suite: Suite) -> None:
    """An order and its merchant from before such ids were refused are read, listed and claimed as all others."""
    await suite.merchant()
    await suite.create()
    owner = await asyncpg.connect(suite.owner_url)
    try:
        await owner.execute("INSERT INTO merchants SELECT '.', name, wallet FROM merchants")
        await owner.execute("UPDATE orders SET id = '..', merchant_id = '.'")
    finally:
        await owner.close()
    order = await suite.get("..", ".")
    assert (order.order_id, order.merchant_id) == ("..", ".")
    names = {"merchant_id": ".", "order_id": ".."}
    for method, request in (
        (suite.orders.ListOrders, orders_pb2.ListOrdersRequest(merchant_id=".")),
        (suite.orders.ListPayments, orders_pb2.ListPaymentsRequest(**names)),
        (suite.orders.ListRefunds, orders_pb2.ListRefundsRequest(**names)),
        (suite.orders.DetectPayment, orders_pb2.DetectPaymentRequest(tx_hash="0x" + "a" * 64, **names)),
        (suite.merchants.CreateApiKey, orders_pb2.CreateApiKeyRequest(merchant_id=".")),
    ):
        await suite.peer.call(method, request, timeout=5)


async def test_another_merchants_order_is_not_there(suite: Suite) -> None:
    """The same answer for another merchant's order as for none."""
    await suite.merchant()
    await suite.merchant("mrc_2")
    await suite.create()
    assert await reason(suite.get("ord_1", "mrc_2")) == "order_not_found"
    assert await reason(suite.get("ord_2", "mrc_1")) == "order_not_found"


async def test_lists_are_newest_first_and_complete(suite: Suite) -> None:
    """Pages of any size give every order once, newest first; a filter keeps to its state."""
    await suite.merchant()
    ids = [f"ord_{number}" for number in range(7)]
    for order_id in ids:
        await suite.create(order_id)
    got: list[str] = []
    token = ""
    while True:
        request = orders_pb2.ListOrdersRequest(merchant_id="mrc_1", page_size=3, page_token=token)
        page = await suite.peer.call(suite.orders.ListOrders, request, timeout=5)
        got += [order.order_id for order in page.orders]
        token = page.next_page_token
        if not token:
            break
    assert got == ids[::-1]
    paid = orders_pb2.ListOrdersRequest(merchant_id="mrc_1", state=orders_pb2.ORDER_STATE_PAID)
    assert list((await suite.peer.call(suite.orders.ListOrders, paid, timeout=5)).orders) == []


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "e30=",
        "WzEsMl0=",
        "W251bGwsIDFd",
        "é",
        token_of("2026-01-01T00:00:00", "x"),
        token_of("0001-01-01T00:00:00+14:00", "x"),
        token_of("9999-12-31T23:59:59-14:00", "x"),
        token_of("2026-01-01T00:00:00+00:00", "a\0b"),
        token_of("2026-01-01T00:00:00+00:00", "\ud800"),
        token_of("2026-01-01T00:00:00+00:00", "x\n"),
    ],
)
async def test_a_foreign_cursor_is_refused(suite: Suite, token: str) -> None:
    """A token that this service did not make is a clear error."""
    request = orders_pb2.ListOrdersRequest(merchant_id="mrc_1", page_token=token)
    assert await reason(suite.peer.call(suite.orders.ListOrders, request, timeout=5)) == "invalid_cursor"


@pytest.mark.parametrize(
    "wallet",
    ["0x" + "0" * 40, "0x55d398326f99059fF775485246999027B3197955", "0x70997970c51812dc3A010C7d01b50e0d17dc79C8"],
)
async def test_a_wallet_that_cannot_be_paid_is_refused(suite: Suite, wallet: str) -> None:
    """The zero address, a token contract and a wrong checksum are no wallets."""
    request = orders_pb2.CreateMerchantRequest(name="Shop", merchant_wallet_address=wallet)
    assert await reason(suite.peer.call(suite.merchants.CreateMerchant, request, timeout=5)) == "invalid_request"


async def test_keys_rotate_without_a_gap(suite: Suite) -> None:
    """Two keys live at once; a revoked one is refused; neither can be had from the database."""
    first = await suite.merchant()
    made = orders_pb2.CreateApiKeyRequest(merchant_id="mrc_1")
    second = await suite.peer.call(suite.merchants.CreateApiKey, made, timeout=5)

    async def whose(text: str) -> str:
        request = orders_pb2.AuthenticateApiKeyRequest(api_key=text)
        return (await suite.peer.call(suite.merchants.AuthenticateApiKey, request, timeout=5)).merchant_id

    assert (await whose(first), await whose(second.api_key)) == ("mrc_1", "mrc_1")
    old = first.split("_")[1]
    revoke = orders_pb2.RevokeApiKeyRequest(merchant_id="mrc_1", key_id=old)
    await suite.peer.call(suite.merchants.RevokeApiKey, revoke, timeout=5)
    assert await reason(whose(first)) == "invalid_api_key"
    assert await whose(second.api_key) == "mrc_1"
    for wrong in ("x", "ospay_a_b", first[:-1] + "0", first + "0", second.api_key[:-1] + "\u00e9"):
        assert await reason(whose(wrong)) == "invalid_api_key"
    async with suite.database.connection() as connection:
        rows = await connection.fetch("SELECT * FROM api_keys")
    assert all(first.split("_")[2] not in str(row) for row in rows)


async def test_keys_are_bounded(suite: Suite) -> None:
    """A merchant has at most eight live keys, also when they are made at once."""
    await suite.merchant()
    made = orders_pb2.CreateApiKeyRequest(merchant_id="mrc_1")
    results = await asyncio.gather(
        *(suite.peer.call(suite.merchants.CreateApiKey, made, timeout=5) for _ in range(12)), return_exceptions=True
    )
    refused = [item for item in results if isinstance(item, Fault)]
    assert [item.reason for item in refused] == ["too_many_keys"] * 5


async def test_a_merchant_is_created_once(suite: Suite) -> None:
    """The same merchant again has no key in the answer; another name under its id is refused."""
    assert (await suite.merchant()).startswith("ospay_")
    assert await suite.merchant() == ""
    other = orders_pb2.CreateMerchantRequest(merchant_id="mrc_1", name="Other", merchant_wallet_address=WALLET)
    assert await reason(suite.peer.call(suite.merchants.CreateMerchant, other, timeout=5)) == "merchant_exists"


async def test_totals_count_once(suite: Suite) -> None:
    """A replay is not a new order."""
    await suite.merchant()
    await suite.create()
    await suite.create()
    await suite.create("ord_2")
    totals = await suite.peer.call(suite.orders.GetTotals, orders_pb2.GetTotalsRequest(), timeout=5)
    assert totals.orders_created_total == 2


async def test_the_service_role_cannot_rewrite_history(suite: Suite) -> None:
    """Payments, refunds and an order's terms cannot be changed with the service's own rights."""
    for statement in (
        "UPDATE payments SET amount_minor = 1",
        "DELETE FROM payments",
        "UPDATE refunds SET amount_minor = 1",
        "UPDATE orders SET amount_minor = 1",
        "DELETE FROM orders",
        "TRUNCATE orders",
    ):
        async with suite.database.connection() as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_times_are_the_databases(suite: Suite) -> None:
    """An order's creation time is the database's, within the time of the call."""
    await suite.merchant()
    before = datetime.now(UTC)
    order = (await suite.create()).order
    assert before <= order.created_at.ToDatetime(UTC) <= datetime.now(UTC)


async def test_a_batch_of_reads_has_a_result_for_each(suite: Suite) -> None:
    """Each item is read for its own merchant; a missing or malformed one fails alone."""
    await suite.merchant()
    await suite.merchant("mrc_2")
    await suite.create()
    asked = [("mrc_1", "ord_1"), ("mrc_2", "ord_1"), ("mrc_1", "a b"), ("mrc_1", "ord_1")]
    items = [orders_pb2.GetOrderRequest(merchant_id=merchant, order_id=order) for merchant, order in asked]
    request = orders_pb2.BatchGetOrdersRequest(requests=items)
    response = await suite.peer.call(suite.orders.BatchGetOrders, request, timeout=5)
    order = await suite.get()
    assert [item.order if item.HasField("order") else item.error.code for item in response.results] == [
        order,
        5,
        3,
        order,
    ]


@pytest.mark.parametrize("settings", [{"claim_queue_max": 0}])
async def test_a_claim_that_cannot_be_verified_now_is_kept(suite: Suite) -> None:
    """With the queue full and the verifier away the claim is on disk, and waits there for the sweeper."""
    await suite.merchant()
    await suite.create()
    request = orders_pb2.DetectPaymentRequest(order_id="ord_1", tx_hash="0x" + "a" * 64)
    answer = await suite.peer.call(suite.orders.DetectPayment, request, timeout=15)
    assert (answer.state, answer.queued) == (orders_pb2.ORDER_STATE_PENDING, True)
    async with suite.database.connection() as connection:
        subject = "ospay.orders.v1.payment_claimed"
        assert await connection.fetchval("SELECT count(*) FROM outbox WHERE subject = $1", subject) == 1
