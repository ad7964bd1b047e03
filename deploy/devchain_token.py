"""Puts the token on the dev chain and funds its accounts, once: `python deploy/devchain_token.py http://devchain:8545`."""

import asyncio
import sys

from local.devchain import DevChain


async def put_token(url: str) -> None:
    """Does nothing on a chain that has the token: a chain that was kept keeps its balances."""
    async with DevChain.connect(url) as chain:
        if not await chain.has_token():
            await chain.put_token()


if __name__ == "__main__":
    asyncio.run(put_token(sys.argv[1]))
