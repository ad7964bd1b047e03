"""The rpcs of OrderService about refunds."""

from __future__ import annotations

from datetime import timedelta

from chains import Asset, Registry, checksum_address
from chains.address import ZERO_ADDRESS
from kit.database import Database
from kit.errors import invalid
from orders.doorbell import Doorbell
from orders.proof import ProofState, Shown
from orders.rpc.convert import payment_uri, state_number
from orders.verification import Verification
from orders.workflow import refund_proofs, refunds
from ospay.orders.v1 import orders_pb2

# The first four bytes of keccak256("transfer(address,uint256)"). Source: ERC-20, Solidity's ABI specification.
TRANSFER_SELECTOR = "a9059cbb"

_STATES = {
    None: orders_pb2.REFUND_STATE_RECORDED,
    ProofState.OPEN: orders_pb2.REFUND_STATE_RECORDED,
    ProofState.CONFIRMED: orders_pb2.REFUND_STATE_CONFIRMED,
    ProofState.REFUTED: orders_pb2.REFUND_STATE_REFUTED,
}


class Refunds:
    """What they promise stands in the contract."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        doorbell: Doorbell,
        verification: Verification,
        first_look: timedelta,
    ) -> None:
        self._database = database
        self._registry = registry
        self._doorbell = doorbell
        self._verification = verification
        self._first_look = first_look

    async def record(self, request: orders_pb2.RefundOrderRequest) -> orders_pb2.RefundOrderResponse:
        """RefundOrder."""
        recorded = await refunds.refund(
            self._database,
            self._doorbell,
            self._read(request),
            give_up_after=self._verification.give_up_after,
            first_look=self._first_look,
        )
        if recorded.proof:
            await self._verification.carry([recorded.proof])
        done = recorded.refund
        return orders_pb2.RefundOrderResponse(
            order_id=done.order_id,
            refund_id=done.id,
            state=state_number(done.state_after),
            amount_minor=done.amount_minor,
            refunded_minor=done.refunded_after,
            replayed=recorded.replayed,
            refund=await self._standing(done.merchant_id, done.id),
        )

    async def attach(
        self, request: orders_pb2.AttachRefundTransactionRequest
    ) -> orders_pb2.AttachRefundTransactionResponse:
        """AttachRefundTransaction."""
        proof = await refund_proofs.attach(
            self._database,
            request.merchant_id,
            request.refund_id,
            request.tx_hash.lower(),
            give_up_after=self._verification.give_up_after,
            first_look=self._first_look,
        )
        if proof:
            await self._verification.carry([proof])
        refund = await self._standing(request.merchant_id, request.refund_id)
        return orders_pb2.AttachRefundTransactionResponse(refund=refund)

    async def list_of(self, request: orders_pb2.ListRefundsRequest) -> orders_pb2.ListRefundsResponse:
        """ListRefunds."""
        found = await refund_proofs.list_of(self._database, request.merchant_id, request.order_id)
        return orders_pb2.ListRefundsResponse(refunds=[refund_message(self._registry, refund) for refund in found])

    async def _standing(self, merchant_id: str, refund_id: str) -> orders_pb2.Refund:
        return refund_message(self._registry, await refund_proofs.get(self._database, merchant_id, refund_id))

    def _read(self, request: orders_pb2.RefundOrderRequest) -> refunds.RefundRequest:
        return refunds.RefundRequest(
            merchant_id=request.merchant_id,
            order_id=request.order_id,
            refund_id=request.refund_id,
            reason=request.reason,
            amount_minor=request.amount_minor if request.HasField("amount_minor") else None,
            tx_hash=request.tx_hash.lower() if request.HasField("tx_hash") else None,
            to_address=self._account("to_address", request.to_address) if request.HasField("to_address") else None,
            from_address=(
                self._account("from_address", request.from_address) if request.HasField("from_address") else None
            ),
        )

    def _account(self, field: str, text: str) -> str:
        """An address that can hold money, EIP-55. Errors: Fault `invalid_request`."""
        try:
            address = checksum_address(text)
        except ValueError as error:
            raise invalid(field, str(error)) from None
        if not _holds_money(self._registry, address):
            raise invalid(field, "is the zero address or a token contract")
        return address


def _holds_money(registry: Registry, address: str) -> bool:
    """Whether what is sent there is not lost."""
    return address not in ("", ZERO_ADDRESS) and not registry.is_token(address)


def refund_message(registry: Registry, refund: Shown) -> orders_pb2.Refund:
    """A refund as the contract shows it, with what is needed to send it."""
    message = orders_pb2.Refund(
        order_id=refund.order_id,
        refund_id=refund.id,
        amount_minor=refund.amount_minor,
        reason=refund.reason,
        state=_STATES[refund.state],
        state_reason=refund.state_reason,
        tx_hash=refund.tx_hash,
        to_address=refund.to_address,
        from_address=refund.from_address,
    )
    message.created_at.FromDatetime(refund.created_at)
    if refund.confirmed_at:
        message.confirmed_at.FromDatetime(refund.confirmed_at)
    asset = registry.asset(refund.chain, refund.asset)
    # A payer that is no account (minted coins, a contract's own) is shown, but nobody is asked to send money there.
    if asset and _holds_money(registry, refund.to_address):
        message.payment_uri = payment_uri(asset, refund.to_address, refund.amount_minor)
        message.unsigned_transaction.CopyFrom(_unsigned(asset, refund.to_address, refund.amount_minor))
    return message


def _unsigned(asset: Asset, to: str, amount_minor: int) -> orders_pb2.UnsignedTransaction:
    return orders_pb2.UnsignedTransaction(
        chain_id=asset.chain_id, to=asset.contract, data=transfer_data(to, asset.to_base(amount_minor)), value="0"
    )


def transfer_data(to: str, amount_base: int) -> str:
    """Call data of `transfer(address,uint256)`: the selector, then each argument as 32 bytes, big-endian.

    Both are static types, so there is nothing else to encode.
    """
    return f"0x{TRANSFER_SELECTOR}{int(to, 16):064x}{amount_base:064x}"
