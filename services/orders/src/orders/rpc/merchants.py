"""MerchantService."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc

from chains import Registry
from kit.database import Database
from orders.domain import ApiKey, Merchant
from orders.keys import KeyHasher
from orders.rpc.convert import new_merchant
from orders.watching import Watching
from orders.workflow import merchants as workflow
from ospay.orders.v1 import orders_pb2, orders_pb2_grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]  # generic in the stubs only


class MerchantService(orders_pb2_grpc.MerchantServiceServicer):
    """The rpcs of ospay.orders.v1.MerchantService; what they promise stands in the contract."""

    def __init__(
        self, database: Database, registry: Registry, hasher: KeyHasher, watching: Watching, *, first_look: timedelta
    ) -> None:
        self._database = database
        self._registry = registry
        self._hasher = hasher
        self._watching = watching
        self._first_look = first_look

    async def CreateMerchant(
        self, request: orders_pb2.CreateMerchantRequest, _: Context
    ) -> orders_pb2.CreateMerchantResponse:
        merchant, key = await workflow.create(
            self._database,
            self._hasher,
            self._watching.ring,
            new_merchant(self._registry, request),
            chains=sorted(self._registry.chains),
            first_look=self._first_look,
        )
        return orders_pb2.CreateMerchantResponse(merchant=_merchant_message(merchant), api_key=key or "")

    async def CreateApiKey(
        self, request: orders_pb2.CreateApiKeyRequest, _: Context
    ) -> orders_pb2.CreateApiKeyResponse:
        key, text = await workflow.create_key(self._database, self._hasher, request.merchant_id)
        return orders_pb2.CreateApiKeyResponse(key=_key_message(key), api_key=text)

    async def ListApiKeys(self, request: orders_pb2.ListApiKeysRequest, _: Context) -> orders_pb2.ListApiKeysResponse:
        keys = await workflow.list_keys(self._database, request.merchant_id)
        return orders_pb2.ListApiKeysResponse(keys=[_key_message(key) for key in keys])

    async def RevokeApiKey(
        self, request: orders_pb2.RevokeApiKeyRequest, _: Context
    ) -> orders_pb2.RevokeApiKeyResponse:
        key = await workflow.revoke_key(self._database, request.merchant_id, request.key_id)
        return orders_pb2.RevokeApiKeyResponse(key=_key_message(key))

    async def AuthenticateApiKey(
        self, request: orders_pb2.AuthenticateApiKeyRequest, _: Context
    ) -> orders_pb2.AuthenticateApiKeyResponse:
        merchant_id, key_id = await workflow.authenticate(self._database, self._hasher, request.api_key)
        return orders_pb2.AuthenticateApiKeyResponse(merchant_id=merchant_id, key_id=key_id)


def _merchant_message(merchant: Merchant) -> orders_pb2.Merchant:
    credits_surplus = merchant.terms.credits_surplus
    message = orders_pb2.Merchant(
        merchant_id=merchant.id,
        name=merchant.name,
        merchant_wallet_address=merchant.wallet or "",
        xpub=merchant.xpub or "",
        underpayment_tolerance_minor=merchant.terms.tolerance_minor,
        surplus_policy=orders_pb2.SURPLUS_POLICY_CREDIT if credits_surplus else orders_pb2.SURPLUS_POLICY_SUSPENSE,
    )
    message.created_at.FromDatetime(merchant.created_at)
    return message


def _key_message(key: ApiKey) -> orders_pb2.ApiKey:
    message = orders_pb2.ApiKey(key_id=key.id)
    message.created_at.FromDatetime(key.created_at)
    if key.revoked_at:
        message.revoked_at.FromDatetime(key.revoked_at)
    return message
