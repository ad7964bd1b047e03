"""POST /merchants."""

from __future__ import annotations

import secrets

import pytest

from gateway.schemas.answers import Merchant
from gateway.schemas.fields import XPUB
from local.process import until


def body(**changes):
    """A merchant to register."""
    return {"name": "Shop", "merchant_wallet_address": "0x" + secrets.token_hex(20)} | changes


async def test_registers_and_shows_the_key_once(suite, client) -> None:
    """201 with a key that works; the same id, name and wallet again is 200 without it."""
    sent = body(id=f"mrc_{secrets.token_hex(4)}")
    made = await client.post("/merchants", sent, X_Admin_Key=suite.admin_key)
    assert made.status == 201
    assert set(Merchant.__struct_fields__) == set(made.body)
    assert (None, 0, "SUSPENSE") == tuple(
        made.body[name] for name in ("xpub", "underpayment_tolerance_minor", "surplus_policy")
    )
    assert (sent["id"], "Shop") == (made.body["id"], made.body["name"])
    assert sent["merchant_wallet_address"] == made.body["merchant_wallet_address"].lower()
    assert (await client.with_key(made.body["api_key"]).get("/orders")).status == 200
    again = await client.post("/merchants", sent, X_Admin_Key=suite.admin_key)
    assert (again.status, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert made.body | {"api_key": None} == again.body


async def test_makes_an_id_where_none_is_given(suite, client) -> None:
    """Two without an id are two merchants."""
    sent = body()
    made = [await client.post("/merchants", sent, X_Admin_Key=suite.admin_key) for _ in range(2)]
    assert made[0].body["id"] != made[1].body["id"]


async def test_known_id_with_another_name_is_a_conflict(suite, client) -> None:
    """409, nothing changed."""
    sent = body(id=f"mrc_{secrets.token_hex(4)}")
    await client.post("/merchants", sent, X_Admin_Key=suite.admin_key)
    refused = await client.post("/merchants", sent | {"name": "Other"}, X_Admin_Key=suite.admin_key)
    assert (refused.status, refused.code) == (409, "merchant_exists")


async def test_only_the_admin_key_lets_in(suite, client, merchant) -> None:
    """No key, a wrong one, and a merchant's are all 401."""
    assert (await client.post("/merchants", body())).code == "missing_admin_key"
    for headers in (
        {"X_Admin_Key": "wrong"},
        {"X_Admin_Key": suite.admin_key + "x"},
        {"X_Admin_Key": merchant.api_key},
    ):
        refused = await client.post("/merchants", body(), **headers)
        assert (refused.status, refused.code) == (401, "invalid_admin_key")
    assert (await client.post("/merchants", body(), X_API_Key=suite.admin_key)).status == 401
    assert (await merchant.client.post("/merchants", body())).status == 401


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": 5}, "name"),
        ({"id": "a b"}, "id"),
        ({"id": ""}, "id"),
        ({"id": ".."}, "id"),
        ({"merchant_wallet_address": "0x" + "0" * 40}, "merchant_wallet_address"),
        ({"merchant_wallet_address": "0x" + "g" * 40}, "merchant_wallet_address"),
        ({"merchant_wallet_address": "0x55d398326f99059fF775485246999027B3197955"}, "merchant_wallet_address"),
        ({"merchant_wallet_address": "0x55D398326f99059fF775485246999027B3197955"}, "merchant_wallet_address"),
        ({"merchant_wallet_address": None}, "merchant_wallet_address"),
        ({"xpub": XPUB}, "xpub"),
        ({"xpub": "xprv" + XPUB[4:]}, "xpub"),
        ({"xpub": XPUB[:-1]}, "xpub"),
        ({"xpub": XPUB + "1"}, "xpub"),
        ({"xpub": XPUB[:50] + "0" + XPUB[51:]}, "xpub"),
        ({"xpub": 5}, "xpub"),
        ({"underpayment_tolerance_minor": -1}, "underpayment_tolerance_minor"),
        ({"underpayment_tolerance_minor": 2**53}, "underpayment_tolerance_minor"),
        ({"underpayment_tolerance_minor": "0"}, "underpayment_tolerance_minor"),
        ({"underpayment_tolerance_minor": True}, "underpayment_tolerance_minor"),
        ({"surplus_policy": "credit"}, "surplus_policy"),
        ({"surplus_policy": ""}, "surplus_policy"),
        ({"key": "x"}, "key"),
    ],
)
async def test_refuses_bad_fields(suite, client, changes, field) -> None:
    """400 that names the field: also the zero address, a token's contract, a wrong checksum, a private key."""
    refused = await client.post("/merchants", body(**changes), X_Admin_Key=suite.admin_key)
    assert (refused.status, refused.code) == (400, "invalid_request")
    assert [field] == [error["field"] for error in refused.body["errors"]]


async def test_keys_of_accounts_are_in_no_log(suite, client) -> None:
    """What was given as an xpub, whether it is one or a private key, is in no line and no answer that refuses it."""
    private = "xprv" + XPUB[4:]
    for changes in ({"xpub": XPUB}, {"xpub": private}, {"xpub": private, "merchant_wallet_address": None}):
        refused = await client.post("/merchants", body(**changes), X_Admin_Key=suite.admin_key)
        assert refused.status == 400
        assert XPUB[4:40] not in str(refused.body)
    request_id = refused.headers["X-Request-Id"]

    async def logged() -> bool:
        return request_id in suite.log("gateway")

    await until(logged, "the request to be logged")
    for name in suite.processes:
        assert XPUB[4:40] not in suite.log(name)
