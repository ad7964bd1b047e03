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
# A shop's account as its wallet would show it: public, and its private key is nobody's.
XPUB = "xpub6C9qgSL6QZSBHGREEpbgDSmtNrJYQwx5h5fMYaNq7Ro2qxBa1qyiEPJFdbQ5sj6JwAFBbWqMEjdQWDbAaqGSeemTuvSY6fiEgF85gASginz"


class StoryFailed(Exception):
    """A step did not come out as it must."""


async def play(console: Console, environment: Mapping[str, str]) -> int:
    """The exit code: 0 only if every step held."""
    began = time.monotonic()
    console.rule("[bold]OSPay: the story of four orders")
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
    timeout = aiohttp.ClientTimeout(total=CALL_BOUND)
    async with (
        aiohttp.ClientSession(run["gateway_url"], timeout=timeout) as gateway,
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
        self._gateway = gateway
        self._chain = chain
        self._tell_of(run["merchant"])

    async def tell(self) -> None:
        await self._first_order_is_paid()
        await self._books_balance()
        await self._second_order_is_refunded()
        await self._first_order_settles()
        await self._orders_are_paid_with_no_claim()

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
        [refund] = await self._listed("/orders/ord_second/refunds", ["CONFIRMED"])
        self._check(refund["confirmed_at"] is not None, "its refund is CONFIRMED: the chain shows the shop's transfer")
        await self._check_reconciliation(merchant=25_000_000, unsettled=0)

    async def _orders_are_paid_with_no_claim(self) -> None:
        self._chapter("5 · Another shop: an address for each order, and nobody claims anything")
        await self._open_shop_with_xpub()
        whole, parts = await self._create("ord_whole", 8_000_000), await self._create("ord_parts", 12_000_000)
        self._check(whole["deposit_address"] != parts["deposit_address"], "each order has an address of its own")
        await self._send(whole, 8_000_000)
        await self._send(parts, 5_000_000)
        self._tell("nobody says so: the chain is watched")
        self._check((await self._watch("ord_whole", "PAID", PAID_BOUND))[-1] == "PAID", "ord_whole is PAID by itself")
        await self._check_payments("ord_whole", [("CREDITED", 8_000_000, "")])
        await self._check_payments("ord_parts", [("HELD", 5_000_000, "underpaid")])
        await self._check_reconciliation(merchant=8_000_000, suspense=5_000_000)
        await self._send(parts, 7_000_000)
        self._check((await self._watch("ord_parts", "PAID", PAID_BOUND))[-1] == "PAID", "with the rest it is PAID")
        await self._check_payments("ord_parts", [("CREDITED", 5_000_000, ""), ("CREDITED", 7_000_000, "")])
        await self._booked("ord_parts", events=4)
        await self._check_reconciliation(merchant=20_000_000)

    async def _open_shop_with_xpub(self) -> None:
        body = {"name": "Demo shop with an xpub", "xpub": XPUB}
        status, made = await self._post("/merchants", body, {"X-Admin-Key": self._run["admin_key"]})
        self._check(status == 201 and made["xpub"] == XPUB, "a shop is registered by the public key of its account")
        self._tell_of(made)

    async def _create(self, order_id: str, amount: int) -> dict[str, Any]:
        body = {"id": order_id, "merchant_id": self._shop["id"], "asset": "USDT", "amount_minor": amount}
        status, order = await self._post("/orders", body)
        self._check(status == 201 and order["status"] == "PENDING", f"{order_id} is created: {usdt(amount)}, PENDING")
        self._tell(f"to be paid to {order['deposit_address']}{_at(order['deposit_path'])}")
        status, again = await self._post("/orders", body)
        self._check(status == 200 and again["id"] == order_id, "asked again with the same id: the same order")
        return order

    async def _pay(self, order_id: str) -> list[str]:
        """Pays on chain and claims; the states that the order went through."""
        order = await self._order(order_id)
        tx_hash = await self._send(order, order["amount_minor"])
        status, answer = await self._post("/events/payment-detected", {"order_id": order_id, "tx_hash": tx_hash})
        self._check(status in (200, 202), f"the claim is taken: {status} {answer.get('status', '')}")
        return await self._watch(order_id, "PAID", PAID_BOUND)

    async def _send(self, order: Mapping[str, Any], amount: int) -> str:
        """The customer's transfer to the order's address; its hash."""
        customer = self._run["funded_accounts"][0]
        base_units = amount * 10 ** (DECIMALS - MINOR_DECIMALS)
        tx_hash = await self._chain.send_token(customer, order["deposit_address"], base_units)
        self._tell(f"{customer} sends {usdt(amount)} on chain: {tx_hash}")
        return tx_hash

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
            found[:] = await entries(self._run, self._shop["id"], order_id)
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

    async def _check_payments(self, order_id: str, wanted: list[tuple[str, int, str]]) -> None:
        """State, amount and reason of each transfer that reached the order's address."""
        found = await self._listed(f"/orders/{order_id}/payments", [state for state, _, _ in wanted])
        table = Table("payment of " + order_id, "amount", "credited", "why", box=None, padding=(0, 2))
        for each in found:
            table.add_row(each["state"], usdt(each["amount_minor"]), usdt(each["credited_minor"]), each["reason"])
        self._console.print(table)
        seen = [(each["state"], each["amount_minor"], each["reason"]) for each in found]
        self._check(seen == wanted, f"{order_id}: {', '.join(state for state, _, _ in wanted)}")

    async def _listed(self, path: str, states: list[str]) -> list[dict[str, Any]]:
        """What is at this path, once it is in these states."""
        found: list[dict[str, Any]] = []

        async def there() -> bool:
            found[:] = (await self._get(path))["data"]
            return [each["state"] for each in found] == states

        await until(there, f"{path} to show {', '.join(states)}", PAID_BOUND)
        return found

    async def _check_reconciliation(self, merchant: int, unsettled: int | None = None, suspense: int = 0) -> None:
        wanted = {
            "merchant_balance_minor": merchant,
            "clearing_balance_minor": -merchant,
            "suspense_balance_minor": suspense,
            "in_flight_count": 0,
        }
        answer: dict[str, Any] = {}

        async def agrees() -> bool:
            answer.update(await self._get(f"/reconciliation?merchant_id={self._shop['id']}&asset=USDT"))
            return bool(answer["in_flight_count"] == 0)

        await until(agrees, "the ledger to have confirmed everything")
        self._console.print_json(data=answer)
        balances = f"merchant {usdt(merchant)}, clearing {usdt(-merchant)}, in suspense {usdt(suspense)}"
        self._check(wanted.items() <= answer.items(), balances)
        if unsettled is not None:
            self._check(answer["unsettled_paid_count"] == unsettled, f"{unsettled} paid and not yet settled")

    async def _order(self, order_id: str) -> dict[str, Any]:
        return await self._get(f"/orders/{order_id}")

    async def _get(self, path: str) -> dict[str, Any]:
        async with self._gateway.get(path, headers=self._key) as response:
            if response.status != 200:
                raise StoryFailed(f"GET {path}: {response.status} {await response.text()}")
            found: dict[str, Any] = await response.json()
        return found

    async def _post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        async with self._gateway.post(path, json=body, headers=headers or self._key) as response:
            return response.status, await response.json(content_type=None)

    def _tell_of(self, shop: Mapping[str, Any]) -> None:
        """From now on this merchant speaks."""
        self._shop = shop
        self._key = {"X-API-Key": shop["api_key"]}

    def _chapter(self, title: str) -> None:
        self._console.print(f"\n[bold cyan]{title}[/]")

    def _tell(self, line: str) -> None:
        self._console.print(f"  {line}")

    def _check(self, held: bool, claim: str) -> None:
        if not held:
            raise StoryFailed(f"this does not hold: {claim}")
        self.checks += 1
        self._console.print(f"  [green]✔[/] {claim}")


def _at(path: str | None) -> str:
    return f" (path {path})" if path else ""


def usdt(minor: int) -> str:
    """For people: exact, whatever the size."""
    whole, rest = divmod(abs(minor), 10**MINOR_DECIMALS)
    cents = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if minor < 0 else ''}{whole}.{cents} USDT"
