"""A verifier with several operators: how it says that one lies or is gone, and what its callers see of it."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from local.anvil import Anvil
from local.devchain import DevChain
from local.ports import free_port
from local.process import Command, running
from ospay.verifier.v1 import verifier_pb2 as pb
from services.verifier.tests.malicious import (
    changing,
    dropped,
    fails,
    logs,
    malicious,
    of,
    receipts,
    status,
    wrong_chain,
)
from verifier.domain import TRANSFER_TOPIC
from verifier.jsonrpc import WrongChain
from verifier.metrics import CHAIN_HEALTH, ENDPOINT_UP

MORE = f"0x{10**24:064x}"
USDC = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"
BSC = """
[chains.BSC]
chain_id = 56
rpc_url_env = "BSC_RPC_URL"
finality = "finalized"
block_seconds = 0.25
{pin}
[chains.BSC.assets.USDT]
contract = "0x55d398326f99059fF775485246999027B3197955"
base_decimals = 18
minor_decimals = 6
"""
BASE = f"""
[chains.BASE]
chain_id = 8453
rpc_url_env = "BASE_RPC_URL"
finality = {{ depth = 3 }}
block_seconds = 0.25

[chains.BASE.assets.USDC]
contract = "{USDC}"
base_decimals = 6
minor_decimals = 6
"""


@pytest_asyncio.fixture
async def three(anvil):
    """Three operators before one chain that has a final block."""
    await anvil.mine(10)
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(malicious(anvil.url)) for name in ("ann", "ben", "cid")}


def urls(proxies):
    """As the environment has them."""
    return ",".join(f"{name}={proxy.url}" for name, proxy in proxies.items())


async def final_payment(chain):
    """The hash of a payment of one token to the shop, mined and final."""
    tx = await chain.send_token(chain.accounts[0], chain.accounts[1], 10**18, mine=True)
    await chain.finalize()
    return tx


def seen(status):
    """How a chain is seen, and which endpoints are believed."""
    return pb.ChainHealth.Name(status.health), {each.operator: each.available for each in status.endpoints}


def gauges():
    """What the metrics say of the same."""
    return CHAIN_HEALTH.labels("BSC")._value.get(), {
        name: ENDPOINT_UP.labels("BSC", name)._value.get() for name in ("ann", "ben", "cid")
    }


async def test_degraded_is_told_from_unavailable(start_verifier, anvil, three, until):
    """One of three gone: degraded, and `rpc` serves; two gone: unavailable, and it does not, until they are back."""
    verifier = await start_verifier(urls(three))
    await until(lambda: verifier.says("rpc", "SERVING"))
    status = (await verifier.chains())["BSC"]
    assert ("CHAIN_HEALTH_OK", {"ann": True, "ben": True, "cid": True}) == seen(status)
    assert (1.0, {"ann": 1, "ben": 1, "cid": 1}) == gauges()
    final = await anvil.finalized()
    assert [(True, final, "")] * 3 == [(each.logs, each.finalized_number, each.error) for each in status.endpoints]

    three["ben"].lie = dropped
    status = (await verifier.chains())["BSC"]
    assert ("CHAIN_HEALTH_DEGRADED", {"ann": True, "ben": False, "cid": True}) == seen(status)
    assert (0.5, {"ann": 1, "ben": 0, "cid": 1}) == gauges()
    assert (True, "") == (status.available, status.error)
    assert "does not answer" in status.endpoints[1].error
    assert await verifier.says("rpc", "SERVING")

    three["cid"].lie = wrong_chain
    status = (await verifier.chains())["BSC"]
    assert ("CHAIN_HEALTH_UNAVAILABLE", {"ann": True, "ben": False, "cid": False}) == seen(status)
    assert (0.0, {"ann": 1, "ben": 0, "cid": 0}) == gauges()
    assert not status.available
    assert "2 of 3 operators are needed: ben: " in status.error
    await until(lambda: verifier.says("rpc", "NOT_SERVING"))

    three["ben"].lie = three["cid"].lie = None
    await until(lambda: verifier.says("rpc", "SERVING"))


async def test_a_claim_heals_by_itself(start_verifier, anvil, three, reason):
    """A payment that two of two liars keep from a quorum is proved, and told once, when one of them stops."""
    tx = await final_payment(anvil)
    verifier = await start_verifier(urls(three))
    three["ann"].lie = changing(receipts, logs(data=MORE))
    three["ben"].lie = changing(receipts, fails(-32005, "limit exceeded"))
    claim = verifier.claim(tx, anvil.accounts[1])
    assert reason(await verifier.verify(claim)) == "chain_unavailable"
    three["ben"].lie = None
    (transfer,) = (await verifier.hear(claim, "final")).final.transfers
    assert (tx, 1_000_000) == (transfer.tx_hash, transfer.amount_minor)
    assert ["final"] == [reason(verdict) for verdict in verifier.said(claim)]


async def test_orders_are_made_while_an_operator_hangs_or_is_gone(start_verifier, anvil, three):
    """GetHead is one operator's word: the next one gives it when the first is gone."""
    verifier = await start_verifier(urls(three))
    three["ann"].lie = dropped
    three["ben"].lie = status(503)
    assert await anvil.head() == await verifier.head()


async def test_one_wrong_chain_among_right_ones_is_refused_at_start(start_verifier, anvil, three, reason):
    """The service starts with the endpoints that are right, and never uses the one that is not."""
    tx = await final_payment(anvil)
    three["ann"].lie = wrong_chain
    verifier = await start_verifier(urls(three))
    assert ("CHAIN_HEALTH_DEGRADED", {"ann": False, "ben": True, "cid": True}) == seen((await verifier.chains())["BSC"])
    assert reason(await verifier.verify(verifier.claim(tx, anvil.accounts[1]))) == "final"


async def test_wrong_chains_alone_end_the_start(start_verifier, three):
    """When no endpoint of a chain is right the service does not start."""
    for proxy in three.values():
        proxy.lie = wrong_chain
    with pytest.raises(WrongChain, match="answers for chain id 1, not 56"):
        await start_verifier(urls(three))


async def test_a_copy_of_the_chain_alone_ends_the_start(start_verifier, three):
    """An endpoint of the right id and another pinned block is another chain."""
    pin = 'pinned_block = { number = 1, hash = "0x' + "77" * 32 + '" }'
    with pytest.raises(WrongChain, match="has another block 1 than is pinned"):
        await start_verifier(urls(three), chains=BSC.format(pin=pin))


async def test_a_quorum_that_cannot_be_ends_the_start(start_verifier, three):
    """More operators than there are cannot agree."""
    with pytest.raises(ValueError, match="BSC_RPC_QUORUM: expected 1 … 3"):
        await start_verifier(urls(three), env={"BSC_RPC_QUORUM": "4"})


async def test_an_endpoint_without_logs_is_no_dead_endpoint(start_verifier, anvil, three, reason):
    """Without eth_getLogs an endpoint is shown so, and payments are proved as ever."""
    tx = await final_payment(anvil)
    three["ann"].lie = changing(of("eth_getLogs"), fails(-32005, "limit exceeded"))
    verifier = await start_verifier(urls(three))
    status = (await verifier.chains())["BSC"]
    assert [False, True, True] == [each.logs for each in status.endpoints]
    assert "CHAIN_HEALTH_OK" == seen(status)[0]
    assert reason(await verifier.verify(verifier.claim(tx, anvil.accounts[1]))) == "final"


async def test_chains_that_ship_and_are_not_served(start_verifier, three, anvil, reason, until):
    """With the repository's configuration and one endpoint, the other chains are listed, and harm nothing."""
    shipped = (Path(__file__).parents[3] / "config" / "chains.toml").read_text()
    tx = await final_payment(anvil)
    verifier = await start_verifier(three["ann"].url, chains=shipped)
    chains = await verifier.chains()
    bsc = chains.pop("BSC")
    assert ("CHAIN_HEALTH_OK", 1) == (seen(bsc)[0], len(bsc.endpoints))
    assert {"BASE", "BSC_TESTNET", "ETHEREUM", "POLYGON"} == chains.keys()
    for name, other in chains.items():
        assert ("CHAIN_HEALTH_UNAVAILABLE", {}) == seen(other)
        assert (False, f"{name}_RPC_URL is not set") == (other.available, other.error)
    await until(lambda: verifier.says("rpc", "SERVING"))
    assert reason(await verifier.verify(verifier.claim(tx, anvil.accounts[1]))) == "final"
    unserved = verifier.claim(tx, anvil.accounts[1], chain="ETHEREUM", asset="USDC")
    assert reason(await verifier.verify(unserved)) == "chain_unavailable"


class BaseAnvil(Anvil):
    """A node of another chain."""

    def command(self) -> Command:
        command = super().command()
        argv = ["--chain-id=8453" if str(word).startswith("--chain-id=") else word for word in command.argv]
        return Command(argv=argv, log=command.log, env=command.env)


async def pay_usdc(base, amount):
    """A Transfer log at the real address of USDC, to the shop."""
    await base.rpc("anvil_setCode", USDC, await base.rpc("eth_getCode", await base.deploy("Emitter"), "latest"))
    parties = [bytes.fromhex(each[2:].rjust(64, "0")) for each in base.accounts[:2]]
    topics = [bytes.fromhex(TRANSFER_TOPIC[2:]), *parties]
    return await base.call("Emitter", USDC, "emitLog", topics, amount.to_bytes(32, "big"), mine=True)


async def test_two_chains_and_two_assets_at_once(start_verifier, anvil, three, tmp_path, reason):
    """USDT on one chain, USDC on another, a liar among the operators of each: each payment is proved by its own."""
    node = BaseAnvil(tmp_path / "base", free_port(), tmp_path / "base.log")
    async with running(node), DevChain.connect(node.url) as base, AsyncExitStack() as stack:
        others = {name: await stack.enter_async_context(malicious(node.url)) for name in ("dan", "eve", "fay")}
        verifier = await start_verifier(
            urls(three), chains=BSC.format(pin="") + BASE, env={"BASE_RPC_URL": urls(others), "BASE_RPC_QUORUM": "2"}
        )
        usdt, usdc = await final_payment(anvil), await pay_usdc(base, 1_234_567)
        claims = [
            verifier.claim(usdt, anvil.accounts[1]),
            verifier.claim(usdc, base.accounts[1], chain="BASE", asset="USDC"),
            verifier.claim(usdc, anvil.accounts[1]),
            verifier.claim(usdt, base.accounts[1], chain="BASE", asset="USDC"),
        ]
        three["ann"].lie = changing(receipts, logs(data=MORE))
        others["dan"].lie = changing(receipts, logs(data=MORE))
        assert ["final", "chain_unavailable"] == [reason(each) for each in await verifier.batch(claims[:2])]
        await base.mine(10)
        first = (await verifier.hear(claims[1], "final")).final.transfers
        second, *unknown = await verifier.batch([claims[0], *claims[2:]])
        assert [(8453, 1_234_567)] == [(each.chain_id, each.amount_minor) for each in first]
        assert [(56, 1_000_000)] == [(each.chain_id, each.amount_minor) for each in second.final.transfers]
        assert ["not_found"] * 2 == [reason(each) for each in unknown]
        healths = {name: seen(status)[0] for name, status in (await verifier.chains()).items()}
        assert {"BSC": "CHAIN_HEALTH_DEGRADED", "BASE": "CHAIN_HEALTH_DEGRADED"} == healths
