"""The shop of the tests beside it."""

from __future__ import annotations

import pytest

from ospay.orders.v1 import orders_pb2
from services.orders.tests.conftest import Suite  # type: ignore[import-not-found]
from services.orders.tests.refund_proofs.shop import OTHER_WALLET, Shop  # type: ignore[import-not-found]


@pytest.fixture
async def shop(suite: Suite) -> Shop:
    """A paid order, and another merchant with a wallet of its own."""
    await suite.merchant()
    request = orders_pb2.CreateMerchantRequest(merchant_id="mrc_2", name="Other", merchant_wallet_address=OTHER_WALLET)
    await suite.peer.call(suite.merchants.CreateMerchant, request, timeout=5)
    made = Shop(suite)
    await made.sell("ord_1", 1)
    return made
