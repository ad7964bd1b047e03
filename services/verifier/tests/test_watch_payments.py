"""What is paid to a watched address is found with no claim, whatever it looks like; what is no payment is not."""

import asyncio

import pytest

from local.token import contract
from verifier.domain import TRANSFER_TOPIC

ONE = 10**18
APPROVAL_TOPIC = "0x8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925"


def topic(address):
    """An address as a topic."""
    return bytes.fromhex(address[2:].rjust(64, "0"))


def word(number):
    """A number as data."""
    return number.to_bytes(32, "big")


@pytest.fixture
async def emit(anvil):
    """`await emit(topics, data)` makes the token's own contract emit any log, mined at once."""
    emitter = await anvil.deploy("Emitter")
    await anvil.rpc("anvil_setCode", anvil.token, await anvil.rpc("eth_getCode", emitter, "latest"))

    async def emitted(topics, data):
        return await anvil.call("Emitter", anvil.token, "emitLog", topics, data, mine=True)

    return emitted


async def test_a_payment_is_found_with_no_claim(watcher, anvil):
    """A transfer to a watched address is SEEN as soon as it is mined and FINAL when its block is."""
    payer, shop = anvil.accounts[:2]
    await watcher.watch(shop)
    await watcher.passes()
    tx = await anvil.send_token(payer, shop, ONE, mine=True)
    await watcher.passes()
    assert [("SEEN", ONE, tx)] == await watcher.seen()
    await anvil.finalize()
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    assert 2 == len(watcher.rung)


async def test_a_payment_that_nobody_watches_is_no_business_of_ours(watcher, anvil):
    """A transfer to an address that is not watched leaves no row."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    await anvil.send_token(anvil.accounts[0], anvil.accounts[2], ONE, mine=True)
    await anvil.finalize()
    await watcher.passes()
    assert [] == await watcher.seen()


async def test_a_pending_transfer_is_nothing(watcher, anvil):
    """What is not mined is not seen."""
    await watcher.watch(anvil.accounts[1])
    await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE)
    await watcher.passes()
    assert [] == await watcher.seen()


async def test_a_batch_pays_every_address_that_it_names(watcher, anvil):
    """One transaction that pays two addresses, one of them twice, is three sightings; the payer is the contract."""
    first, second = anvil.accounts[1:3]
    await watcher.watch(first, second)
    batch = await anvil.deploy("Batch")
    await anvil.send_token(anvil.accounts[0], batch, 10 * ONE, mine=True)
    tx = await anvil.call("Batch", batch, "pay", anvil.token, [first, second, first], [1, 2, 1], mine=True)
    await anvil.finalize()
    await watcher.passes()
    assert [("FINAL", 1, tx), ("FINAL", 2, tx), ("FINAL", 1, tx)] == await watcher.seen()
    senders = await watcher.rows("SELECT DISTINCT sender FROM sightings")
    assert [batch.lower()] == ["0x" + row["sender"].hex() for row in senders]


async def test_a_transaction_that_failed_pays_nothing(watcher, anvil):
    """A transfer that was undone in its transaction leaves no row."""
    await watcher.watch(anvil.accounts[1])
    batch = await anvil.deploy("Batch")
    await anvil.send_token(anvil.accounts[0], batch, ONE, mine=True)
    await anvil.call("Batch", batch, "payAndRevert", anvil.token, [anvil.accounts[1]], [1], mine=True)
    await anvil.finalize()
    await watcher.passes()
    assert [] == await watcher.seen()


async def test_another_token_pays_nothing(watcher, anvil):
    """The same event of a contract that is not configured leaves no row."""
    await watcher.watch(anvil.accounts[1])
    fake = await anvil.deploy("Token")
    await anvil.call("Token", fake, "mint", anvil.accounts[1], ONE, mine=True)
    await anvil.finalize()
    await watcher.passes()
    assert [] == await watcher.seen()


async def test_the_largest_amount_is_exact(watcher, anvil, emit):
    """2^256-1 base units are stored as they are."""
    payer, shop = anvil.accounts[:2]
    await watcher.watch(shop)
    tx = await emit([bytes.fromhex(TRANSFER_TOPIC[2:]), topic(payer), topic(shop)], word(2**256 - 1))
    await anvil.finalize()
    await watcher.passes()
    assert [("FINAL", 2**256 - 1, tx)] == await watcher.seen()


NO_PAYMENTS = {
    "dirty recipient": ([TRANSFER_TOPIC, "payer", "dirty"], word(ONE)),
    "dirty sender": ([TRANSFER_TOPIC, "dirty", "shop"], word(ONE)),
    "31 bytes of data": ([TRANSFER_TOPIC, "payer", "shop"], word(ONE)[1:]),
    "33 bytes of data": ([TRANSFER_TOPIC, "payer", "shop"], word(ONE) + b"\0"),
    "no data": ([TRANSFER_TOPIC, "payer", "shop"], b""),
    "zero value": ([TRANSFER_TOPIC, "payer", "shop"], word(0)),
    "approval": ([APPROVAL_TOPIC, "payer", "shop"], word(ONE)),
    "no recipient": ([TRANSFER_TOPIC, "payer"], word(ONE)),
    "token id": ([TRANSFER_TOPIC, "payer", "shop", "payer"], b""),
    "turned round": ([TRANSFER_TOPIC, "shop", "payer"], word(ONE)),
}


async def test_what_only_looks_like_a_payment_is_none(watcher, anvil, emit):
    """Dirty topics, data of another length, nothing moved, another event: no row, also when logs come unfiltered."""
    payer, shop = anvil.accounts[:2]
    known = {"payer": topic(payer), "shop": topic(shop), "dirty": b"\xff" * 12 + topic(shop)[12:]}
    await watcher.watch(shop)
    for topics, data in NO_PAYMENTS.values():
        await emit([known.get(each) or bytes.fromhex(each[2:]) for each in topics], data)
    good = await emit([bytes.fromhex(TRANSFER_TOPIC[2:]), known["payer"], known["shop"]], word(7))
    await anvil.finalize()
    await watcher.passes()
    assert [("FINAL", 7, good)] == await watcher.seen()
    everything = await watcher.panel.logs(1, await anvil.head(), [anvil.token.lower()], None)
    assert len(everything.logs) > 5


async def test_minted_money_counts(watcher, anvil):
    """The sender need not be anybody: what matters is what the token's contract says was moved."""
    await watcher.watch(anvil.accounts[1])
    await anvil.rpc("anvil_setCode", anvil.token, contract("Token").runtime)
    tx = await anvil.call("Token", anvil.token, "mint", anvil.accounts[1], ONE, mine=True)
    await anvil.finalize()
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()


async def test_a_replaced_transaction_pays_once(watcher, anvil):
    """Of two transactions with one nonce only the mined one is a sighting."""
    payer, shop = anvil.accounts[:2]
    await watcher.watch(shop)
    nonce = await anvil.rpc("eth_getTransactionCount", payer, "latest")
    first = await anvil.send_token(payer, shop, 1)
    request = await anvil.rpc("eth_getTransactionByHash", first)
    price = hex(3 * int(request["maxFeePerGas"], 16))
    fields = {"from": payer, "to": anvil.token, "data": request["input"][:-1] + "2", "nonce": nonce, "gas": hex(10**6)}
    second = await anvil.rpc("eth_sendTransaction", {**fields, "maxFeePerGas": price, "maxPriorityFeePerGas": price})
    assert first != second
    await anvil.finalize()
    await watcher.passes()
    assert [("FINAL", 2, second)] == await watcher.seen()


async def test_1500_addresses_cost_a_constant_number_of_calls(watcher, liar, anvil):
    """With 1500 addresses a pass is as many HTTP calls as with one; logs are asked for 500 addresses at a time."""
    shop = anvil.accounts[1]
    counts = []
    for others in (0, 1499):
        await watcher.watch(shop, *(f"0x{n:040x}" for n in range(1000, 1000 + others)), from_block=await anvil.head())
        await watcher.passes()
        await anvil.mine()
        batches, logs = liar.batches, liar.calls["eth_getLogs"]
        await watcher.passes()
        counts.append((liar.batches - batches, liar.calls["eth_getLogs"] - logs))
    assert [(3, 1), (3, 3)] == counts
    tx = await anvil.send_token(anvil.accounts[0], shop, ONE, mine=True)
    await anvil.finalize()
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()


async def test_more_than_2000_addresses_are_filtered_here(watcher, liar, anvil):
    """Past 2000 addresses one call asks for all transfers of the token, so calls do not grow with open orders."""
    asked = []

    def listen(requests, answers):
        asked.extend(item["params"][0]["topics"] for item in requests if item["method"] == "eth_getLogs")
        return answers

    shop = anvil.accounts[1]
    for start in range(0, 3000, 1000):
        await watcher.watch(*(f"0x{n:040x}" for n in range(5000 + start, 6000 + start)), from_block=await anvil.head())
    await watcher.watch(shop, from_block=await anvil.head())
    await watcher.passes()
    liar.lie = listen
    other = await anvil.send_token(anvil.accounts[0], anvil.accounts[2], 5, mine=True)
    tx = await anvil.send_token(anvil.accounts[0], shop, ONE, mine=True)
    await anvil.finalize()
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()
    assert other != tx
    assert [True] == sorted({topics[2:] in ([], [None]) for topics in asked})


async def test_nothing_watched_costs_nothing(watcher, liar, anvil):
    """While nothing is watched the chain is not read at all, and the first watch misses nothing that it asks for."""
    batches = liar.batches
    await watcher.passes(3)
    assert batches == liar.batches
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.mine(20)
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()


async def test_hundreds_of_payments_at_once(watcher, anvil):
    """Two hundred payments in a few blocks are all found and proved in one pass."""
    shops = anvil.accounts[1:9]
    await watcher.watch(*shops)
    await watcher.passes()
    for n in range(200):
        await anvil.send_token(anvil.accounts[0], shops[n % 8], n + 1)
        if n % 50 == 49:
            await anvil.mine()
    await anvil.finalize()
    async with asyncio.timeout(20):
        await watcher.passes()
    found = await watcher.seen()
    assert {"FINAL"} == {state for state, _, _ in found}
    assert list(range(1, 201)) == sorted(amount for _, amount, _ in found)
