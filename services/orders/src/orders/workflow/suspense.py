"""What the operator does with money in suspense."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

from kit.database import Connection, Database
from kit.errors import Fault, Kind
from orders.domain import OPEN_STATES, Debt, Order, Page, SuspenseItem, SuspenseState, Tally, allocate, give_back
from orders.doorbell import Doorbell
from orders.store import orders as orders_store
from orders.store import refunds
from orders.store import suspense as store
from orders.store.payments import Contended
from orders.workflow import tally as money
from orders.workflow.orders import not_found


async def list_page(
    database: Database, merchant_id: str | None, state: SuspenseState | None, after: Page | None, limit: int
) -> tuple[list[SuspenseItem], bool]:
    """A page of items, newest first, and whether there are more; of all merchants where none is given."""
    async with database.connection() as connection:
        found = await store.list_page(connection, merchant_id, state, after, limit + 1)
    return found[:limit], len(found) > limit


async def waiting(database: Database) -> tuple[int, int]:
    """(open items, PAID orders of which the chain took back a payment): what the operator has to look at."""
    async with database.connection() as connection:
        return await store.count_open(connection), await orders_store.count_reversed(connection)


async def allocate_to(
    database: Database, doorbell: Doorbell, item_id: UUID, order_id: str, note: str, *, first_look: timedelta
) -> SuspenseItem:
    """Lets an item pay towards an order of its merchant. The same again changes nothing.

    Errors: Fault `suspense_not_found`, `order_not_found`, `suspense_resolved`, `order_not_payable`, `asset_mismatch`.
    """

    async def change(connection: Connection, item: SuspenseItem) -> list[Debt]:
        tally, item = await _open(connection, item, order_id)
        order = tally.orders.get((order_id, item.merchant_id))
        if order is None:
            raise not_found(order_id)
        if item.order_id == order_id and (item.is_held or item.state is SuspenseState.ALLOCATED):
            return []
        _check(item, order)
        allocate(tally, item, order.key)
        return await money.write(connection, tally, first_look, note=note)

    return await _change(database, doorbell, item_id, change)


async def give_back_to_payer(
    database: Database,
    doorbell: Doorbell,
    item_id: UUID,
    return_tx_hash: str | None,
    note: str,
    *,
    first_look: timedelta,
) -> SuspenseItem:
    """Notes that the merchant has sent an item back. The same again changes nothing; its transaction may come later.

    Errors: Fault `suspense_not_found`, `suspense_resolved`, `transaction_proves_refund`.
    """

    async def change(connection: Connection, item: SuspenseItem) -> list[Debt]:
        tally, item = await _open(connection, item, item.order_id)
        is_returned = item.state is SuspenseState.RETURNED
        if not is_returned:
            _refuse_resolved(item)
        if return_tx_hash:
            await _refuse_proof(connection, return_tx_hash)
        if is_returned:
            if return_tx_hash and not await store.name_return(connection, item.id, return_tx_hash, note):
                detail = "the item was returned by another transaction"
                raise Fault(Kind.CONFLICT, "suspense_resolved", detail, metadata={"state": item.state.value})
            return []
        give_back(tally, item)
        return await money.write(connection, tally, first_look, note=note, return_tx_hash=return_tx_hash)

    return await _change(database, doorbell, item_id, change)


async def _change(
    database: Database,
    doorbell: Doorbell,
    item_id: UUID,
    change: Callable[[Connection, SuspenseItem], Awaitable[list[Debt]]],
) -> SuspenseItem:
    """Does a change in one commit, rings for the ledger, and returns the item as it stands."""

    async def work() -> tuple[SuspenseItem, list[Debt]]:
        async with database.transaction() as connection:
            debts = await change(connection, await _find(connection, item_id))
            return await _find(connection, item_id), debts

    item, debts = await money.attempt(work)
    doorbell.ring(debts)
    return item


async def _find(connection: Connection, item_id: UUID) -> SuspenseItem:
    item = await store.find(connection, item_id)
    if item is None:
        raise Fault(Kind.NOT_FOUND, "suspense_not_found", f"there is no item {item_id} in suspense")
    return item


async def _open(connection: Connection, seen: SuspenseItem, order_id: str | None) -> tuple[Tally, SuspenseItem]:
    """What is known of an item's money, and the item, locked after its order and its merchant's order with this id."""
    keys = {(found, seen.merchant_id) for found in (seen.order_id, order_id) if found}
    orders = await orders_store.lock_many(connection, keys)
    item = await store.lock(connection, seen.id)
    if item.order_id != seen.order_id:
        raise Contended
    return await money.load(connection, orders, [item.arrival.transfer.tx_hash]), item


def _check(item: SuspenseItem, order: Order) -> None:
    _refuse_resolved(item)
    if order.state not in OPEN_STATES:
        detail = f"the order is {order.state.value}, only a PENDING or CONFIRMING one can be paid"
        raise Fault(Kind.CONFLICT, "order_not_payable", detail, metadata={"status": order.state.value})
    if (item.arrival.chain, item.arrival.asset) != (order.chain, order.asset):
        detail = f"the item is {item.arrival.asset} on {item.arrival.chain}, the order {order.asset} on {order.chain}"
        raise Fault(Kind.CONFLICT, "asset_mismatch", detail)


async def _refuse_proof(connection: Connection, tx_hash: str) -> None:
    await refunds.lock_transactions(connection, [tx_hash])
    if await refunds.is_proof(connection, tx_hash):
        raise Fault(Kind.CONFLICT, "transaction_proves_refund", f"{tx_hash} proves a refund: it did not return an item")


def _refuse_resolved(item: SuspenseItem) -> None:
    if not item.is_open:
        detail = f"the item is {item.state.value}, only an OPEN one can be decided on"
        raise Fault(Kind.CONFLICT, "suspense_resolved", detail, metadata={"state": item.state.value})
