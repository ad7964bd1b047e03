"""Registration of merchants, by the operator."""

from __future__ import annotations

from gateway.downstream import MERCHANT_NAMES, Services, ask
from gateway.exchange import REPLAYED, Answer, Call, json_answer
from gateway.operation import Access, Operation, Success
from gateway.schemas.answers import Merchant
from gateway.schemas.fields import WALLET, XPUB
from gateway.schemas.given import CreateMerchant
from gateway.strict import refuse
from gateway.translation import POLICY_BY_NAME, merchant_of
from kit.errors import Violation
from ospay.orders.v1 import orders_pb2


async def create_merchant(services: Services, _call: Call, given: CreateMerchant) -> Answer:
    """Registers a merchant; the answer holds its key, this once."""
    _refuse_unless_one_place_to_pay(given)
    request = orders_pb2.CreateMerchantRequest(
        merchant_id=given.id or "",
        name=given.name,
        merchant_wallet_address=given.merchant_wallet_address or "",
        xpub=given.xpub or "",
        underpayment_tolerance_minor=given.underpayment_tolerance_minor or 0,
        surplus_policy=POLICY_BY_NAME[given.surplus_policy or "SUSPENSE"],
    )
    response = await ask(services.orders_peer, services.merchants.CreateMerchant, request, names=MERCHANT_NAMES)
    body = merchant_of(response.merchant, response.api_key)
    return json_answer(201, body) if response.api_key else json_answer(200, body, REPLAYED)


def _refuse_unless_one_place_to_pay(given: CreateMerchant) -> None:
    """Errors: INVALID."""
    if given.merchant_wallet_address is None and given.xpub is None:
        refuse([Violation("merchant_wallet_address", "is required where there is no xpub")])
    if given.merchant_wallet_address is not None and given.xpub is not None:
        refuse([Violation("xpub", "cannot be given beside merchant_wallet_address")])


_GIVEN = {"id": "mrc_abc", "name": "Coffee & Co", "merchant_wallet_address": WALLET}
_MERCHANT = {
    "id": "mrc_abc",
    "name": "Coffee & Co",
    "merchant_wallet_address": None,
    "xpub": XPUB,
    "underpayment_tolerance_minor": 0,
    "surplus_policy": "SUSPENSE",
    "api_key": "ospay_…",
}

OPERATIONS = (
    Operation(
        method="POST",
        path="/merchants",
        name="createMerchant",
        summary="Register a merchant and make its first API key",
        handler=create_merchant,
        access=Access.ADMIN,
        given=CreateMerchant,
        example=_GIVEN,
        success=(
            Success(201, "Registered; the key is shown this once.", Merchant, _MERCHANT),
            Success(200, "Registered before.", Merchant, {**_MERCHANT, "api_key": None}, replayed=True),
        ),
        errors=((409, "merchant_exists"),),
    ),
)
