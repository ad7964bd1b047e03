"""SuspenseService."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc

from kit.database import Database
from orders.domain import Page, SuspenseItem, SuspenseState
from orders.doorbell import Doorbell
from orders.rpc.convert import bad_cursor, page_token, read_page_token
from orders.workflow import suspense as workflow
from ospay.orders.v1 import orders_pb2, orders_pb2_grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]  # generic in the stubs only

DEFAULT_PAGE_SIZE = 50

_STATES = {state: orders_pb2.SuspenseState.Value(f"SUSPENSE_STATE_{state.value}") for state in SuspenseState}
STATES = {number: state for state, number in _STATES.items()}


class SuspenseService(orders_pb2_grpc.SuspenseServiceServicer):
    """The rpcs of ospay.orders.v1.SuspenseService; what they promise stands in the contract."""

    def __init__(self, database: Database, doorbell: Doorbell, *, first_look: timedelta) -> None:
        self._database = database
        self._doorbell = doorbell
        self._first_look = first_look

    async def ListSuspense(
        self, request: orders_pb2.ListSuspenseRequest, _: Context
    ) -> orders_pb2.ListSuspenseResponse:
        found, more = await workflow.list_page(
            self._database,
            request.merchant_id or None,
            STATES.get(request.state),
            _read_token(request.page_token),
            request.page_size or DEFAULT_PAGE_SIZE,
        )
        return orders_pb2.ListSuspenseResponse(
            items=[_item_message(item) for item in found], next_page_token=_token(found[-1]) if more else ""
        )

    async def AllocateSuspense(
        self, request: orders_pb2.AllocateSuspenseRequest, _: Context
    ) -> orders_pb2.AllocateSuspenseResponse:
        item = await workflow.allocate_to(
            self._database,
            self._doorbell,
            UUID(request.suspense_id),
            request.order_id,
            request.note,
            first_look=self._first_look,
        )
        return orders_pb2.AllocateSuspenseResponse(item=_item_message(item))

    async def ReturnSuspense(
        self, request: orders_pb2.ReturnSuspenseRequest, _: Context
    ) -> orders_pb2.ReturnSuspenseResponse:
        item = await workflow.give_back_to_payer(
            self._database,
            self._doorbell,
            UUID(request.suspense_id),
            request.tx_hash.lower() if request.HasField("tx_hash") else None,
            request.note,
            first_look=self._first_look,
        )
        return orders_pb2.ReturnSuspenseResponse(item=_item_message(item))


def _token(item: SuspenseItem) -> str:
    assert item.created_at is not None, "it was read from the database"
    return page_token(Page(item.created_at, str(item.id)))


def _read_token(token: str) -> Page | None:
    page = read_page_token(token)
    try:
        return page and Page(page.created_at, str(UUID(page.id)))
    except ValueError:
        raise bad_cursor() from None


def _item_message(item: SuspenseItem) -> orders_pb2.SuspenseItem:
    transfer = item.arrival.transfer
    message = orders_pb2.SuspenseItem(
        suspense_id=str(item.id),
        merchant_id=item.merchant_id,
        order_id=item.order_id or "",
        chain=item.arrival.chain,
        asset=item.arrival.asset,
        amount_minor=item.amount_minor,
        reason=item.reason,
        state=_STATES[item.state],
        tx_hash=transfer.tx_hash,
        log_index=transfer.log_index,
        block_number=transfer.block_number,
        sender=transfer.sender,
        recipient=item.arrival.recipient,
        note=item.note,
    )
    if item.created_at:
        message.created_at.FromDatetime(item.created_at)
    if item.resolved_at:
        message.resolved_at.FromDatetime(item.resolved_at)
    return message
