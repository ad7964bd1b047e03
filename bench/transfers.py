"""Customers: many token transfers in few calls, on a chain that mines on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from local.devchain import ChainError, DevChain, encode_call

BASE_PER_MINOR = 10**12
CALLS = 100  # in one request
GAS = 60_000  # of a transfer; what it takes is 35 to 52 thousand
# Far above any fee that full blocks could drive it to: what is sent now may be mined much later.
MAX_FEE = 10**15
BLOCK_GAS = 30_000_000


class Payer:
    """One account that pays."""

    def __init__(self, chain: DevChain, session: aiohttp.ClientSession) -> None:
        self.chain = chain
        self._session = session
        self._account = chain.accounts[0]

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Payer]:
        """Connects to the node."""
        async with DevChain.connect(url) as chain, aiohttp.ClientSession() as session:
            yield cls(chain, session)

    async def send(self, transfers: Sequence[tuple[str, int]]) -> list[str]:
        """Transfers of minor units to recipients, not mined; the transactions' hashes."""
        first = int(await self.chain.rpc("eth_getTransactionCount", self._account, "pending"), 16)
        sent = [self._transaction(first + place, *transfer) for place, transfer in enumerate(transfers)]
        hashes: list[str] = []
        for start in range(0, len(sent), CALLS):
            hashes += await self._calls("eth_sendTransaction", sent[start : start + CALLS])
        return hashes

    async def mine(self) -> list[str]:
        """One block of what was sent; the hashes in it."""
        await self.chain.mine(1)
        block = await self.chain.rpc("eth_getBlockByNumber", "latest", False)
        return list(block["transactions"])

    async def mine_all(self, transfers: Sequence[tuple[str, int]], in_block: int) -> list[str]:
        """Sends transfers, `in_block` in each block, and makes them final; the hashes."""
        hashes: list[str] = []
        for start in range(0, len(transfers), in_block):
            hashes += await self.send(transfers[start : start + in_block])
            await self.chain.mine(1)
        await self.chain.finalize()
        return hashes

    async def limit_blocks(self, transfers: int | None) -> None:
        """How many transfers to one wallet fit in a block from here on; None for as many as at first."""
        gas = BLOCK_GAS if transfers is None else transfers * 35_000 + GAS
        await self.chain.rpc("evm_setBlockGasLimit", hex(gas))

    def _transaction(self, nonce: int, recipient: str, amount_minor: int) -> dict[str, str]:
        return {
            "from": self._account,
            "to": self.chain.token,
            "data": encode_call("Token", "transfer", recipient, amount_minor * BASE_PER_MINOR),
            "gas": hex(GAS),
            "nonce": hex(nonce),
            "maxFeePerGas": hex(MAX_FEE),
            "maxPriorityFeePerGas": "0x0",
        }

    async def _calls(self, method: str, parameters: Sequence[Any]) -> list[str]:
        batch = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": [each]}
            for number, each in enumerate(parameters)
        ]
        async with self._session.post(self.chain.url, json=batch) as response:
            answers = {answer["id"]: answer for answer in await response.json()}
        for answer in answers.values():
            if "error" in answer:
                raise ChainError(f"{method}: {answer['error']}")
        return [str(answers[number]["result"]) for number in range(len(batch))]
