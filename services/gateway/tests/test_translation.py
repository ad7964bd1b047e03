"""Messages of the services as JSON shows them."""

from __future__ import annotations

import msgspec
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.schemas.answers import Refund
from gateway.schemas.fields import TX_HASH, WALLET, XPUB
from gateway.translation import chains_of, claim_of, merchant_of, order_of, payment_of, refund_of
from ospay.orders.v1 import orders_pb2
from ospay.verifier.v1 import verifier_pb2

NOON = Timestamp(seconds=1_769_860_800)


def shown(struct: msgspec.Struct) -> dict:
    """What a merchant reads."""
    return msgspec.json.decode(msgspec.json.encode(struct))


def test_merchant_with_an_xpub() -> None:
    """No wallet, and the settings by their names."""
    message = orders_pb2.Merchant(
        merchant_id="m1",
        name="Shop",
        xpub=XPUB,
        underpayment_tolerance_minor=5,
        surplus_policy=orders_pb2.SURPLUS_POLICY_CREDIT,
    )
    assert {
        "id": "m1",
        "name": "Shop",
        "merchant_wallet_address": None,
        "xpub": XPUB,
        "underpayment_tolerance_minor": 5,
        "surplus_policy": "CREDIT",
        "api_key": None,
    } == shown(merchant_of(message, ""))


def test_merchant_of_the_version_before() -> None:
    """Orders that know no policy hold a surplus in suspense."""
    message = orders_pb2.Merchant(merchant_id="m1", name="Shop", merchant_wallet_address=WALLET)
    found = shown(merchant_of(message, "ospay_1"))
    assert (WALLET, None, 0, "SUSPENSE", "ospay_1") == tuple(
        found[name]
        for name in ("merchant_wallet_address", "xpub", "underpayment_tolerance_minor", "surplus_policy", "api_key")
    )


ORDER = orders_pb2.Order(merchant_id="m1", order_id="o1", state=orders_pb2.ORDER_STATE_CONFIRMING)


def test_facts_beside_the_state() -> None:
    """What is absent is null, what is zero is zero."""
    found = shown(order_of(ORDER))
    assert (None, None, 0, 0) == tuple(
        found[name] for name in ("deposit_path", "confirming", "surplus_minor", "reversed_minor")
    )
    full = orders_pb2.Order(deposit_path="0/17", surplus_minor=3, reversed_minor=4)
    full.MergeFrom(ORDER)
    full.confirming.CopyFrom(orders_pb2.Confirming(tx_hash=TX_HASH, amount_minor=5, block_number=7, confirmations=2))
    found = shown(order_of(full))
    assert ("0/17", 3, 4) == tuple(found[name] for name in ("deposit_path", "surplus_minor", "reversed_minor"))
    assert {"tx_hash": TX_HASH, "amount_minor": 5, "block_number": 7, "confirmations": 2} == found["confirming"]


def payment(**changes: object) -> orders_pb2.Payment:
    """A transfer that is held."""
    fields = {
        "chain_id": 56,
        "tx_hash": TX_HASH,
        "log_index": 3,
        "block_number": 9,
        "block_hash": TX_HASH,
        "block_time": NOON,
        "sender": WALLET,
        "asset": "USDT",
        "amount_base": str(2**256 - 1),
        "amount_minor": 5,
        "credited_minor": 2,
        "state": orders_pb2.PAYMENT_STATE_HELD,
        "reason": "surplus",
    }
    return orders_pb2.Payment(**{**fields, **changes})


def test_payment() -> None:
    """Base units keep all their digits; everything else as it is."""
    assert {
        "chain_id": 56,
        "tx_hash": TX_HASH,
        "log_index": 3,
        "block_number": 9,
        "block_hash": TX_HASH,
        "block_time": "2026-01-31T12:00:00Z",
        "sender": WALLET,
        "asset": "USDT",
        "amount_base": str(2**256 - 1),
        "amount_minor": 5,
        "credited_minor": 2,
        "state": "HELD",
        "reason": "surplus",
    } == shown(payment_of(payment()))
    assert shown(payment_of(payment(amount_minor=-1)))["amount_minor"] is None


def refund(**changes: object) -> orders_pb2.Refund:
    """A refund that waits for the chain."""
    fields = {
        "order_id": "o1",
        "refund_id": "r1",
        "amount_minor": 5,
        "reason": "asked",
        "state": orders_pb2.REFUND_STATE_RECORDED,
        "to_address": WALLET,
        "payment_uri": "ethereum:…",
        "unsigned_transaction": orders_pb2.UnsignedTransaction(chain_id=56, to=WALLET, data="0xa9", value="0"),
        "created_at": NOON,
    }
    return orders_pb2.Refund(**{**fields, **changes})


def test_refund() -> None:
    """Null where nothing is named or confirmed."""
    expected = {
        "order_id": "o1",
        "refund_id": "r1",
        "amount_minor": 5,
        "reason": "asked",
        "state": "RECORDED",
        "state_reason": "",
        "tx_hash": None,
        "to_address": WALLET,
        "from_address": None,
        "payment_uri": "ethereum:…",
        "unsigned_transaction": {"chain_id": 56, "to": WALLET, "data": "0xa9", "value": "0"},
        "created_at": "2026-01-31T12:00:00Z",
        "confirmed_at": None,
    }
    assert expected == shown(refund_of(refund()))
    known = {
        "tx_hash": TX_HASH,
        "from_address": WALLET,
        "confirmed_at": NOON,
        "state": orders_pb2.REFUND_STATE_CONFIRMED,
    }
    told = {"tx_hash": TX_HASH, "from_address": WALLET, "confirmed_at": "2026-01-31T12:00:00Z", "state": "CONFIRMED"}
    assert expected | told == shown(refund_of(refund(**known)))


def test_refund_to_a_payer_that_is_no_account() -> None:
    """Nobody is asked to send money there: null, and valid by the answer's own schema."""
    found = shown(refund_of(refund(to_address="0x" + "0" * 40, payment_uri="", unsigned_transaction=None)))
    assert (None, None) == (found["payment_uri"], found["unsigned_transaction"])
    msgspec.convert(found, Refund)


def test_every_state_has_a_name() -> None:
    """The contract's own, without the prefix."""
    for number in orders_pb2.PaymentState.values()[1:]:
        name = orders_pb2.PaymentState.Name(number).removeprefix("PAYMENT_STATE_")
        assert name == payment_of(payment(state=number)).state
    for number in orders_pb2.RefundState.values()[1:]:
        name = orders_pb2.RefundState.Name(number).removeprefix("REFUND_STATE_")
        assert name == refund_of(refund(state=number)).state


def test_states_of_a_newer_orders() -> None:
    """UNKNOWN each: while an upgrade is under way one of them takes nothing else from a page."""
    newer = 999
    order = orders_pb2.Order(state=newer, last_claim=orders_pb2.Claim(state=newer))
    assert ("UNKNOWN", "UNKNOWN") == (order_of(order).status, claim_of(order.last_claim).state)
    assert ("UNKNOWN", "UNKNOWN") == (payment_of(payment(state=newer)).state, refund_of(refund(state=newer)).state)
    assert "UNKNOWN" == merchant_of(orders_pb2.Merchant(surplus_policy=newer), "").surplus_policy


OK, DEGRADED, AWAY = (
    verifier_pb2.CHAIN_HEALTH_OK,
    verifier_pb2.CHAIN_HEALTH_DEGRADED,
    verifier_pb2.CHAIN_HEALTH_UNAVAILABLE,
)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (verifier_pb2.ChainStatus(health=OK, available=True), ["ok"]),
        (verifier_pb2.ChainStatus(health=DEGRADED, available=True), ["degraded"]),
        (verifier_pb2.ChainStatus(health=AWAY, error="two operators disagree"), ["unavailable"]),
        # A verifier of the version before.
        (verifier_pb2.ChainStatus(available=True), ["ok"]),
        (verifier_pb2.ChainStatus(error="ConnectionRefused"), ["unavailable"]),
        # Configured, but nobody has given it an endpoint.
        (verifier_pb2.ChainStatus(error="BASE_RPC_URL is not set"), []),
        (verifier_pb2.ChainStatus(error="BASE_RPC_URL is not set", health=AWAY), []),
    ],
)
def test_health_of_a_chain(status: verifier_pb2.ChainStatus, expected: list[str]) -> None:
    """By its health where that is told, by `available` where not; a chain without an endpoint is none to pay on."""
    assert expected == [chain.status for chain in chains_of(verifier_pb2.ListChainsResponse(chains=[status]))]


def test_chain() -> None:
    """Its heights, and no error of an endpoint."""
    status = verifier_pb2.ChainStatus(
        chain="BSC", chain_id=56, health=DEGRADED, head_number=9, finalized_number=7, error="http://10… is away"
    )
    [found] = chains_of(verifier_pb2.ListChainsResponse(chains=[status]))
    assert {
        "chain": "BSC",
        "chain_id": 56,
        "status": "degraded",
        "head_number": 9,
        "finalized_number": 7,
    } == shown(found)
