"""A client of the dev chain: what tests and the demo do on it."""

import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp

from local.process import until
from local.token import FUNDS, SUPPLY_SLOT, TOKEN_ADDRESS, balance_slot, contract, word

FINALITY_DEPTH = 4  # anvil: finalized = head − 2 epochs, and an epoch is 2 slots here
CALL_BOUND = 30.0  # seconds; writing out a long chain is the slow one
GAS = 1_000_000  # set by hand: to estimate the gas of a call that reverts is an error


class ChainError(Exception):
    """The node's answer was an error."""


class DevChain:
    """JSON-RPC to one node. The accounts are unlocked: the node signs."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.token = TOKEN_ADDRESS
        self.accounts: list[str] = []
        self._session = session
        self._ids = itertools.count(1)

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator[Self]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_BOUND)) as session:
            chain = cls(url, session)
            chain.accounts = await chain.rpc("eth_accounts")
            yield chain

    async def rpc(self, method: str, *params: Any) -> Any:
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        async with self._session.post(self.url, json=request) as response:
            answer = await response.json()
        if "error" in answer:
            raise ChainError(f"{method}: {answer['error']}")
        return answer["result"]

    async def put_token(self) -> None:
        """Puts the token at the real address and funds the node's accounts; needs no block."""
        await self.rpc("anvil_setCode", TOKEN_ADDRESS, contract("Token").runtime)
        for account in self.accounts:
            await self.rpc("anvil_setStorageAt", TOKEN_ADDRESS, balance_slot(account), word(FUNDS))
        await self.rpc("anvil_setStorageAt", TOKEN_ADDRESS, word(SUPPLY_SLOT), word(FUNDS * len(self.accounts)))

    async def has_token(self) -> bool:
        return bool(await self.rpc("eth_getCode", TOKEN_ADDRESS, "latest") != "0x")

    async def head(self) -> int:
        return int(await self.rpc("eth_blockNumber"), 16)

    async def finalized(self) -> int:
        return int((await self.rpc("eth_getBlockByNumber", "finalized", False))["number"], 16)

    async def mine(self, blocks: int = 1) -> None:
        await self.rpc("anvil_mine", hex(blocks))

    async def finalize(self) -> None:
        """Mines what is pending and then so far that it is final."""
        await self.mine(1 + FINALITY_DEPTH)

    async def reorganise(self, depth: int) -> None:
        """Replaces the newest blocks by as many empty ones; time goes on."""
        await self.rpc("anvil_reorg", depth, [])
        # anvil's clock goes back with its blocks and stays there: whoever compares it with his own would see it lag.
        behind = int(time.time()) - int((await self.rpc("eth_getBlockByNumber", "latest", False))["timestamp"], 16)
        if behind > 0:
            await self.rpc("evm_increaseTime", behind)

    async def balance(self, owner: str) -> int:
        """In base units of the token."""
        call = {"to": TOKEN_ADDRESS, "data": encode_call("Token", "balanceOf", owner)}
        return int(await self.rpc("eth_call", call, "latest"), 16)

    async def send_token(self, sender: str, to: str, base_units: int, mine: bool = False) -> str:
        """A transfer of the token; its transaction's hash. Not mined unless asked or the node mines by itself."""
        return await self.call("Token", TOKEN_ADDRESS, "transfer", to, base_units, sender=sender, mine=mine)

    async def call(
        self, name: str, address: str, function: str, *arguments: Any, sender: str | None = None, mine: bool = False
    ) -> str:
        """A transaction that calls a contract's function; its hash."""
        data = encode_call(name, function, *arguments)
        return await self._send({"from": sender or self.accounts[0], "to": address, "data": data}, mine)

    async def deploy(self, name: str) -> str:
        """A contract of `contracts/`, mined at once; its address."""
        transaction = {"from": self.accounts[0], "data": contract(name).bytecode}
        receipt = await self.receipt(await self._send(transaction, mine=True))
        return str(receipt["contractAddress"])

    async def receipt(self, tx_hash: str) -> dict[str, Any]:
        """Of a transaction that is mined or will be by the node itself."""
        found: dict[str, Any] = {}

        async def mined() -> bool:
            found.update(await self.rpc("eth_getTransactionReceipt", tx_hash) or {})
            return bool(found)

        await until(mined, f"transaction {tx_hash} to be mined")
        return found

    async def _send(self, transaction: dict[str, Any], mine: bool) -> str:
        tx_hash = await self.rpc("eth_sendTransaction", {"gas": hex(GAS), **transaction})
        if mine:
            await self.mine()
        return str(tx_hash)


def encode_call(name: str, function: str, *arguments: Any) -> str:
    """Call data for a contract of `contracts/`."""
    # Here because these take a quarter of a second to import, and a restart of the suite encodes nothing.
    from eth_abi.abi import encode
    from eth_utils.abi import function_abi_to_4byte_selector, get_abi_input_types

    abi: Any = next(entry for entry in contract(name).abi if entry.get("name") == function)
    types: Sequence[str] = get_abi_input_types(abi)
    return "0x" + (function_abi_to_4byte_selector(abi) + encode(types, arguments)).hex()
