"""POST /events/payment-detected, POST /orders/refund, GET /reconciliation: with money on the chain."""

from __future__ import annotations

import secrets

import pytest

from gateway.schemas.fields import WALLET
from local.process import until

HASH = "0x" + "ab" * 32


def new_hash() -> str:
    """A transaction that nobody has sent."""
    return "0x" + secrets.token_hex(32)


async def test_claim_is_taken_without_a_key(client, merchant) -> None:
    """202 and PENDING; the claim is to be read on the order."""
    order = await merchant.create()
    sent = {"order_id": order["id"], "tx_hash": new_hash()}
    for _ in range(2):  # the same claim again makes no second job
        told = await client.post("/events/payment-detected", sent)
        assert (202, {"order_id": order["id"], "status": "PENDING"}) == (told.status, told.body)
    claim = (await merchant.client.get(f"/orders/{order['id']}")).body["last_claim"]
    assert {"tx_hash", "state", "reason", "seen_minor", "confirmations", "block_number", "updated_at"} == set(claim)
    assert (sent["tx_hash"], "OPEN") == (claim["tx_hash"], claim["state"])


async def test_key_or_merchant_id_tells_whose_order(client, merchant, other) -> None:
    """With the same id at two merchants: 409 alone, 202 with a key or a merchant_id."""
    order = await merchant.create()
    await other.create(id=order["id"])
    sent = {"order_id": order["id"], "tx_hash": new_hash()}
    refused = await client.post("/events/payment-detected", sent)
    assert (refused.status, refused.code) == (409, "ambiguous_order_id")
    assert (await client.post("/events/payment-detected", sent | {"merchant_id": merchant.id})).status == 202
    assert (await other.client.post("/events/payment-detected", sent)).status == 202
    assert (await other.client.post("/events/payment-detected", sent | {"merchant_id": other.id})).status == 202


async def test_key_that_comes_is_checked(client, merchant, other) -> None:
    """A wrong one is 401, one for another merchant_id 403, another merchant's order 404."""
    order = await merchant.create()
    sent = {"order_id": order["id"], "tx_hash": new_hash()}
    assert (await client.with_key("wrong").post("/events/payment-detected", sent)).status == 401
    refused = await other.client.post("/events/payment-detected", sent | {"merchant_id": merchant.id})
    assert (refused.status, refused.code) == (403, "wrong_merchant")
    hidden = await other.client.post("/events/payment-detected", sent)
    assert (hidden.status, hidden.code) == (404, "order_not_found")


async def test_strangers_do_not_use_up_the_claims_of_the_merchant(client, merchant) -> None:
    """32 made-up transactions are the last that are taken without the key, named merchant or not; with it more are."""
    order = await merchant.create()
    sent = {"order_id": order["id"]}
    for _ in range(32):
        assert (await client.post("/events/payment-detected", sent | {"tx_hash": new_hash()})).status == 202
    for named in ({}, {"merchant_id": merchant.id}):
        refused = await client.post("/events/payment-detected", sent | named | {"tx_hash": new_hash()})
        assert (refused.status, refused.code) == (429, "too_many_claims")
    assert (await merchant.client.post("/events/payment-detected", sent | {"tx_hash": new_hash()})).status == 202


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tx_hash": "0x12"}, "tx_hash"),
        ({"tx_hash": HASH[2:]}, "tx_hash"),
        ({"tx_hash": "0X" + HASH[2:]}, "tx_hash"),
        ({"tx_hash": HASH + "0"}, "tx_hash"),
        ({"tx_hash": "0x" + "g" * 64}, "tx_hash"),
        ({"tx_hash": None}, "tx_hash"),
        ({"order_id": ""}, "order_id"),
        ({"merchant_id": ""}, "merchant_id"),
        ({"amount_minor": 5}, "amount_minor"),
    ],
)
async def test_refuses_bad_claims(client, changes, field) -> None:
    """400 that names the field."""
    sent = {"order_id": "ord", "tx_hash": HASH} | changes
    refused = await client.post("/events/payment-detected", sent)
    assert (400, [field]) == (refused.status, [error["field"] for error in refused.body["errors"]])


async def test_claim_on_no_order(client, merchant) -> None:
    """404."""
    refused = await client.post("/events/payment-detected", {"order_id": "never-was", "tx_hash": new_hash()})
    assert (refused.status, refused.code) == (404, "order_not_found")


async def test_expired_order_still_takes_a_claim(client, merchant) -> None:
    """Late money is looked for and recorded, not lost; the order stays EXPIRED."""
    order = await merchant.create(expires_in_seconds=1)
    await merchant.reaches(order["id"], "EXPIRED")
    told = await client.post("/events/payment-detected", {"order_id": order["id"], "tx_hash": new_hash()})
    assert (told.status, told.body["status"]) == (202, "EXPIRED")


async def test_paid_order_and_its_books(client, merchant, chain) -> None:
    """PAID with its transaction, 200 on a further claim, both balances and the counts in reconciliation."""
    order = await merchant.paid(chain)
    assert (
        order["received_minor"],
        order["refunded_minor"],
        order["last_claim"]["state"],
    ) == (5_000_000, 0, "ACCEPTED")
    assert order["paid_at"].endswith("Z")
    told = await client.post("/events/payment-detected", {"order_id": order["id"], "tx_hash": order["tx_hash"]})
    assert (200, {"order_id": order["id"], "status": "PAID"}) == (told.status, told.body)
    path = f"/reconciliation?merchant_id={merchant.id}&asset=USDT"

    async def booked() -> bool:
        return bool((await merchant.client.get(path)).body["in_flight_count"] == 0)

    await until(booked, "the ledger to confirm")
    read = await merchant.client.get(path)
    assert {
        "merchant_id": merchant.id,
        "asset": "USDT",
        "merchant_balance_minor": 5_000_000,
        "clearing_balance_minor": -5_000_000,
        "suspense_balance_minor": 0,
        "unsettled_paid_count": 1,
        "in_flight_count": 0,
    } == {name: value for name, value in read.body.items() if name != "as_of"}
    assert read.body["as_of"].endswith("Z")


def without_proof(body):
    """What was booked; how far the chain confirms it changes by itself."""
    assert "refund" in body
    return {name: value for name, value in body.items() if name != "refund"}


async def test_refunds_in_parts(merchant, chain) -> None:
    """Parts add up; the rest is what is refunded when no amount is given; replays say so."""
    order = await merchant.paid(chain)
    first = {"order_id": order["id"], "refund_id": "r1", "reason": "one", "amount_minor": 2_000_000, "tx_hash": HASH}
    told = await merchant.client.post("/orders/refund", first)
    assert (
        200,
        {
            "order_id": order["id"],
            "refund_id": "r1",
            "status": "PAID",
            "amount_minor": 2_000_000,
            "refunded_minor": 2_000_000,
        },
    ) == (told.status, without_proof(told.body))
    assert "Idempotent-Replayed" not in told.headers
    rest = {"order_id": order["id"], "refund_id": "r2", "reason": "rest"}
    last = await merchant.client.post("/orders/refund", rest)
    assert tuple(last.body[name] for name in ("status", "amount_minor", "refunded_minor")) == (
        "REFUNDED",
        3_000_000,
        5_000_000,
    )
    for sent, before in ((first, told), (rest, last)):
        again = await merchant.client.post("/orders/refund", sent)
        replayed = (again.status, again.headers["Idempotent-Replayed"], without_proof(again.body))
        assert (200, "true", without_proof(before.body)) == replayed
    refused = await merchant.client.post("/orders/refund", first | {"amount_minor": 1})
    assert (refused.status, refused.code) == (422, "idempotency_mismatch")
    refused = await merchant.client.post("/orders/refund", rest | {"refund_id": "r3"})
    assert (refused.status, refused.code, refused.body["order_status"]) == (409, "order_not_refundable", "REFUNDED")


async def test_more_than_is_left_is_refused(merchant, chain) -> None:
    """422, and nothing is refunded."""
    order = await merchant.paid(chain)
    sent = {"order_id": order["id"], "refund_id": "r1", "reason": "all", "amount_minor": 5_000_001}
    refused = await merchant.client.post("/orders/refund", sent)
    assert (refused.status, refused.code) == (422, "refund_exceeds_received")
    assert (await merchant.client.get(f"/orders/{order['id']}")).body["refunded_minor"] == 0


async def test_refund_needs_a_paid_order_of_ones_own(client, merchant, other) -> None:
    """409 with the state where it is not paid; 404 for another's; 401 without a key."""
    order = await merchant.create()
    sent = {"order_id": order["id"], "refund_id": "r1", "reason": "why"}
    refused = await merchant.client.post("/orders/refund", sent)
    assert (refused.status, refused.code, refused.body["order_status"]) == (409, "order_not_refundable", "PENDING")
    assert refused.body["status"] == 409
    assert (await other.client.post("/orders/refund", sent)).status == 404
    assert (await merchant.client.post("/orders/refund", sent | {"order_id": "never-was"})).status == 404
    assert (await client.post("/orders/refund", sent)).status == 401


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"refund_id": ""}, "refund_id"),
        ({"refund_id": ".."}, "refund_id"),
        ({"refund_id": "a b"}, "refund_id"),
        ({"order_id": None}, "order_id"),
        ({"reason": ""}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"reason": "a\0b"}, "reason"),
        ({"amount_minor": 0}, "amount_minor"),
        ({"amount_minor": "1"}, "amount_minor"),
        ({"amount_minor": 1.0}, "amount_minor"),
        ({"amount_minor": 2**53}, "amount_minor"),
        ({"tx_hash": "0x1"}, "tx_hash"),
        ({"to_address": "0x1"}, "to_address"),
        ({"from_address": WALLET[2:]}, "from_address"),
        ({"merchant_id": "x"}, "merchant_id"),
    ],
)
async def test_refuses_bad_refunds(merchant, changes, field) -> None:
    """400 that names the field."""
    sent = {"order_id": "ord", "refund_id": "r", "reason": "why"} | changes
    refused = await merchant.client.post("/orders/refund", sent)
    assert (400, [field]) == (refused.status, [error["field"] for error in refused.body["errors"]])


async def test_reconciliation_is_for_the_merchant_itself(client, merchant, other) -> None:
    """403 with another's key, 401 without one, zeros where nothing was booked."""
    path = f"/reconciliation?merchant_id={merchant.id}&asset=USDT"
    empty = await merchant.client.get(path)
    assert [value for name, value in empty.body.items() if name.endswith(("_minor", "_count"))] == [0] * 5
    refused = await other.client.get(path)
    assert (refused.status, refused.code) == (403, "wrong_merchant")
    assert (await client.get(path)).status == 401


@pytest.mark.parametrize(
    ("query", "field"),
    [("asset=USDT", "merchant_id"), ("merchant_id=a", "asset"), ("merchant_id=a&asset=usdt", "asset")],
)
async def test_refuses_bad_reconciliation(merchant, query, field) -> None:
    """400 that names the parameter."""
    refused = await merchant.client.get(f"/reconciliation?{query}")
    assert (400, [field]) == (refused.status, [error["field"] for error in refused.body["errors"]])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"refund_id": None}, "refund_id"),
        ({"refund_id": "a b"}, "refund_id"),
        ({"tx_hash": None}, "tx_hash"),
        ({"tx_hash": HASH[:-1]}, "tx_hash"),
        ({"tx_hash": "0X" + HASH[2:]}, "tx_hash"),
        ({"order_id": "ord"}, "order_id"),
    ],
)
async def test_refuses_bad_refund_transactions(merchant, changes, field) -> None:
    """400 that names the field."""
    refused = await merchant.client.post("/orders/refund/transaction", {"refund_id": "r", "tx_hash": HASH} | changes)
    assert (400, [field]) == (refused.status, [error["field"] for error in refused.body["errors"]])


@pytest.mark.parametrize("path", ["/orders/ord/payments", "/orders/ord/refunds", "/chains"])
async def test_lists_need_a_key_and_take_no_parameters(client, merchant, path) -> None:
    """401 without a key, 400 with what they do not know."""
    assert (await client.get(path)).status == 401
    refused = await merchant.client.get(f"{path}?limit=1")
    assert (400, ["limit"]) == (refused.status, [error["field"] for error in refused.body["errors"]])


@pytest.mark.parametrize("path", ["/orders/a%20b/payments", "/orders/%00/refunds"])
async def test_lists_refuse_what_is_no_order_id(merchant, path) -> None:
    """400 that names it."""
    refused = await merchant.client.get(path)
    assert (400, ["id"]) == (refused.status, [error["field"] for error in refused.body["errors"]])
