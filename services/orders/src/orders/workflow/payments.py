"""The transfers that reached an order's address."""

from __future__ import annotations

from kit.database import Database
from orders.domain import Listed, list_transfers
from orders.store import found, payments, suspense
from orders.store import orders as store
from orders.workflow.orders import not_found

LIMIT = 1000


async def list_of_order(database: Database, merchant_id: str, order_id: str) -> list[Listed]:
    """At most 1000 of them, by block and log. Errors: Fault `order_not_found`."""
    key = (order_id, merchant_id)
    # Of one moment: between two looks a transfer would be final, and what was decided on it not there yet.
    async with database.snapshot() as connection:
        order = await store.find(connection, merchant_id, order_id)
        if order is None:
            raise not_found(order_id)
        paid = await payments.of_order(connection, key, LIMIT)
        items = await suspense.of_order(connection, key, LIMIT)
        sightings = await found.of_order(connection, key, LIMIT)
    return list_transfers(order.asset, paid, items, sightings)[:LIMIT]
