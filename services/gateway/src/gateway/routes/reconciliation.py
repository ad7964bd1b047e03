"""The books beside the orders."""

from __future__ import annotations

import asyncio
import re

import msgspec

from gateway.downstream import Services, ask
from gateway.exchange import Answer, Call, json_answer
from gateway.operation import Access, Operation, Success
from gateway.routes.orders import refuse_other_merchant
from gateway.schemas.answers import Reconciliation
from gateway.schemas.given import ReconciliationQuery
from gateway.translation import time_of
from ospay.ledger.v1 import ledger_pb2
from ospay.orders.v1 import orders_pb2

_INTEGER = re.compile(r"0|-?[1-9][0-9]*")


async def reconcile(services: Services, call: Call, given: ReconciliationQuery) -> Answer:
    """Reads the balances and the counts at the same time."""
    refuse_other_merchant(call, given.merchant_id)
    merchant_id, asset = given.merchant_id, given.asset
    balances_request = ledger_pb2.GetBalancesRequest(merchant_id=merchant_id, asset=asset)
    counts_request = orders_pb2.GetOrderCountsRequest(merchant_id=merchant_id, asset=asset)
    balances, counts = await asyncio.gather(
        ask(services.ledger_peer, services.ledger.GetBalances, balances_request),
        ask(services.orders_peer, services.orders.GetOrderCounts, counts_request),
    )
    body = Reconciliation(
        merchant_id=given.merchant_id,
        asset=given.asset,
        merchant_balance_minor=_number(balances.merchant_balance_minor),
        clearing_balance_minor=_number(balances.clearing_balance_minor),
        # Empty from a ledger of the version before, which knows no suspense.
        suspense_balance_minor=_number(balances.suspense_balance_minor or "0"),
        unsettled_paid_count=counts.unsettled_paid_count,
        in_flight_count=counts.in_flight_count,
        as_of=time_of(balances.as_of),
    )
    return json_answer(200, body)


def _number(digits: str) -> msgspec.Raw:
    """The digits as a JSON number; a sum may pass what an encoder takes for an integer."""
    if not _INTEGER.fullmatch(digits):
        raise ValueError("the ledger's balance is no integer")
    return msgspec.Raw(digits.encode())


OPERATIONS = (
    Operation(
        method="GET",
        path="/reconciliation",
        name="reconcile",
        summary="Compare the books with the orders",
        handler=reconcile,
        access=Access.KEY,
        given=ReconciliationQuery,
        success=(
            Success(
                200,
                "Balances and counts.",
                Reconciliation,
                {
                    "merchant_id": "mrc_abc",
                    "asset": "USDT",
                    "merchant_balance_minor": 5_000_000,
                    "clearing_balance_minor": -5_000_000,
                    "suspense_balance_minor": 0,
                    "unsettled_paid_count": 1,
                    "in_flight_count": 0,
                    "as_of": "2026-01-31T12:00:00Z",
                },
            ),
        ),
        errors=((403, "wrong_merchant"),),
    ),
)
