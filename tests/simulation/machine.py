"""One life: what customers, strangers, miners and the weather do to the suite, in any order."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from typing import ClassVar

from bip32 import BIP32
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chains import checksum_address
from local.devchain import FINALITY_DEPTH
from tests.simulation.lies import LIES
from tests.simulation.model import Key, Moved, Said, Sold, unfinished, wrongs
from tests.simulation.world import OPERATORS, World
from verifier.watch.scanner import SWEEP_BEHIND_BLOCKS

CONVERGE_SECONDS = 30.0
CHECK_EVERY = 5
FIVE = 5_000_000
amounts = st.sampled_from([FIVE, FIVE, 2 * FIVE, 7])  # few, so that wallets meet the same amount often
ACTIONS = [*["pay"] * 6, *["mine"] * 6, *["sell"] * 3, *["claim"] * 3, "reorganise", "change_weather", "kill"]


class Life(RuleBasedStateMachine):
    """Rules are sync: hypothesis calls them; the world runs elsewhere."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.sold: dict[str, Sold] = {}
        self.sent: list[str] = []
        self.steps = 0
        world = self.world
        self.since = world.do(world.chain.head()) + 1
        wallet = checksum_address("0x" + secrets.token_hex(20))
        xpub = BIP32.from_seed(secrets.token_bytes(32)).get_xpub_from_path("m/44'/60'/0'")
        self.merchants = {
            False: world.do(world.register(merchant_wallet_address=wallet)),
            True: world.do(world.register(xpub=xpub)),
        }

    @initialize()
    def begin(self) -> None:
        """A block between lives: orders of this one are younger than all that came before."""
        self.world.do(self.world.chain.mine(1))

    # One rule for all: hypothesis would leave whole rules out of a life, and a life needs all of them.
    @rule(action=st.sampled_from(ACTIONS), data=st.data())
    def live(self, action: str, data: st.DataObject) -> None:
        """Something happens."""
        getattr(self, action if self.sold else "sell")(data)

    def sell(self, data: st.DataObject) -> None:
        """A merchant makes an order."""
        own_address, amount = data.draw(st.booleans()), data.draw(amounts)
        order = self.world.do(self.world.sell(*self.merchants[own_address], amount, own_address=own_address))
        self.sold[order.id] = order

    def pay(self, data: st.DataObject) -> None:
        """A customer sends something to the address of some order."""
        order = self._some_order(data)
        whole = order.amount_minor
        shares = {"exact": whole, "half": whole // 2 + 1, "more": whole + 3, "nothing": 0}
        share = data.draw(st.sampled_from(["exact", "exact", *shares]))
        sender = self.world.chain.accounts[data.draw(st.integers(0, 9))]
        self.sent.append(self.world.do(self.world.pay(sender, order.address, shares[share])))

    def claim(self, data: st.DataObject) -> None:
        """Somebody claims some transaction for some order, rightly or wrongly."""
        if not self.sent:
            return
        order = self._some_order(data)
        tx_hash = data.draw(st.sampled_from(self.sent))
        if self.world.do(self.world.claim(order, tx_hash)):
            order.claims.add(tx_hash)

    def mine(self, data: st.DataObject) -> None:
        """The chain goes on."""
        self.world.do(self.world.chain.mine(data.draw(st.integers(1, 3))))

    def reorganise(self, data: st.DataObject) -> None:
        """The newest blocks, none of them final, are replaced; what they held waits again or is lost."""
        depth, drop = data.draw(st.integers(1, FINALITY_DEPTH - 1)), data.draw(st.booleans())
        self.world.do(self._reorganise(depth, drop))

    def change_weather(self, data: st.DataObject) -> None:
        """One operator at a time fails or lies, or none."""
        operator, lie = data.draw(st.sampled_from(OPERATORS)), data.draw(st.sampled_from(["", *sorted(LIES)]))
        self._heal()
        self.world.lie(operator, LIES.get(lie))

    def kill(self, data: st.DataObject) -> None:
        """kill -9 of a service, now and then, if it runs at this moment."""
        part = data.draw(st.sampled_from(["orders", "verifier", "ledger"]))
        if data.draw(st.integers(0, 9)) == 0 and self.world.suite.run["pids"].get(part):
            self.world.suite.kill(part)

    @invariant()
    def nothing_is_wrong(self) -> None:
        """Safety, looked at every few steps."""
        self.steps += 1
        if self.steps % CHECK_EVERY == 0:
            assert self.world.do(self._wrongs()) == []

    def teardown(self) -> None:
        """Liveness: without faults, and with the chain going on, all comes to its end and the books agree."""
        self._heal()
        self.world.do(self._converge())

    def _some_order(self, data: st.DataObject) -> Sold:
        return self.sold[data.draw(st.sampled_from(sorted(self.sold)))]

    def _heal(self) -> None:
        for operator in OPERATORS:
            self.world.lie(operator, None)

    async def _reorganise(self, depth: int, drop: bool) -> None:
        chain = self.world.chain
        depth = min(depth, await chain.head() - await chain.finalized() - 1, await chain.head() - self.since)
        if depth < 1:
            return
        await chain.reorganise(depth)
        if drop:
            await chain.rpc("anvil_dropAllTransactions")

    async def _wrongs(self) -> list[str]:
        said = await self.world.said([merchant for merchant, _ in self.merchants.values()])
        return wrongs(self.sold, await self._final(), said)

    async def _final(self) -> dict[Key, Moved]:
        addresses = sorted({order.address for order in self.sold.values()})
        return await self.world.final(self.since, addresses)

    async def _converge(self) -> None:
        await self.world.chain.finalize()
        # What one operator left out is found by the second look, which comes so many blocks later.
        await self.world.chain.mine(SWEEP_BEHIND_BLOCKS)
        deadline = time.monotonic() + CONVERGE_SECONDS
        while problems := await self._problems():
            assert time.monotonic() < deadline, problems
            await asyncio.sleep(0.1)

    async def _problems(self) -> list[str]:
        final = await self._final()
        said = await self.world.said([merchant for merchant, _ in self.merchants.values()])
        problems = wrongs(self.sold, final, said) + unfinished(self.sold, final, said)
        return problems + await self._books(said)

    async def _books(self, said: Said) -> list[str]:
        credited: Counter[str] = Counter()
        held: Counter[str] = Counter()
        for credit in said.credits:
            credited[self.sold[credit.order].merchant] += credit.amount_minor
        for item in said.held:
            held[item.merchant] += item.amount_minor
        problems = []
        for merchant, key in self.merchants.values():
            books = await self.world.books(merchant, key)
            shown = (books["merchant_balance_minor"], books["suspense_balance_minor"], books["in_flight_count"])
            if shown != (credited[merchant], held[merchant], 0):
                problems.append(f"the books of {merchant} say {shown}, not {(credited[merchant], held[merchant], 0)}")
        return problems
