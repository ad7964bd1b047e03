"""The dev chain: the token, finality, tricks for tests, and that it survives restarts."""

import asyncio
from contextlib import suppress

import pytest

from local.anvil import CHAIN_ID, Anvil
from local.devchain import ChainError, DevChain
from local.ports import free_port
from local.process import running, until
from local.token import FUNDS, TOKEN_ADDRESS

TRANSFER = bytes.fromhex("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef")


async def test_it_is_bsc_with_the_token_at_its_real_address(anvil):
    assert int(await anvil.rpc("eth_chainId"), 16) == CHAIN_ID
    sender, recipient, *_ = anvil.accounts
    assert len(anvil.accounts) == 10
    assert await anvil.balance(sender) == FUNDS
    tx = await anvil.send_token(sender, recipient, 5 * 10**18, mine=True)
    (log,) = (await anvil.receipt(tx))["logs"]
    assert log["address"].lower() == TOKEN_ADDRESS.lower()
    assert bytes.fromhex(log["topics"][0][2:]) == TRANSFER
    assert len(log["topics"]) == 3
    assert int(log["data"], 16) == 5 * 10**18
    assert await anvil.balance(recipient) == FUNDS + 5 * 10**18


async def test_it_mines_only_when_told_and_finality_follows(anvil):
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 1)
    assert await anvil.rpc("eth_getTransactionReceipt", tx) is None
    await anvil.finalize()
    assert await anvil.finalized() == int((await anvil.receipt(tx))["blockNumber"], 16)


async def test_several_transfers_in_one_transaction_and_none(anvil):
    batch = await anvil.deploy("Batch")
    await anvil.send_token(anvil.accounts[0], batch, 10, mine=True)
    to, values = anvil.accounts[2:4], [3, 4]
    paid = await anvil.receipt(await anvil.call("Batch", batch, "pay", anvil.token, to, values, mine=True))
    assert [int(log["data"], 16) for log in paid["logs"]] == values
    undone = await anvil.call("Batch", batch, "payAndRevert", anvil.token, to[:1], [1], mine=True)
    receipt = await anvil.receipt(undone)
    assert receipt["status"] == "0x0"
    assert receipt["logs"] == []


@pytest.mark.parametrize("count", range(5))
async def test_a_log_with_any_topics_and_data(anvil, count):
    emitter = await anvil.deploy("Emitter")
    topics, data = [bytes([n]) * 32 for n in range(count)], b"any data"
    tx = await anvil.call("Emitter", emitter, "emitLog", topics, data, mine=True)
    (log,) = (await anvil.receipt(tx))["logs"]
    assert log["topics"] == ["0x" + topic.hex() for topic in topics]
    assert bytes.fromhex(log["data"][2:]) == data


async def test_a_reorganisation_drops_a_transaction(anvil):
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], 1, mine=True)
    block = (await anvil.receipt(tx))["blockHash"]
    await anvil.mine(2)
    await anvil.rpc("anvil_reorg", 3, [])
    assert await anvil.rpc("eth_getTransactionReceipt", tx) is None
    assert await anvil.rpc("eth_getBlockByHash", block, False) is None


async def test_an_error_answer_is_an_error(anvil):
    with pytest.raises(ChainError, match="eth_nothing"):
        await anvil.rpc("eth_nothing")


@pytest.mark.parametrize("killed", [False, True])
async def test_the_chain_survives(tmp_path, killed):
    node = Anvil(tmp_path, free_port(), tmp_path / "anvil.log")
    state = tmp_path / "chain.json"
    async with running(node) as process, DevChain.connect(node.url) as chain:
        sender, recipient, *_ = chain.accounts
        tx = await chain.send_token(sender, recipient, 7, mine=True)
        receipt = await chain.receipt(tx)
        filter_logs = {"fromBlock": "0x0", "toBlock": "latest", "address": TOKEN_ADDRESS}
        logs = await chain.rpc("eth_getLogs", filter_logs)
        if killed:
            await _saved(node, state)
            process.kill()
            await process.wait()
    async with running(node), DevChain.connect(node.url) as chain:
        assert await chain.rpc("eth_getTransactionReceipt", tx) == receipt
        assert await chain.rpc("eth_getLogs", filter_logs) == logs
        assert await chain.balance(recipient) == FUNDS + 7
        again = await chain.send_token(sender, recipient, 7, mine=True)
        assert int((await chain.receipt(again))["blockNumber"], 16) == int(receipt["blockNumber"], 16) + 1


async def _saved(node, state):
    saving = asyncio.create_task(node.keep_saving())

    async def written():
        return state.exists()

    await until(written, "the chain to be saved")
    saving.cancel()
    with suppress(asyncio.CancelledError):
        await saving


async def test_it_mines_by_itself_when_asked(tmp_path):
    node = Anvil(tmp_path, free_port(), tmp_path / "anvil.log", block_time=0.2)
    async with running(node), DevChain.connect(node.url) as chain:

        async def finality():
            return await chain.finalized() > 0

        await until(finality, "finality")
