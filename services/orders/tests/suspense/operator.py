"""The operator, who decides on what is in suspense."""

from __future__ import annotations

from typing import Any

import pytest

from kit.errors import Fault
from ospay.orders.v1 import orders_pb2, orders_pb2_grpc
from services.orders.tests.desk import Desk  # type: ignore[import-not-found]


class Operator(Desk):
    """The operator, who sees suspense of all merchants."""

    async def call(self, method: str, request: object) -> Any:
        stub = orders_pb2_grpc.SuspenseServiceStub(self.suite.peer.channel)
        return await self.suite.peer.call(getattr(stub, method), request, timeout=5)

    async def items(self, **fields: object) -> list[orders_pb2.SuspenseItem]:
        return list((await self.call("ListSuspense", orders_pb2.ListSuspenseRequest(**fields))).items)  # type: ignore[arg-type]

    async def allocate(self, item: str, order_id: str = "ord_1", note: str = "") -> orders_pb2.SuspenseItem:
        request = orders_pb2.AllocateSuspenseRequest(suspense_id=item, order_id=order_id, note=note)
        return (await self.call("AllocateSuspense", request)).item

    async def give_back(self, item: str, **fields: object) -> orders_pb2.SuspenseItem:
        request = orders_pb2.ReturnSuspenseRequest(suspense_id=item, **fields)  # type: ignore[arg-type]
        return (await self.call("ReturnSuspense", request)).item


async def refused(call: Any) -> str:
    with pytest.raises(Fault) as caught:
        await call
    return caught.value.reason


async def address(desk: Operator, order_id: str, **fields: object) -> str:
    created = await desk.suite.create(order_id, merchant_id="mrc_2", **fields)
    return str(created.order.deposit_address)
