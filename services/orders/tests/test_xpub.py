"""Merchants with an extended public key: each order has an address of its own, and no private key is ever taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from bip32 import BIP32, HARDENED_INDEX
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from kit.channel import Peer
from kit.database import Database
from kit.errors import Fault
from orders.addresses import account_key, derive
from orders.domain import NewOrder
from orders.heights import Heights
from orders.workflow import orders as workflow
from ospay.orders.v1 import orders_pb2
from services.orders.tests.conftest import WALLET, Suite, order_request  # type: ignore[import-not-found]
from services.orders.tests.desk import CHAINS, LATER, SEED, xpub, xpub_merchant  # type: ignore[import-not-found]
from services.orders.tests.played import TOKEN, PlayedVerifier  # type: ignore[import-not-found]

MASTER = BIP32.from_seed(SEED)
ACCOUNT = [44 + HARDENED_INDEX, 60 + HARDENED_INDEX, HARDENED_INDEX]


@pytest.fixture
def settings(verifier: PlayedVerifier) -> dict[str, object]:
    return {"verifier_target": f"127.0.0.1:{verifier.server.port}", "chains_file": CHAINS}


def of_private_key(index: int, account: int = 0) -> str:
    """The address at 0/index as another library makes it from the private key."""
    path = [*ACCOUNT[:2], account + HARDENED_INDEX, 0, index]
    return str(Account.from_key(MASTER.get_privkey_from_path(path)).address)


async def create_many(suite: Suite, *requests: orders_pb2.CreateOrderRequest) -> list[orders_pb2.CreateOrderResult]:
    batch = orders_pb2.BatchCreateOrdersRequest(requests=requests)
    return list((await suite.peer.call(suite.orders.BatchCreateOrders, batch, timeout=10)).results)


def tampered(text: str) -> str:
    return text[:-1] + ("1" if text[-1] != "1" else "2")


PRIVATE = [
    MASTER.get_xpriv_from_path(ACCOUNT),
    BIP32.from_seed(SEED, network="test").get_xpriv(),
    "yprvAHwhK6RbpuS3dgCYHM5jc2ZvEKd7Bi61u9FVhYMpgMSuZS613T1xxQeKTffhrHY79hZ5PsskBjcc6C2V7DrnsMsNaGDaWev3GLRQRgV7hxF",
    MASTER.get_privkey_from_path(ACCOUNT).hex(),
    "0x" + MASTER.get_privkey_from_path(ACCOUNT).hex(),
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about",
]
NOT_PUBLIC = [
    *PRIVATE,
    "",
    "xpub6",
    tampered(xpub()),
    xpub() + " ",
    xpub()[:-1],
    xpub().lower(),
    BIP32.from_seed(SEED, network="test").get_xpub(),
    MASTER.get_xpub_from_path([*ACCOUNT, 0, 7]),
    "é" * 100,
    WALLET,
]


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_only_an_account_key_is_taken(text: str) -> None:
    """A private key, a key of another network or depth, a wrong checksum: refused, and what was given is not told."""
    with pytest.raises(ValueError) as caught:
        account_key(text)
    assert not text or text not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.text(max_size=128))
def test_any_text_is_refused_by_a_sentence(text: str) -> None:
    """Whatever is given as a key is refused in one way."""
    with pytest.raises(ValueError, match="public key"):
        account_key(text)


@given(st.integers(0, 2**31 - 1))
def test_addresses_are_those_of_the_private_keys(index: int) -> None:
    """What is derived from the public key is, in EIP-55, what a wallet derives from the private one."""
    assert derive(xpub(), index) == of_private_key(index)


@pytest.mark.parametrize("text", [*PRIVATE, tampered(xpub())])
async def test_a_private_key_is_not_kept_and_not_shown(
    suite: Suite, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    """It is refused by name of the field, and stands in no answer, no log line and no row."""
    request = orders_pb2.CreateMerchantRequest(merchant_id="mrc_1", name="Shop", xpub=text)
    with pytest.raises(Fault) as caught:
        await suite.peer.call(suite.merchants.CreateMerchant, request, timeout=5)
    assert [item.field for item in caught.value.violations] == ["xpub"]
    shown = "".join(capfd.readouterr()) + repr(caught.value) + str(caught.value.violations)
    assert text not in shown
    async with suite.database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM merchants") == 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "merchant_wallet_address"),
        ({"xpub": xpub(), "merchant_wallet_address": WALLET}, "merchant_wallet_address"),
        ({"merchant_wallet_address": WALLET, "underpayment_tolerance_minor": 1}, "underpayment_tolerance_minor"),
        (
            {"merchant_wallet_address": WALLET, "surplus_policy": orders_pb2.SURPLUS_POLICY_CREDIT},
            "surplus_policy",
        ),
        ({"xpub": xpub(), "underpayment_tolerance_minor": -1}, "underpayment_tolerance_minor"),
        ({"xpub": xpub(), "surplus_policy": 7}, "surplus_policy"),
    ],
)
async def test_a_merchant_has_a_wallet_or_a_key(suite: Suite, fields: dict[str, object], field: str) -> None:
    """Exactly one of them, and the settings that need an address for each order only with a key."""
    request = orders_pb2.CreateMerchantRequest(name="Shop", **fields)  # type: ignore[arg-type]
    with pytest.raises(Fault) as caught:
        await suite.peer.call(suite.merchants.CreateMerchant, request, timeout=5)
    assert [item.field for item in caught.value.violations] == [field]


async def test_a_merchant_is_created_once_with_its_settings(suite: Suite) -> None:
    """The same again is the same merchant without a key; other settings under its id are refused."""
    fields: dict[str, object] = {"underpayment_tolerance_minor": 5, "surplus_policy": orders_pb2.SURPLUS_POLICY_CREDIT}
    request = orders_pb2.CreateMerchantRequest(merchant_id="mrc_1", name="Shop", xpub=xpub(), **fields)  # type: ignore[arg-type]
    first = await suite.peer.call(suite.merchants.CreateMerchant, request, timeout=5)
    assert (first.merchant.xpub, first.merchant.merchant_wallet_address) == (xpub(), "")
    assert (first.merchant.underpayment_tolerance_minor, first.merchant.surplus_policy) == (5, 2)
    again = await asyncio.gather(
        *(suite.peer.call(suite.merchants.CreateMerchant, request, timeout=5) for _ in range(5))
    )
    assert {(item.merchant.xpub, item.api_key) for item in again} == {(xpub(), "")}
    request.underpayment_tolerance_minor = 6
    with pytest.raises(Fault) as caught:
        await suite.peer.call(suite.merchants.CreateMerchant, request, timeout=5)
    assert caught.value.reason == "merchant_exists"


async def test_one_key_has_one_merchant(suite: Suite) -> None:
    """Registered twice, or written in another way, a key would give two merchants the same addresses: refused."""
    await xpub_merchant(suite, "mrc_1")
    key = BIP32.from_xpub(xpub())
    rewritten = BIP32(key.chaincode, pubkey=key.pubkey).get_xpub()
    assert rewritten != xpub()
    for text in (xpub(), rewritten):
        request = orders_pb2.CreateMerchantRequest(merchant_id="mrc_2", name="Other", xpub=text)
        with pytest.raises(Fault) as caught:
            await suite.peer.call(suite.merchants.CreateMerchant, request, timeout=5)
        assert [item.field for item in caught.value.violations] == ["xpub"]
        assert "mrc_1" in caught.value.violations[0].message


async def test_each_order_has_an_address_of_its_own(suite: Suite) -> None:
    """In EIP-55, at the path that the order tells, in the order of creation, with a payment link to it."""
    await xpub_merchant(suite)
    for index in range(3):
        order = (await suite.create(f"ord_{index}")).order
        assert (order.deposit_path, order.deposit_address) == (f"0/{index}", of_private_key(index))
        assert f"address={order.deposit_address}&" in order.payment_uri
    assert await suite.get("ord_2") == order


async def test_the_same_request_again_has_the_same_address(suite: Suite) -> None:
    """A replay takes no index; a mismatch is refused and takes none either."""
    await xpub_merchant(suite)
    first = await suite.create()
    again = await suite.create()
    assert (again.replayed, again.order) == (True, first.order)
    with pytest.raises(Fault) as caught:
        await suite.create(amount_minor=6)
    assert caught.value.reason == "idempotency_mismatch"
    assert (await suite.create("ord_2")).order.deposit_path == "0/1"


async def test_no_index_is_used_twice(suite: Suite) -> None:
    """Batches at once, with the same ids in several of them: every order has its own address, and each id one order."""
    await xpub_merchant(suite, "mrc_1")
    await xpub_merchant(suite, "mrc_2", account=1)
    requests = [
        order_request(f"ord_{number}", merchant_id=merchant) for number in range(30) for merchant in ("mrc_1", "mrc_2")
    ]
    batches = [requests[:40], requests[20:], requests[::-1], requests[::3]]
    results = await asyncio.gather(*(create_many(suite, *batch) for batch in batches))
    assert all(item.HasField("created") for batch in results for item in batch)
    found: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for batch in results:
        for item in batch:
            order = item.created.order
            key = (order.merchant_id, order.order_id)
            found.setdefault(key, set()).add((order.deposit_path, order.deposit_address))
    assert len(found) == 60
    assert all(len(addresses) == 1 for addresses in found.values())
    assert len({address for addresses in found.values() for _, address in addresses}) == 60
    for (merchant, _), addresses in found.items():
        ((path, address),) = addresses
        assert address == of_private_key(int(path.removeprefix("0/")), 0 if merchant == "mrc_1" else 1)
    assert sum(not item.created.replayed for batch in results for item in batch) == 60


async def test_a_batch_may_hold_all_kinds(suite: Suite) -> None:
    """Orders at a wallet, at addresses of their own and of nobody, a bad one and a duplicate: each for itself."""
    await suite.merchant("mrc_0")
    await xpub_merchant(suite, "mrc_1")
    results = await create_many(
        suite,
        order_request("a", merchant_id="mrc_0"),
        order_request("b"),
        order_request("c", amount_minor=0),
        order_request("d", merchant_id="nobody"),
        order_request("b"),
        order_request("e"),
    )
    shape = [
        (item.created.order.deposit_path, item.created.replayed) if item.HasField("created") else item.error.code
        for item in results
    ]
    assert shape == [("", False), ("0/0", False), 3, 5, ("0/0", True), ("0/1", False)]
    assert results[0].created.order.deposit_address == WALLET


class Counted:
    """A database that notes which statements run on it, and has no transactions to give."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.statements: list[str] = []

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Counted]:
        async with self._database.connection() as self._connection:
            yield self

    async def fetch(self, statement: str, *arguments: object) -> object:
        self.statements.append(statement)
        return await self._connection.fetch(statement, *arguments)


async def test_an_order_at_a_wallet_is_one_statement(suite: Suite, verifier: PlayedVerifier) -> None:
    """Addresses of orders' own cost those at wallets nothing: one statement creates a batch, and nothing is owed."""
    await suite.merchant()
    counted = Counted(suite.database)
    peer = Peer(f"127.0.0.1:{verifier.server.port}", token=TOKEN)
    rung: list[object] = []
    asked = [NewOrder("mrc_1", f"ord_{number}", "USDT", "BSC", 5, None, None, None) for number in range(20)]
    try:
        results = await workflow.create(
            counted,  # type: ignore[arg-type]
            Heights(peer),
            rung.extend,
            asked,
            default_ttl=LATER,
            watch_period=LATER,
            first_look=LATER,
        )
    finally:
        await peer.close()
    assert [isinstance(item, workflow.Created) and not item.replayed for item in results] == [True] * 20
    assert (len(counted.statements), rung) == (1, [])


async def test_an_address_that_is_a_wallet_is_left_out(suite: Suite) -> None:
    """A merchant that had the first address of its account for a wallet: no order gets that address."""
    request = orders_pb2.CreateMerchantRequest(
        merchant_id="mrc_0", name="Before", merchant_wallet_address=of_private_key(1)
    )
    await suite.peer.call(suite.merchants.CreateMerchant, request, timeout=5)
    await xpub_merchant(suite)
    results = await create_many(suite, *(order_request(f"ord_{number}") for number in range(3)))
    assert [item.created.order.deposit_path for item in results] == ["0/0", "0/2", "0/3"]


async def test_an_orders_address_is_nobodys_wallet(suite: Suite) -> None:
    """A wallet that is an order's own address is refused: money on it would be for two."""
    await xpub_merchant(suite)
    address = (await suite.create()).order.deposit_address
    request = orders_pb2.CreateMerchantRequest(name="Other", merchant_wallet_address=address)
    with pytest.raises(Fault) as caught:
        await suite.peer.call(suite.merchants.CreateMerchant, request, timeout=5)
    assert [item.field for item in caught.value.violations] == ["merchant_wallet_address"]
