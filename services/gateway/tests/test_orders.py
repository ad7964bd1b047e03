"""POST /orders, GET /orders, GET /orders/get, GET /orders/{id}."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from datetime import datetime, timedelta

import pytest
from pydantic import SecretStr

from gateway.endpoint import SLOW_BODY_SECONDS
from gateway.schemas.answers import Order
from kit.channel import Peer
from local.process import until
from ospay.orders.v1 import orders_pb2, orders_pb2_grpc

WALLET = "0x8894E0a0c962CB723c1976a4421c95949bE2D4E3"


async def test_creates(merchant) -> None:
    """201 with the whole order."""
    sent = merchant.order(customer_wallet_address=WALLET, chain="BSC", expires_in_seconds=60, metadata={"a": [1, None]})
    made = await merchant.client.post("/orders", sent)
    assert made.status == 201
    assert made.headers["Content-Type"] == "application/json"
    assert "Idempotent-Replayed" not in made.headers
    assert set(Order.__struct_fields__) == set(made.body)
    sent.pop("expires_in_seconds")
    assert sent == {name: made.body[name] for name in sent}
    assert ("PENDING", merchant.wallet) == (made.body["status"], made.body["deposit_address"])
    assert tuple(made.body[name] for name in ("received_minor", "refunded_minor", "late_minor")) == (0, 0, 0)
    assert f"@56/transfer?address={merchant.wallet}&uint256=5000000000000000000" in made.body["payment_uri"]
    assert [made.body[name] for name in ("tx_hash", "paid_at", "settled_at", "last_claim")] == [None] * 4
    made_at, ends_at = (datetime.fromisoformat(made.body[name]) for name in ("created_at", "expires_at"))
    assert made.body["created_at"].endswith("Z")
    assert timedelta(seconds=60) == ends_at - made_at


async def test_fills_in_what_is_optional(merchant) -> None:
    """The least that makes an order; null is the same as absent."""
    sent = merchant.order()
    made = await merchant.client.post("/orders", sent)
    assert (
        made.status,
        made.body["chain"],
        made.body["metadata"],
        made.body["customer_wallet_address"],
    ) == (201, "BSC", None, None)
    nulls = dict.fromkeys(("chain", "metadata", "customer_wallet_address", "expires_in_seconds"))
    assert (await merchant.client.post("/orders", sent | nulls)).status == 200


async def test_same_body_again_is_the_same_order(merchant) -> None:
    """200, marked as a replay; how the JSON is written does not matter."""
    sent = merchant.order(metadata={"b": 1, "a": "é"})
    made = await merchant.client.post("/orders", sent)
    otherwise = json.dumps(dict(reversed(sent.items())), indent=3).encode()
    for again in (await merchant.client.post("/orders", sent), await merchant.client.post("/orders", otherwise)):
        assert (200, "true", made.body) == (again.status, again.headers["Idempotent-Replayed"], again.body)


async def test_other_body_is_a_mismatch(merchant) -> None:
    """422, and the order stays as it was."""
    sent = merchant.order()
    made = await merchant.client.post("/orders", sent)
    changes = ({"amount_minor": 6}, {"metadata": {}}, {"expires_in_seconds": 60}, {"customer_wallet_address": WALLET})
    for change in changes:
        refused = await merchant.client.post("/orders", sent | change)
        assert (refused.status, refused.code) == (422, "idempotency_mismatch")
    assert made.body == (await merchant.client.get(f"/orders/{sent['id']}")).body


async def test_same_id_at_another_merchant_is_another_order(merchant, other) -> None:
    """Ids are each merchant's own."""
    made = await merchant.create(id="mine")
    theirs = await other.create(id="mine", amount_minor=7)
    assert (made["amount_minor"], theirs["amount_minor"]) == (5_000_000, 7)


async def test_many_at_once_each_get_their_own(merchant, other) -> None:
    """Concurrent creates share batches: each gets its own order or its own error."""
    known = await merchant.create()
    sent = [shop.order(amount_minor=n + 1) for n in range(150) for shop in (merchant, other)]
    bad = [merchant.order(asset="DOGE"), merchant.order(id=known["id"], amount_minor=1), merchant.order(id=known["id"])]
    answers = await asyncio.gather(
        *((merchant if body["merchant_id"] == merchant.id else other).client.post("/orders", body) for body in sent),
        *(merchant.client.post("/orders", body) for body in bad),
    )
    assert [(201, body["id"], body["amount_minor"]) for body in sent] == [
        (answer.status, answer.body["id"], answer.body["amount_minor"]) for answer in answers[: len(sent)]
    ]
    assert [answer.status for answer in answers[len(sent) :]] == [400, 422, 200]


async def test_same_id_many_times_at_once(merchant) -> None:
    """One 201, else 200 with the same order."""
    sent = merchant.order()
    answers = await asyncio.gather(*(merchant.client.post("/orders", sent) for _ in range(30)))
    assert sorted(answer.status for answer in answers) == [200] * 29 + [201]
    assert len({json.dumps(answer.body) for answer in answers}) == 1


async def test_metadata_comes_back_as_it_went(merchant) -> None:
    """Numbers keep their digits, keys their order, text its characters."""
    metadata = '{"z":1.50,"a":12345678901234567890123,"e":1e3,"t":"\\u00e9 \\ud83d\\ude00 \\"","n":{"l":[true,null]}}'
    sent = json.dumps(merchant.order() | {"metadata": "%"}).replace('"%"', metadata).encode()
    assert (await merchant.client.post("/orders", sent)).status == 201
    url = f"{merchant.client.url}/orders/{json.loads(sent)['id']}"
    async with merchant.client._session.get(url, headers=merchant.client.headers) as answer:
        assert metadata in (await answer.read()).decode()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "x" * 65}, "id"),
        ({"id": "a/b"}, "id"),
        ({"id": "."}, "id"),
        ({"id": ".."}, "id"),
        ({"id": "." * 64}, "id"),
        ({"id": "." * 64 + "a"}, "id"),
        ({"id": "abc\n"}, "id"),
        ({"id": None}, "id"),
        ({"id": 5}, "id"),
        ({"amount_minor": "5"}, "amount_minor"),
        ({"amount_minor": 5.0}, "amount_minor"),
        ({"amount_minor": True}, "amount_minor"),
        ({"amount_minor": 0}, "amount_minor"),
        ({"amount_minor": -1}, "amount_minor"),
        ({"amount_minor": 2**53}, "amount_minor"),
        ({"amount_minor": 2**70}, "amount_minor"),
        ({"amount_minor": None}, "amount_minor"),
        ({"asset": "usdt"}, "asset"),
        ({"asset": "DOGE"}, "asset"),
        ({"chain": "ETH"}, "chain"),
        ({"chain": ""}, "chain"),
        ({"customer_wallet_address": "0x12"}, "customer_wallet_address"),
        ({"customer_wallet_address": "0x8894e0a0c962CB723c1976a4421c95949bE2D4E3"}, "customer_wallet_address"),
        ({"expires_in_seconds": 0}, "expires_in_seconds"),
        ({"expires_in_seconds": 2_592_001}, "expires_in_seconds"),
        ({"expires_in_seconds": "60"}, "expires_in_seconds"),
        ({"metadata": []}, "metadata"),
        ({"metadata": "{}"}, "metadata"),
        ({"metadata": 5}, "metadata"),
        ({"metadata": {"a": "x" * 16_384}}, "metadata"),
        ({"metadata": {"a": "\0"}}, "body"),
        ({"status": "PAID"}, "status"),
    ],
)
async def test_refuses_bad_fields(merchant, changes, field) -> None:
    """400 that names the field, from whichever service knows it."""
    refused = await merchant.client.post("/orders", merchant.order(**changes))
    assert (
        refused.status,
        refused.code,
        refused.headers["Content-Type"],
    ) == (400, "invalid_request", "application/problem+json")
    assert [field] == [error["field"] for error in refused.body["errors"]]
    assert all(error["message"] for error in refused.body["errors"])


@pytest.mark.parametrize("field", ["id", "merchant_id", "asset", "amount_minor"])
async def test_refuses_missing_fields(merchant, field) -> None:
    """400 that names what is required."""
    sent = merchant.order()
    del sent[field]
    refused = await merchant.client.post("/orders", sent)
    assert (400, [{"field": field, "message": "is required"}]) == (refused.status, refused.body["errors"])


async def test_largest_amount_is_exact(merchant) -> None:
    """2^53−1 is taken and comes back digit by digit."""
    assert (await merchant.create(amount_minor=2**53 - 1))["amount_minor"] == 2**53 - 1


async def test_key_is_needed_and_must_be_of_this_merchant(client, merchant, other) -> None:
    """401 without a key and with a wrong one; 403 with another merchant's."""
    refused = await client.post("/orders", merchant.order())
    assert (refused.status, refused.code) == (401, "missing_api_key")
    assert refused.headers["WWW-Authenticate"].startswith("ApiKey")
    for key in ("nonsense", merchant.api_key[:-1], merchant.api_key + "0", "é", merchant.api_key.upper()):
        refused = await client.with_key(key).post("/orders", merchant.order())
        assert (refused.status, refused.code) == (401, "invalid_api_key")
    refused = await other.client.post("/orders", merchant.order())
    assert (refused.status, refused.code) == (403, "wrong_merchant")


async def test_reads_by_query_and_by_path(merchant) -> None:
    """Both ways give the same order."""
    made = await merchant.create(metadata={"a": 1})
    by_query = await merchant.client.get(f"/orders/get?id={made['id']}")
    by_path = await merchant.client.get(f"/orders/{made['id']}")
    assert [(200, made), (200, made)] == [(by_query.status, by_query.body), (by_path.status, by_path.body)]


async def test_anothers_order_is_not_there(client, merchant, other) -> None:
    """404, the same as for one that never was; 401 without a key."""
    made = await merchant.create()
    for path in (f"/orders/get?id={made['id']}", f"/orders/{made['id']}"):
        hidden = await other.client.get(path)
        assert (hidden.status, hidden.code) == (404, "order_not_found")
        assert (await client.get(path)).status == 401
    assert (await merchant.client.get("/orders/never-was")).status == 404


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/orders/get", "id"),
        ("/orders/get?id=", "id"),
        ("/orders/get?id=a%20b", "id"),
        ("/orders/get?id=a&id=b", "id"),
        ("/orders/get?id=a&x=1", "x"),
        ("/orders/a%00b", "id"),
        ("/orders/%ff", "id"),
        ("/orders/" + "x" * 65, "id"),
        ("/orders/a?id=a", "id"),
        ("/orders?limit=0", "limit"),
        ("/orders?limit=101", "limit"),
        ("/orders?limit=ten", "limit"),
        ("/orders?status=paid", "status"),
        ("/orders?cursor=abc", "cursor"),
        ("/orders?merchant_id=x", "merchant_id"),
    ],
)
async def test_refuses_bad_parameters(merchant, path, field) -> None:
    """400 that names the parameter."""
    refused = await merchant.client.get(path)
    assert refused.status == 400
    assert [field] == [error["field"] for error in refused.body["errors"]]


@pytest.mark.parametrize("name", ["get", "refund"])
async def test_reads_orders_with_the_name_of_another_path(merchant, name) -> None:
    """By the query, as the document says at the path where they cannot be read."""
    made = await merchant.create(id=name)
    assert made == (await merchant.client.get(f"/orders/get?id={name}")).body
    assert (await merchant.client.get(f"/orders/{name}")).status in (400, 405)
    described = (await merchant.client.get("/openapi.json")).body["paths"]["/orders/{id}"]["get"]["summary"]
    assert f"`{name}`" in described


async def test_lists_in_pages_newest_first(merchant, other) -> None:
    """The cursor walks through all of one's own orders, each once."""
    made = [(await merchant.create())["id"] for _ in range(5)]
    await other.create()
    seen, cursor = [], ""
    for _ in range(3):
        page = (await merchant.client.get(f"/orders?limit=2{cursor}")).body
        seen += [order["id"] for order in page["data"]]
        cursor = f"&cursor={page['next_cursor']}"
        assert page["has_more"] == (page["next_cursor"] is not None)
    assert made[::-1] == seen
    assert (page["has_more"], page["next_cursor"]) == (False, None)


async def test_lists_by_status(merchant) -> None:
    """Only orders in that state; the names are those of the answers."""
    made = await merchant.create()
    short = await merchant.create(expires_in_seconds=1)
    await merchant.reaches(short["id"], "EXPIRED")

    async def ids(status: str) -> list[str]:
        return [order["id"] for order in (await merchant.client.get(f"/orders?status={status}")).body["data"]]

    assert [[made["id"]], [short["id"]]] == [await ids("PENDING"), await ids("EXPIRED")]
    for status in ("CONFIRMING", "PAID", "SETTLED", "REFUNDED"):
        assert await ids(status) == []


async def test_cursor_of_another_merchant_opens_nothing(merchant, other) -> None:
    """A cursor is a place in one's own list, whoever was given it."""
    for _ in range(2):
        await merchant.create()
    cursor = (await merchant.client.get("/orders?limit=1")).body["next_cursor"]
    assert (await other.client.get(f"/orders?cursor={cursor}")).body["data"] == []


async def test_a_cursor_that_nobody_gave_out_is_documented(merchant) -> None:
    """400 with a code that the document lists."""
    code = (await merchant.client.get("/orders?cursor=abc")).code
    responses = (await merchant.client.get("/openapi.json")).body["paths"]["/orders"]["get"]["responses"]
    assert (code, responses["400"]["description"]) == ("invalid_cursor", "Codes: `invalid_request`, `invalid_cursor`.")


async def test_revoked_key_is_refused_within_five_seconds(suite, merchant) -> None:
    """However often it was used just before."""
    assert (await merchant.client.get("/orders")).status == 200
    await revoke(suite, merchant)

    async def refused() -> bool:
        return bool((await merchant.client.get("/orders")).status == 401)

    await until(refused, "the key to be refused", bound=5)


async def test_a_key_that_is_revoked_while_the_body_comes_is_refused(suite, merchant) -> None:
    """A head that was let in is no way past it: the key counts when the request is whole."""
    body = json.dumps(merchant.order()).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", suite.wiring.ports["gateway"][0])
    head = (
        f"POST /orders HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {merchant.api_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body[:1])
    await writer.drain()
    let_in = time.monotonic()
    await revoke(suite, merchant)

    async def refused_and_slow() -> bool:
        is_slow = time.monotonic() - let_in > SLOW_BODY_SECONDS
        return is_slow and bool((await merchant.client.get("/orders")).status == 401)

    await until(refused_and_slow, "the key to be refused", bound=8)
    writer.write(body[1:])
    await writer.drain()
    assert b" 401 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()


async def revoke(suite, merchant) -> None:
    """Revokes the merchant's key."""
    peer = Peer(suite.wiring.target("orders"), token=SecretStr(suite.grpc_token))
    request = orders_pb2.RevokeApiKeyRequest(merchant_id=merchant.id, key_id=merchant.api_key.split("_")[1])
    await peer.call(orders_pb2_grpc.MerchantServiceStub(peer.channel).RevokeApiKey, request, timeout=5)
    await peer.close()


async def test_key_is_in_no_log(suite, merchant, client) -> None:
    """Neither a good nor a bad key is written down anywhere, the admin's included."""
    wrong = "ospay_" + secrets.token_hex(8) + "_" + secrets.token_hex(32)
    await merchant.create()
    answer = await client.with_key(wrong).get("/orders")
    assert wrong not in json.dumps(answer.body)
    for service in suite.processes:
        log = suite.log(service)
        for secret in (merchant.api_key, wrong, suite.admin_key, suite.grpc_token):
            assert secret not in log
