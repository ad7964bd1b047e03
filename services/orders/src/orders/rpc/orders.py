"""OrderService."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc

from chains import Registry
from kit import telemetry
from kit.database import Database
from kit.errors import Fault
from kit.server import check, streamed
from kit.status import to_status
from orders.domain import NewOrder, Order, Page, SettlementBatch
from orders.doorbell import Doorbell
from orders.heights import Heights
from orders.rpc.convert import (
    STATES,
    bad_cursor,
    new_order,
    order_message,
    page_token,
    payment_message,
    read_page_token,
    state_number,
    unconfigured,
)
from orders.rpc.refunds import Refunds
from orders.verification import Verification
from orders.watching import Watching
from orders.workflow import orders as workflow
from orders.workflow import payments, settlement
from orders.workflow.claims import Asked
from ospay.orders.v1 import orders_pb2, orders_pb2_grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]  # generic in the stubs only

DEFAULT_PAGE_SIZE = 50


class OrderService(orders_pb2_grpc.OrderServiceServicer):
    """The rpcs of ospay.orders.v1.OrderService; what they promise stands in the contract."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        heights: Heights,
        doorbell: Doorbell,
        verification: Verification,
        watching: Watching,
        *,
        default_ttl: timedelta,
        watch_period: timedelta,
        first_look: timedelta,
    ) -> None:
        self._database = database
        self._registry = registry
        self._heights = heights
        self._verification = verification
        self._refunds = Refunds(database, registry, doorbell, verification, first_look)
        self._watching = watching
        self._watch_period = watch_period
        self._default_ttl = default_ttl
        self._first_look = first_look

    async def CreateOrder(self, request: orders_pb2.CreateOrderRequest, _: Context) -> orders_pb2.CreateOrderResponse:
        (result,) = await self._create([new_order(self._registry, request)])
        if isinstance(result, Fault):
            raise result
        return orders_pb2.CreateOrderResponse(
            order=order_message(self._registry, result.order), replayed=result.replayed
        )

    async def BatchCreateOrders(
        self, request: orders_pb2.BatchCreateOrdersRequest, _: Context
    ) -> orders_pb2.BatchCreateOrdersResponse:
        read = [self._read(item) for item in request.requests]
        created = iter(await self._create([item for item in read if isinstance(item, NewOrder)]))
        response = orders_pb2.BatchCreateOrdersResponse()
        for item in read:
            self._write_created(response.results.add(), item if isinstance(item, Fault) else next(created))
        return response

    StreamCreateOrders = streamed(BatchCreateOrders)

    def _read(self, request: orders_pb2.CreateOrderRequest) -> NewOrder | Fault:
        try:
            return new_order(self._registry, request)
        except Fault as fault:
            return fault

    async def _create(self, asked: list[NewOrder]) -> list[workflow.Created | Fault]:
        """A result for each. What is known is known, though its asset may not be configured any more."""
        refused = {place: why for place, item in enumerate(asked) if (why := unconfigured(self._registry, item))}
        made = iter(await self._make([item for place, item in enumerate(asked) if place not in refused]))
        known = await workflow.find_many(self._database, [asked[place].key for place in refused]) if refused else {}
        results: list[workflow.Created | Fault] = []
        for place, item in enumerate(asked):
            if place not in refused:
                results.append(next(made))
            elif order := known.get(item.key):
                results.append(workflow.replay(item, order))
            else:
                results.append(refused[place])
        return await self._with_confirming(results)

    async def _make(self, asked: list[NewOrder]) -> list[workflow.Created | Fault]:
        if not asked:
            return []
        return await workflow.create(
            self._database,
            self._heights,
            self._watching.ring,
            asked,
            default_ttl=self._default_ttl,
            watch_period=self._watch_period,
            first_look=self._first_look,
        )

    async def _with_confirming(self, results: list[workflow.Created | Fault]) -> list[workflow.Created | Fault]:
        """A replay may be of an order that waits for a transfer; a new one never does."""
        known = [item.order for item in results if isinstance(item, workflow.Created) and item.replayed]
        if not known:
            return results
        shown = {order.key: order for order in await self._shown(known)}
        return [
            replace(item, order=shown[item.order.key]) if isinstance(item, workflow.Created) and item.replayed else item
            for item in results
        ]

    def _write_created(self, into: orders_pb2.CreateOrderResult, result: workflow.Created | Fault) -> None:
        # In place: a message that another one is made of is serialized and parsed again, at each level anew. So it is
        # 0.9 of the CPU of orders for a create.
        if isinstance(result, Fault):
            into.error.CopyFrom(to_status(result))
        else:
            into.created.order.CopyFrom(order_message(self._registry, result.order))
            into.created.replayed = result.replayed

    async def GetOrder(self, request: orders_pb2.GetOrderRequest, _: Context) -> orders_pb2.GetOrderResponse:
        (order,) = await self._shown([await workflow.get(self._database, request.merchant_id, request.order_id)])
        return orders_pb2.GetOrderResponse(order=order_message(self._registry, order))

    async def BatchGetOrders(
        self, request: orders_pb2.BatchGetOrdersRequest, _: Context
    ) -> orders_pb2.BatchGetOrdersResponse:
        faults = [_violations(item) for item in request.requests]
        keys = [(item.order_id, item.merchant_id) for item in request.requests]
        good = [key for key, fault in zip(keys, faults, strict=True) if fault is None]
        found = await workflow.find_many(self._database, good) if good else {}
        found = {order.key: order for order in await self._shown(list(found.values()))}
        response = orders_pb2.BatchGetOrdersResponse()
        for key, fault in zip(keys, faults, strict=True):
            self._write_got(response.results.add(), fault or found.get(key) or workflow.not_found(key[0]))
        return response

    async def _shown(self, orders: Sequence[Order]) -> list[Order]:
        return await workflow.with_confirming(self._database, self._heights, orders)

    def _write_got(self, into: orders_pb2.GetOrderResult, result: Order | Fault) -> None:
        if isinstance(result, Fault):
            into.error.CopyFrom(to_status(result))
        else:
            into.order.CopyFrom(order_message(self._registry, result))

    StreamGetOrders = streamed(BatchGetOrders)

    async def ListOrders(self, request: orders_pb2.ListOrdersRequest, _: Context) -> orders_pb2.ListOrdersResponse:
        state = STATES[request.state] if request.HasField("state") else None
        after = read_page_token(request.page_token)
        limit = request.page_size or DEFAULT_PAGE_SIZE
        found, more = await workflow.list_page(self._database, request.merchant_id, state, after, limit)
        return orders_pb2.ListOrdersResponse(
            orders=[order_message(self._registry, order) for order in await self._shown(found)],
            next_page_token=page_token(Page(found[-1].created_at, found[-1].id)) if more else "",
        )

    async def ListPayments(
        self, request: orders_pb2.ListPaymentsRequest, _: Context
    ) -> orders_pb2.ListPaymentsResponse:
        found = await payments.list_of_order(self._database, request.merchant_id, request.order_id)
        return orders_pb2.ListPaymentsResponse(payments=[payment_message(listed) for listed in found])

    async def DetectPayment(
        self, request: orders_pb2.DetectPaymentRequest, _: Context
    ) -> orders_pb2.DetectPaymentResponse:
        (result,) = await self._detect([request])
        if isinstance(result, Fault):
            raise result
        return result

    async def BatchDetectPayments(
        self, request: orders_pb2.BatchDetectPaymentsRequest, _: Context
    ) -> orders_pb2.BatchDetectPaymentsResponse:
        faults = [_violations(item) for item in request.requests]
        good = [item for item, fault in zip(request.requests, faults, strict=True) if fault is None]
        detected = iter(await self._detect(good) if good else [])
        results = [_detect_result(fault or next(detected)) for fault in faults]
        return orders_pb2.BatchDetectPaymentsResponse(results=results)

    async def _detect(
        self, requests: Sequence[orders_pb2.DetectPaymentRequest]
    ) -> list[orders_pb2.DetectPaymentResponse | Fault]:
        parents = [item.traceparent or telemetry.traceparent() for item in requests]
        with telemetry.spans("detect payment", parents) as onward:
            asked = [
                Asked(
                    item.merchant_id or None,
                    item.order_id,
                    item.tx_hash.lower(),
                    onward.get(parent, parent),
                    item.by_merchant,
                )
                for item, parent in zip(requests, parents, strict=True)
            ]
            results = await self._verification.detect(asked)
        return [item if isinstance(item, Fault) else _detected_message(*item) for item in results]

    async def RefundOrder(self, request: orders_pb2.RefundOrderRequest, _: Context) -> orders_pb2.RefundOrderResponse:
        return await self._refunds.record(request)

    async def ListRefunds(self, request: orders_pb2.ListRefundsRequest, _: Context) -> orders_pb2.ListRefundsResponse:
        return await self._refunds.list_of(request)

    async def AttachRefundTransaction(
        self, request: orders_pb2.AttachRefundTransactionRequest, _: Context
    ) -> orders_pb2.AttachRefundTransactionResponse:
        return await self._refunds.attach(request)

    async def GetOrderCounts(
        self, request: orders_pb2.GetOrderCountsRequest, _: Context
    ) -> orders_pb2.GetOrderCountsResponse:
        unsettled, in_flight = await workflow.counts(self._database, request.merchant_id, request.asset)
        return orders_pb2.GetOrderCountsResponse(unsettled_paid_count=unsettled, in_flight_count=in_flight)

    async def ListSettlementBatches(
        self, request: orders_pb2.ListSettlementBatchesRequest, _: Context
    ) -> orders_pb2.ListSettlementBatchesResponse:
        try:
            after = UUID(request.page_token) if request.page_token else None
        except ValueError:
            raise bad_cursor() from None
        limit = request.page_size or DEFAULT_PAGE_SIZE
        found, more = await settlement.list_page(self._database, request.merchant_id, after, limit)
        return orders_pb2.ListSettlementBatchesResponse(
            settlement_batches=[_batch_message(batch) for batch in found],
            next_page_token=str(found[-1].id) if more else "",
        )

    async def GetTotals(self, _request: orders_pb2.GetTotalsRequest, _: Context) -> orders_pb2.GetTotalsResponse:
        totals = await workflow.totals(self._database)
        return orders_pb2.GetTotalsResponse(
            orders_created_total=totals["orders_created"],
            refunds_processed_total=totals["refunds_processed"],
            payments_detected_total=totals["payments_detected"],
        )


def _violations(request: orders_pb2.GetOrderRequest | orders_pb2.DetectPaymentRequest) -> Fault | None:
    try:
        check(request)
    except Fault as fault:
        return fault
    return None


def _detected_message(order: Order, queued: bool) -> orders_pb2.DetectPaymentResponse:
    return orders_pb2.DetectPaymentResponse(order_id=order.id, state=state_number(order.state), queued=queued)


def _detect_result(result: orders_pb2.DetectPaymentResponse | Fault) -> orders_pb2.DetectPaymentResult:
    if isinstance(result, Fault):
        return orders_pb2.DetectPaymentResult(error=to_status(result))
    return orders_pb2.DetectPaymentResult(detected=result)


def _batch_message(batch: SettlementBatch) -> orders_pb2.SettlementBatch:
    message = orders_pb2.SettlementBatch(
        settlement_batch_id=str(batch.id),
        merchant_id=batch.merchant_id,
        asset=batch.asset,
        order_count=batch.order_count,
        total_minor=str(batch.total_minor),
    )
    message.created_at.FromDatetime(batch.created_at)
    return message
