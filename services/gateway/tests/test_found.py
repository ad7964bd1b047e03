"""Money that is found without a claim, refunds that the chain confirms, and a chain that is served by half."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest
from bip32 import BIP32
from eth_keys.datatypes import PublicKey

from gateway.schemas.answers import Merchant, Payment, Refund
from local.ports import free_port
from local.process import running, until

ACCOUNT = "m/44h/60h/0h"
FIVE = 5_000_000
BASE_PER_MINOR = 10**12


def new_xpub() -> str:
    """Of an account that nobody else has."""
    return BIP32.from_seed(secrets.token_bytes(32)).get_xpub_from_path(ACCOUNT)


def address_of(xpub: str, path: str) -> str:
    """What a wallet of another maker derives."""
    key = BIP32.from_xpub(xpub).get_pubkey_from_path(f"m/{path}")
    return PublicKey.from_compressed_bytes(key).to_checksum_address()


async def pay(chain, order, amount_minor=FIVE) -> str:
    """A transfer to the order's address, mined and not final; nobody is told of it."""
    return await chain.send_token(chain.accounts[0], order["deposit_address"], amount_minor * BASE_PER_MINOR, mine=True)


async def payments(merchant, order, *states: str) -> list[dict]:
    """The order's payments, once they are in these states."""
    found: list[dict] = []

    async def there() -> bool:
        answer = await merchant.client.get(f"/orders/{order['id']}/payments")
        assert answer.status == 200, answer
        found[:] = answer.body["data"]
        return [each["state"] for each in found] == list(states)

    await until(there, f"payments in {states}")
    return found


async def balances(of, **expected: int) -> None:
    """Waits until reconciliation shows these, with nothing in flight."""
    found: dict = {}

    async def there() -> bool:
        answer = await of.client.get(f"/reconciliation?merchant_id={of.id}&asset=USDT")
        found.update(answer.body)
        shown = {name: found[f"{name}_balance_minor"] for name in expected}
        return bool(found["in_flight_count"] == 0 and shown == expected)

    await until(there, f"balances of {expected}")
    assert 0 == found["merchant_balance_minor"] + found["clearing_balance_minor"]


async def test_registers_with_an_xpub(suite, client) -> None:
    """201 with the settings; the same again 200; another xpub under the id 409; it is in no log of any service."""
    xpub = new_xpub()
    sent = {
        "id": f"mrc_{secrets.token_hex(4)}",
        "name": "Shop",
        "xpub": xpub,
        "underpayment_tolerance_minor": 7,
        "surplus_policy": "CREDIT",
    }
    made = await client.post("/merchants", sent, X_Admin_Key=suite.admin_key)
    assert made.status == 201, made
    assert set(Merchant.__struct_fields__) == set(made.body)
    assert sent | {"merchant_wallet_address": None} == {
        name: value for name, value in made.body.items() if name != "api_key"
    }
    again = await client.post("/merchants", sent, X_Admin_Key=suite.admin_key)
    assert (200, made.body | {"api_key": None}) == (again.status, again.body)
    for change in ({"xpub": new_xpub()}, {"surplus_policy": "SUSPENSE"}, {"underpayment_tolerance_minor": 0}):
        refused = await client.post("/merchants", sent | change, X_Admin_Key=suite.admin_key)
        assert (409, "merchant_exists") == (refused.status, refused.code)
    for name in suite.processes:
        assert xpub[4:40] not in suite.log(name)


async def test_wrong_checksum_is_refused_by_its_field(suite, client) -> None:
    """400 for what only looks like an xpub."""
    xpub = new_xpub()
    sent = {"name": "Shop", "xpub": xpub[:-1] + ("2" if xpub[-1] == "1" else "1")}
    refused = await client.post("/merchants", sent, X_Admin_Key=suite.admin_key)
    assert (400, ["xpub"]) == (refused.status, [error["field"] for error in refused.body["errors"]])
    assert xpub[4:40] not in str(refused.body)


async def test_each_order_has_an_address_of_its_own(register, merchant) -> None:
    """Derived from the xpub at the path that is told; with a wallet there is no path."""
    xpub = new_xpub()
    shop = await register(xpub=xpub)
    made = [await shop.create() for _ in range(5)]
    assert {f"0/{n}" for n in range(5)} == {order["deposit_path"] for order in made}
    assert [address_of(xpub, order["deposit_path"]) for order in made] == [order["deposit_address"] for order in made]
    for order in made:
        assert f"address={order['deposit_address']}&" in order["payment_uri"]
        assert order == (await shop.client.get(f"/orders/{order['id']}")).body
    assert (await merchant.create())["deposit_path"] is None


async def test_paid_without_a_claim(register, chain) -> None:
    """CONFIRMING with what it waits for, then PAID with its payment."""
    shop = await register(xpub=new_xpub())
    order = await shop.create()
    assert [] == await payments(shop, order)
    tx = await pay(chain, order)
    seen = await shop.reaches(order["id"], "CONFIRMING")
    block = int((await chain.receipt(tx))["blockNumber"], 16)
    assert {"tx_hash": tx, "amount_minor": FIVE, "block_number": block} == {
        name: value for name, value in seen["confirming"].items() if name != "confirmations"
    }
    [waiting] = await payments(shop, order, "CONFIRMING")
    assert (tx, 0) == (waiting["tx_hash"], waiting["credited_minor"])
    await chain.finalize()
    paid = await shop.reaches(order["id"], "PAID")
    assert (FIVE, tx, None) == (paid["received_minor"], paid["tx_hash"], paid["confirming"])
    [payment] = await payments(shop, order, "CREDITED")
    assert set(Payment.__struct_fields__) == set(payment)
    assert (56, tx, block, "USDT", str(FIVE * BASE_PER_MINOR), FIVE, FIVE, "") == tuple(
        payment[name]
        for name in (
            "chain_id",
            "tx_hash",
            "block_number",
            "asset",
            "amount_base",
            "amount_minor",
            "credited_minor",
            "reason",
        )
    )
    assert chain.accounts[0].lower() == payment["sender"].lower()
    await balances(shop, merchant=FIVE, suspense=0)


async def test_part_is_held_until_the_rest_comes(register, chain) -> None:
    """The part is in suspense and shown as received; with the rest the order is PAID by both."""
    shop = await register(xpub=new_xpub())
    order = await shop.create()
    await pay(chain, order, 2_000_000)
    await chain.finalize()
    [held] = await payments(shop, order, "HELD")
    assert ("underpaid", 0) == (held["reason"], held["credited_minor"])
    await balances(shop, merchant=0, suspense=2_000_000)
    assert (await shop.client.get(f"/orders/{order['id']}")).body["received_minor"] == 2_000_000
    await pay(chain, order, 3_000_000)
    await chain.finalize()
    await shop.reaches(order["id"], "PAID")
    assert [2_000_000, 3_000_000] == [each["credited_minor"] for each in await payments(shop, order, *["CREDITED"] * 2)]
    await balances(shop, merchant=FIVE, suspense=0)


@pytest.mark.parametrize(("policy", "received", "suspense"), [("SUSPENSE", FIVE, 1), ("CREDIT", FIVE + 1, 0)])
async def test_surplus_goes_where_the_policy_says(register, chain, policy, received, suspense) -> None:
    """PAID with the surplus told; it is in suspense, or credited."""
    shop = await register(xpub=new_xpub(), surplus_policy=policy)
    order = await shop.create()
    await pay(chain, order, FIVE + 1)
    await chain.finalize()
    paid = await shop.reaches(order["id"], "PAID")
    assert (received, 1) == (paid["received_minor"], paid["surplus_minor"])
    await balances(shop, merchant=received, suspense=suspense)


async def test_lists_are_the_merchants_own(client, merchant, other) -> None:
    """404 for another's order and for none."""
    order = await merchant.create()
    for what in ("payments", "refunds"):
        own = await merchant.client.get(f"/orders/{order['id']}/{what}")
        assert (200, {"data": []}) == (own.status, own.body)
        for shop, order_id in ((other, order["id"]), (merchant, "never-was")):
            hidden = await shop.client.get(f"/orders/{order_id}/{what}")
            assert (404, "order_not_found") == (hidden.status, hidden.code)


async def refunded(merchant, refund_id, state) -> dict:
    """The refund, once it is in this state."""
    found: dict = {}

    async def there() -> bool:
        answer = await merchant.client.get(f"/orders/{found['order_id']}/refunds")
        found.update(next(each for each in answer.body["data"] if each["refund_id"] == refund_id))
        return bool(found["state"] == state)

    found["order_id"] = refund_id.removeprefix("r-")
    await until(there, f"the refund to be {state}")
    return found


async def test_refund_is_recorded_then_confirmed(merchant, other, chain) -> None:
    """What was answered is enough to send it; named, it is confirmed once it is final; another is refused till then."""
    order = await merchant.paid(chain)
    sender, refund_id = chain.accounts[1], f"r-{order['id']}"
    sent = {"order_id": order["id"], "refund_id": refund_id, "reason": "why", "from_address": sender}
    told = await merchant.client.post("/orders/refund", sent)
    refund = told.body["refund"]
    assert set(Refund.__struct_fields__) == set(refund)
    assert ("RECORDED", "", None, None) == tuple(
        refund[name] for name in ("state", "state_reason", "tx_hash", "confirmed_at")
    )
    assert (chain.accounts[0].lower(), sender.lower()) == (
        refund["to_address"].lower(),
        refund["from_address"].lower(),
    )
    assert f"@56/transfer?address={refund['to_address']}&uint256={FIVE * BASE_PER_MINOR}" in refund["payment_uri"]

    unsigned = refund["unsigned_transaction"]
    assert (56, chain.token.lower(), "0") == (unsigned["chain_id"], unsigned["to"].lower(), unsigned["value"])
    transaction = {"from": sender, "to": unsigned["to"], "data": unsigned["data"], "value": hex(int(unsigned["value"]))}
    tx = await chain.rpc("eth_sendTransaction", {"gas": hex(1_000_000), **transaction})
    await chain.mine()
    named = {"refund_id": refund_id, "tx_hash": tx}
    taken = await merchant.client.post("/orders/refund/transaction", named)
    assert (200, "RECORDED", tx) == (taken.status, taken.body["state"], taken.body["tx_hash"])
    assert (await merchant.client.post("/orders/refund/transaction", named)).status == 200
    another = await merchant.client.post("/orders/refund/transaction", named | {"tx_hash": "0x" + "ab" * 32})
    assert (409, "refund_transaction_exists") == (another.status, another.code)
    for shop, body in ((other, named), (merchant, named | {"refund_id": "never-was"})):
        hidden = await shop.client.post("/orders/refund/transaction", body)
        assert (404, "refund_not_found") == (hidden.status, hidden.code)

    await chain.finalize()
    confirmed = await refunded(merchant, refund_id, "CONFIRMED")
    assert confirmed["confirmed_at"].endswith("Z")
    replayed = await merchant.client.post("/orders/refund", sent)
    assert (200, "true", confirmed) == (
        replayed.status,
        replayed.headers["Idempotent-Replayed"],
        replayed.body["refund"],
    )


async def test_refund_that_the_chain_refutes(merchant, chain) -> None:
    """Another amount is no proof of it: REFUTED with the reason, and another transaction can be named."""
    order = await merchant.paid(chain)
    sender, refund_id = chain.accounts[1], f"r-{order['id']}"
    wrong = await chain.send_token(sender, chain.accounts[0], 1 * BASE_PER_MINOR, mine=True)
    await chain.finalize()
    sent = {"order_id": order["id"], "refund_id": refund_id, "reason": "why", "from_address": sender, "tx_hash": wrong}
    assert (await merchant.client.post("/orders/refund", sent)).status == 200
    assert (await refunded(merchant, refund_id, "REFUTED"))["state_reason"] == "wrong_amount"
    right = await chain.send_token(sender, chain.accounts[0], FIVE * BASE_PER_MINOR, mine=True)
    await chain.finalize()
    named = await merchant.client.post("/orders/refund/transaction", {"refund_id": refund_id, "tx_hash": right})
    assert named.status == 200
    assert (await refunded(merchant, refund_id, "CONFIRMED"))["tx_hash"] == right


@pytest.fixture
def half_served(suite):
    """A verifier that has one endpoint of two, and a gateway in front of it; both to be run."""
    named = ("verifier", "gateway")
    wiring = replace(
        suite.wiring,
        ports={**suite.wiring.ports, **{name: [free_port()] for name in named}},
        metrics_ports={**suite.wiring.metrics_ports, **{name: [free_port()] for name in named}},
        rpc_url=f"near={suite.rpc_url},far=http://127.0.0.1:{free_port()}",
    )
    environment = {**suite.environment, **wiring.environment(), "BSC_RPC_QUORUM": "1"}
    url = f"http://127.0.0.1:{wiring.ports['gateway'][0]}"
    return replace(suite, wiring=wiring, environment=environment, url=url)


async def test_degraded_is_not_down(half_served, merchant) -> None:
    """An operator that is away is told of, to the merchant and in /dbhealth, which stays 200."""
    client = merchant.client.at(half_served.url)
    async with running(half_served.service("verifier")), running(half_served.service("gateway")):

        async def degraded() -> bool:
            ready, chains = await client.get("/dbhealth"), await client.get("/chains")
            return bool(
                ready.status == 200
                and ready.body["parts"]["chain.BSC"] == "degraded"
                and [each["status"] for each in chains.body["data"]] == ["degraded"]
            )

        await until(degraded, "the chain to be seen as degraded", bound=20)
