"""Registration of merchants, by the operator."""

from __future__ import annotations

from gateway.downstream import MERCHANT_NAMES, Services, ask
from gateway.exchange import REPLAYED, Answer, Call, json_answer
from gateway.operation import Access, Operation, Success
from gateway.schemas.answers import Merchant
from gateway.schemas.fields import WALLET
from gateway.schemas.given import CreateMerchant
from ospay.orders.v1 import orders_pb2


async def create_merchant(services: Services, _call: Call, given: CreateMerchant) -> Answer:
    """Registers a merchant; the answer holds its key, this once."""
    request = orders_pb2.CreateMerchantRequest(
        merchant_id=given.id or "", name=given.name, merchant_wallet_address=given.merchant_wallet_address
    )
    response = await ask(services.orders_peer, services.merchants.CreateMerchant, request, names=MERCHANT_NAMES)
    body = Merchant(
        id=response.merchant.merchant_id,
        name=response.merchant.name,
        merchant_wallet_address=response.merchant.merchant_wallet_address,
        api_key=response.api_key or None,
    )
    return json_answer(201, body) if response.api_key else json_answer(200, body, REPLAYED)


_EXAMPLE = {"id": "mrc_abc", "name": "Coffee & Co", "merchant_wallet_address": WALLET}

OPERATIONS = (
    Operation(
        method="POST",
        path="/merchants",
        name="createMerchant",
        summary="Register a merchant and make its first API key",
        handler=create_merchant,
        access=Access.ADMIN,
        given=CreateMerchant,
        example=_EXAMPLE,
        success=(
            Success(201, "Registered; the key is shown this once.", Merchant, {**_EXAMPLE, "api_key": "ospay_…"}),
            Success(200, "Registered before.", Merchant, {**_EXAMPLE, "api_key": None}, replayed=True),
        ),
        errors=((409, "merchant_exists"),),
    ),
)
