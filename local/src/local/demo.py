"""`make demo`: one story of payments, told and checked step by step, on state that is thrown away."""

import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from local.books import Entry, entries
from local.devchain import DevChain
from local.places import remove
from local.process import PartFailed, until
from local.settings import Settings, SettingsError, read_settings
from local.suite import Suite
from local.token import DECIMALS

# What the user has set for `make run` must not reach the demo: it has a state and ports of its own.
OURS = ("OSPAY_", "ORDERS_", "VERIFIER_", "LEDGER_", "GATEWAY_", "BSC_", "NATS_")
SETTLEMENT_DELAY = 8  # seconds: long enough to refund an order before it settles
MINOR_DECIMALS = 6
CALL_BOUND = 15.0  # seconds
PAID_BOUND = 30.0
SETTLED_BOUND = 30.0


class StoryFailed(Exception):
    """A step did not come out as it must."""


async def play(console: Console, environment: Mapping[str, str]) -> int:
    """The exit code: 0 only if every step held."""
    began = time.monotonic()
    console.rule("[bold]OSPay: the story of two orders")
    try:
        async with _fresh_suite(console, environment) as run, _story(console, run) as story:
            await story.tell()
    except (StoryFailed, PartFailed, SettingsError) as failure:
        console.print(f"\n✘ {failure}", style="bold red", markup=False)
        return 1
    console.print(f"\n[bold green]All {story.checks} checks held[/] in {time.monotonic() - began:.0f} s.")
    return 0


@asynccontextmanager
async def _fresh_suite(console: Console, environment: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="ospay-demo-"))
    suite = Suite(_settings(folder / "data", environment), lambda line: console.print(f"  {line}", style="dim"))
    try:
        yield await suite.start()
    finally:
        await suite.stop()
        remove(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)


def _settings(data: Path, environment: Mapping[str, str]) -> Settings:
    others = {name: value for name, value in environment.items() if not name.startswith(OURS)}
    ports = {
        f"OSPAY_PORT_{part}": "0" for part in ("GATEWAY", "ORDERS", "VERIFIER", "LEDGER", "POSTGRES", "NATS", "ANVIL")
    }
    own = {"OSPAY_DATA_DIR": str(data), "ORDERS_SETTLEMENT_DELAY": str(SETTLEMENT_DELAY)}
    return read_settings(others | ports | own)


@asynccontextmanager
async def _story(console: Console, run: Mapping[str, Any]) -> AsyncIterator["Story"]:
    headers = {"X-API-Key": run["merchant"]["api_key"]}
    timeout = aiohttp.ClientTimeout(total=CALL_BOUND)
    async with (
        aiohttp.ClientSession(run["gateway_url"], headers=headers, timeout=timeout) as gateway,
        DevChain.connect(run["rpc_url"]) as chain,
    ):
        yield Story(console, run, gateway, chain)


class Story:
    """The steps, and what they need."""

    def __init__(
        self, console: Console, run: Mapping[str, Any], gateway: aiohttp.ClientSession, chain: DevChain
    ) -> None:
        self.checks = 0
        self._console = console
        self._run = run
        self._merchant = run["merchant"]["id"]
        self._gateway = gateway
        self._chain = chain

    async def tell(self) -> None:
        await self._first_order_is_paid()
        await self._books_balance()
        await self._second_order_is_refunded()
        await self._first_order_settles()

    async def _first_order_is_paid(self) -> None:
        self._chapter("1 · A customer buys for 25 USDT")
        await self._create("ord_first", 25_000_000)
        self._check(await self._pay("ord_first") == ["PENDING", "CONFIRMING", "PAID"], "PENDING → CONFIRMING → PAID")

    async def _books_balance(self) -> None:
        self._chapter("2 · The books")
        await self._booked("ord_first", events=1)
        await self._check_reconciliation(merchant=25_000_000, unsettled=1)

    async def _second_order_is_refunded(self) -> None:
        self._chapter("3 · Another order, 10 USDT, goes back to the customer")
        order = await self._create("ord_second", 10_000_000)
        self._check((await self._pay("ord_second"))[-1] == "PAID", "the second order is PAID")
        await self._refund(order)
        await self._booked("ord_second", events=2)

    async def _first_order_settles(self) -> None:
        self._chapter(f"4 · {SETTLEMENT_DELAY} s after it was paid, the first order settles")
        self._check((await self._watch("ord_first", "SETTLED", SETTLED_BOUND))[-1] == "SETTLED", "ord_first is SETTLED")
        refund = {"order_id": "ord_first", "refund_id": "ref_late", "reason": "changed their mind"}
        status, problem = await self._post("/orders/refund", refund)
        self._check((status, problem.get("code")) == (409, "order_not_refundable"), "a settled order is not refunded")
        self._check((await self._order("ord_second"))["status"] == "REFUNDED", "ord_second stays REFUNDED")
        await self._check_reconciliation(merchant=25_000_000, unsettled=0)

    async def _create(self, order_id: str, amount: int) -> dict[str, Any]:
        body = {"id": order_id, "merchant_id": self._merchant, "asset": "USDT", "amount_minor": amount}
        status, order = await self._post("/orders", body)
        self._check(status == 201 and order["status"] == "PENDING", f"{order_id} is created: {usdt(amount)}, PENDING")
        self._tell(f"to be paid to {order['deposit_address']}")
        status, again = await self._post("/orders", body)
        self._check(status == 200 and again["id"] == order_id, "asked again with the same id: the same order")
        return order

    async def _pay(self, order_id: str) -> list[str]:
        """Pays on chain and claims; the states that the order went through."""
        order = await self._order(order_id)
        customer = self._run["funded_accounts"][0]
        base_units = order["amount_minor"] * 10 ** (DECIMALS - MINOR_DECIMALS)
        tx_hash = await self._chain.send_token(customer, order["deposit_address"], base_units)
        self._tell(f"{customer} sends {usdt(order['amount_minor'])} on chain: {tx_hash}")
        status, answer = await self._post("/events/payment-detected", {"order_id": order_id, "tx_hash": tx_hash})
        self._check(status in (200, 202), f"the claim is taken: {status} {answer.get('status', '')}")
        return await self._watch(order_id, "PAID", PAID_BOUND)

    async def _watch(self, order_id: str, wanted: str, bound: float) -> list[str]:
        """The states seen until the wanted one, from PENDING on."""
        began = time.monotonic()
        seen: list[str] = []

        async def reached() -> bool:
            state = (await self._order(order_id))["status"]
            if not seen or state != seen[-1]:
                seen.append(state)
                head, final = await self._chain.head(), await self._chain.finalized()
                moment = f"{time.monotonic() - began:4.1f} s"
                self._tell(f"{moment}  {order_id} is [bold]{state}[/]  (block {head}, final up to {final})")
            return bool(state == wanted)

        await until(reached, f"{order_id} to be {wanted}", bound)
        return seen

    async def _refund(self, order: Mapping[str, Any]) -> None:
        wallet, customer = self._run["merchant"]["wallet"], self._run["funded_accounts"][0]
        base_units = order["amount_minor"] * 10 ** (DECIMALS - MINOR_DECIMALS)
        tx_hash = await self._chain.send_token(wallet, customer, base_units)
        self._tell(f"the shop sends it back from its own wallet: {tx_hash}")
        refund = {"order_id": order["id"], "refund_id": "ref_1", "reason": "out of stock", "tx_hash": tx_hash}
        status, answer = await self._post("/orders/refund", refund)
        self._check(status == 200 and answer["status"] == "REFUNDED", f"{order['id']} is REFUNDED")
        self._check((await self._post("/orders/refund", refund))[0] == 200, "told again: no second refund")

    async def _booked(self, order_id: str, events: int) -> None:
        """Two balanced entries for each event, as soon as the ledger has them."""
        found: list[Entry] = []

        async def booked() -> bool:
            found[:] = await entries(self._run, self._merchant, order_id)
            return len(found) >= 2 * events

        await until(booked, f"the ledger to book {order_id}")
        table = Table("entry", "bucket", "direction", "amount", "balance after", box=None, padding=(0, 2))
        for entry in found:
            row = (
                entry.event,
                entry.bucket,
                entry.direction,
                usdt(entry.amount_minor),
                usdt(entry.balance_after_minor),
            )
            table.add_row(*row)
        self._console.print(table)
        self._check(len(found) == 2 * events, f"{2 * events} entries for {order_id}")
        self._check(sum(entry.signed for entry in found) == 0, "they sum to zero")

    async def _check_reconciliation(self, merchant: int, unsettled: int) -> None:
        wanted = {
            "merchant_balance_minor": merchant,
            "clearing_balance_minor": -merchant,
            "unsettled_paid_count": unsettled,
            "in_flight_count": 0,
        }
        answer: dict[str, Any] = {}

        async def agrees() -> bool:
            async with self._gateway.get("/reconciliation", params=query) as response:
                answer.update(await response.json())
            return answer.get("in_flight_count") == 0

        query = {"merchant_id": self._merchant, "asset": "USDT"}
        await until(agrees, "the ledger to have confirmed everything")
        self._console.print_json(data=answer)
        self._check(wanted.items() <= answer.items(), f"merchant {usdt(merchant)}, clearing {usdt(-merchant)}")
        self._check(answer["unsettled_paid_count"] == unsettled, f"{unsettled} paid and not yet settled")

    async def _order(self, order_id: str) -> dict[str, Any]:
        async with self._gateway.get(f"/orders/{order_id}") as response:
            if response.status != 200:
                raise StoryFailed(f"GET /orders/{order_id}: {response.status} {await response.text()}")
            order: dict[str, Any] = await response.json()
        return order

    async def _post(self, path: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        async with self._gateway.post(path, json=body) as response:
            return response.status, await response.json(content_type=None)

    def _chapter(self, title: str) -> None:
        self._console.print(f"\n[bold cyan]{title}[/]")

    def _tell(self, line: str) -> None:
        self._console.print(f"  {line}")

    def _check(self, held: bool, claim: str) -> None:
        if not held:
            raise StoryFailed(f"this does not hold: {claim}")
        self.checks += 1
        self._console.print(f"  [green]✔[/] {claim}")


def usdt(minor: int) -> str:
    """For people: exact, whatever the size."""
    whole, rest = divmod(abs(minor), 10**MINOR_DECIMALS)
    cents = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if minor < 0 else ''}{whole}.{cents} USDT"
