"""A final payment on a real chain, and operators that show it: some as they should, some as a lie tells them."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from chains import Chain
from local.devchain import DevChain
from services.verifier.tests.malicious import Lie, MaliciousRpc, forged, malicious
from verifier import workflow
from verifier.domain import Claim, Final, Outcome, Rejected
from verifier.panel import Panel
from verifier.store import ProofStore

AMOUNT = 10**18
FAR = 4_000_000_000  # Unix time of a give-up that no test reaches by itself


@dataclass
class Scene:
    """The payment is `tx`, of one token to `shop`. Operators are honest until `lie` says otherwise."""

    anvil: DevChain
    store: ProofStore
    make_panel: Callable[..., Panel]
    stack: AsyncExitStack
    tx: str
    shop: str
    proxies: dict[str, MaliciousRpc] = field(default_factory=dict)

    async def panel(self, *names: str, quorum: int = 0, chain: Chain | None = None) -> Panel:
        """A panel of these operators, asked in this order; without a quorum the default one."""
        for name in names:
            self.proxies[name] = await self.stack.enter_async_context(malicious(self.anvil.url))
        urls: dict[str, Any] = {name: self.proxies[name].url for name in names}
        return self.make_panel(quorum=quorum, **({"chain": chain} if chain else {}), **urls)

    def lie(self, **lies: Lie | None) -> None:
        """From now on these operators lie so; None is the truth."""
        for name, lie in lies.items():
            self.proxies[name].lie = lie

    async def pay(self) -> None:
        """The payment is another one now: mined, not final."""
        self.tx = await self.anvil.send_token(self.anvil.accounts[0], self.shop, AMOUNT, mine=True)

    async def verify(self, panel: Panel, tx: str = "", give_up_at: int = FAR) -> Outcome:
        """What the panel makes of the payment, or of another transaction that is claimed to be one."""
        token, shop = self.anvil.token.lower(), self.shop.lower()
        claim = Claim("c", "BSC", "USDT", 56, token, tx or self.tx, shop, give_up_at)
        (outcome,) = await workflow.verify([claim], panel, self.store, asyncio.Semaphore(1))
        return outcome

    def is_true(self, outcome: Outcome) -> bool:
        """Whether it is final with exactly the payment that was made."""
        return isinstance(outcome, Final) and [AMOUNT] == [transfer.amount_base for transfer in outcome.transfers]

    async def credits(self, panel: Panel, bound: float = 15.0) -> None:
        """Waits until the payment is credited as it was made; anything else that is said for good is a failure."""
        deadline = time.monotonic() + bound
        while not self.is_true(outcome := await self.verify(panel)):
            assert not isinstance(outcome, Final | Rejected), outcome
            assert time.monotonic() < deadline, outcome
            await asyncio.sleep(0.05)

    async def forgery(self, tx: str) -> Lie:
        """A lie: the receipt of the real payment, in its real and final block, for a transaction that never was."""
        real = await self.anvil.receipt(self.tx)

        def receipt() -> dict[str, Any]:
            fake = copy.deepcopy(real)
            fake["transactionHash"] = tx
            for log in fake["logs"]:
                log["transactionHash"] = tx
            return fake

        return forged(receipt)
