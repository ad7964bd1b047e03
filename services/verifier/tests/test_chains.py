"""Chains and assets by configuration alone; wrong and absent endpoints; the process itself."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from chains import Registry
from kit.errors import Fault
from local.anvil import Anvil
from local.devchain import DevChain
from local.ports import free_port
from local.process import Command, running
from verifier.domain import TRANSFER_TOPIC
from verifier.jsonrpc import WrongChain
from verifier.settings import endpoints

SECOND = """
[chains.BSC]
chain_id = 56
rpc_url_env = "BSC_RPC_URL"
finality = "finalized"
block_seconds = 0.25

[chains.BSC.assets.USDT]
contract = "0x55d398326f99059fF775485246999027B3197955"
base_decimals = 18
minor_decimals = 6

[chains.BASE]
chain_id = 8453
rpc_url_env = "BASE_RPC_URL"
finality = { depth = 6 }
block_seconds = 0.25

[chains.BASE.assets.USDC]
contract = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"
base_decimals = 6
minor_decimals = 2
"""
USDC = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"


class OtherAnvil(Anvil):
    """A node of another chain."""

    def command(self) -> Command:
        command = super().command()
        argv = ["--chain-id=8453" if str(word).startswith("--chain-id=") else word for word in command.argv]
        return Command(argv=argv, log=command.log, env=command.env)


async def test_a_claim_that_nobody_can_look_at_is_given_up(start_verifier, anvil, reason):
    """On a chain without an endpoint it waits until its time to give up, by our own clock, and no longer."""
    await anvil.mine(1)
    verifier = await start_verifier(anvil.url, chains=SECOND)
    claim = verifier.claim("0x" + "ab" * 32, anvil.accounts[1], chain="BASE", asset="USDC")
    assert "chain_unavailable" == reason(await verifier.verify(claim))
    claim.give_up_at.seconds = 1_000_000_000
    assert "given_up" == reason(await verifier.verify(claim))


async def test_a_second_asset_on_a_second_chain(start_verifier, anvil, tmp_path, reason):
    """USDC on Base, final by depth, is served because the configuration says so."""
    node = OtherAnvil(tmp_path / "base", free_port(), tmp_path / "base.log")
    async with running(node), DevChain.connect(node.url) as base:
        await anvil.mine(10)
        await base.rpc("anvil_setCode", USDC, await base.rpc("eth_getCode", await base.deploy("Emitter"), "latest"))
        payer, shop = base.accounts[:2]
        topics = [
            bytes.fromhex(TRANSFER_TOPIC[2:]),
            *(bytes.fromhex(each[2:].rjust(64, "0")) for each in (payer, shop)),
        ]
        tx = await base.call("Emitter", USDC, "emitLog", topics, (1_239_999).to_bytes(32, "big"), mine=True)
        verifier = await start_verifier(anvil.url, chains=SECOND, env={"BASE_RPC_URL": node.url})
        await base.mine(4)
        claim = verifier.claim(tx, shop, chain="BASE", asset="USDC")
        assert reason(await verifier.verify(claim)) == "chain_unavailable"  # head 6 − depth 6: no final block
        await base.mine()
        status = (await verifier.chains())["BASE"]
        assert (status.chain_id, status.available, status.error) == (8453, True, "")
        height = int((await base.receipt(tx))["blockNumber"], 16)
        while status.finalized_number < height:
            assert reason(await verifier.verify(claim)) == "not_final"
            await base.mine()
            status = (await verifier.chains())["BASE"]
        (transfer,) = (await verifier.hear(claim, "final")).final.transfers
        assert (transfer.chain_id, transfer.amount_base, transfer.amount_minor) == (8453, "1239999", 123)
        assert height + 6 == await base.head()
        with pytest.raises(Fault) as refused:
            await verifier.verify(verifier.claim(tx, shop, chain="BASE", asset="USDT"))
        assert refused.value.reason == "unknown_asset"
        assert reason(await verifier.verify(verifier.claim(tx, shop))) == "not_found"


async def test_a_chain_without_endpoint_is_not_served(start_verifier, anvil, reason):
    """It is listed, not available, and nothing waits on it; the others are served."""
    await anvil.mine(10)
    verifier = await start_verifier(anvil.url, chains=SECOND)
    status = (await verifier.chains())["BASE"]
    assert (status.available, status.waiting_count, status.error) == (False, 0, "BASE_RPC_URL is not set")
    with pytest.raises(Fault) as refused:
        await verifier.head("BASE")
    assert refused.value.kind.value == "UNAVAILABLE"
    other = verifier.claim("0x" + "11" * 32, anvil.accounts[0], chain="BASE", asset="USDC")
    here = verifier.claim("0x" + "11" * 32, anvil.accounts[0])
    assert [reason(each) for each in await verifier.batch([other, here])] == ["chain_unavailable", "not_found"]
    with pytest.raises(Fault) as unknown:
        await verifier.head("NOPE")
    assert unknown.value.reason == "unknown_chain"


async def test_a_wrong_chain_is_refused_at_start(start_verifier, tmp_path):
    """An endpoint that answers for another chain: the service does not start."""
    node = OtherAnvil(tmp_path / "base", free_port(), tmp_path / "base.log")
    async with running(node):
        with pytest.raises(WrongChain, match="answers for chain id 8453, not 56"):
            await start_verifier(node.url)


def environment(database, nats_url, chains_file, **more):
    """What a verifier of its own process needs."""
    return {
        **os.environ,
        "OSPAY_ENVIRONMENT": "local",
        "NATS_URL": nats_url,
        "OSPAY_CHAINS_FILE": str(chains_file),
        "VERIFIER_GRPC_LISTEN": f"127.0.0.1:{free_port()}",
        "VERIFIER_METRICS_LISTEN": f"127.0.0.1:{free_port()}",
        "VERIFIER_DATABASE_URL": database.url,
        "VERIFIER_GRPC_CALLERS": "orders=" + "v" * 40,
        **more,
    }


async def test_the_process_exits_on_a_wrong_chain_and_says_why(database, nats_url, tmp_path):
    """`python -m verifier` ends with status 1 and a line that names the chain and never the URL."""
    file = tmp_path / "chains.toml"
    file.write_text(SECOND)
    node = OtherAnvil(tmp_path / "base", free_port(), tmp_path / "base.log")
    async with running(node):
        env = environment(await database("verifier"), nats_url, file, BSC_RPC_URL=f"{node.url}/?key=very-secret")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "verifier", env=env, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert "the endpoint of BSC answers for chain id 8453, not 56" in errors.decode()
    assert "very-secret" not in errors.decode()


async def test_the_process_runs_and_stops(database, nats_url, anvil, tmp_path, until):
    """`python -m verifier` serves, shows its metrics, and stops on SIGTERM with status 0."""
    env = environment(await database("verifier"), nats_url, _repository_chains(), BSC_RPC_URL=anvil.url)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "verifier", env=env, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    async with asyncio.timeout(20):
        while b'"ready"' not in (line := await process.stderr.readline()):
            assert line, "it ended early"
    process.terminate()
    async with asyncio.timeout(10):
        await process.communicate()
    assert process.returncode == 0


def _repository_chains() -> Path:
    return Path(__file__).parents[3] / "config" / "chains.toml"


@pytest.mark.parametrize("url", ["", "ws://127.0.0.1:1", "127.0.0.1:8545", "file:///etc/passwd", "http://"])
def test_bad_or_no_endpoints_are_refused(bsc, url):
    """With no endpoint at all, or one that is no HTTP URL, the service does not start; the URL is not repeated."""
    with pytest.raises(ValueError, match="BSC_RPC_URL") as refused:
        endpoints(Registry({"BSC": bsc}), {"BSC_RPC_URL": url} if url else {})
    assert "127.0.0.1" not in str(refused.value)
