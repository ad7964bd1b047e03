"""Messages of the contract, read with the checks that protovalidate cannot make, and written."""

from __future__ import annotations

import base64
import binascii
import json
import re
from datetime import UTC, datetime, timedelta

from buf.validate import validate_pb2  # type: ignore[import-untyped]  # no types are made for it
from google.protobuf.timestamp_pb2 import Timestamp

from chains import Asset, Registry, checksum_address
from chains.address import ZERO_ADDRESS
from kit.errors import Fault, Kind, Violation, invalid
from kit.server import check
from orders.addresses import account_key
from orders.domain import Claim, Confirming, Listed, NewOrder, Order, Page, State, Terms, metadata_problem
from orders.workflow.merchants import NewMerchant
from ospay.orders.v1 import orders_pb2

DEFAULT_CHAIN = "BSC"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_STATES = {state: orders_pb2.OrderState.Value(f"ORDER_STATE_{state.value}") for state in State}
STATES = {number: state for state, number in _STATES.items()}

# The contract's rule of an id, from the contract.
_ORDER_ID = orders_pb2.GetOrderRequest.DESCRIPTOR.fields_by_name["order_id"]
_ID = re.compile(_ORDER_ID.GetOptions().Extensions[validate_pb2.field].string.pattern)


def new_order(registry: Registry, request: orders_pb2.CreateOrderRequest) -> NewOrder:
    """An order whose fields are checked, but its asset may be unknown here: see `unconfigured`.

    Errors: Fault `invalid_request` with every field that is wrong.
    """
    check(request)
    chain = request.chain or DEFAULT_CHAIN
    problems: list[Violation] = []
    wallet = request.customer_wallet_address if request.HasField("customer_wallet_address") else None
    if wallet is not None:
        try:
            wallet = checksum_address(wallet)
        except ValueError as error:
            problems.append(Violation("customer_wallet_address", str(error)))
    metadata = request.metadata_json if request.HasField("metadata_json") else None
    if metadata is not None and (problem := metadata_problem(metadata)):
        problems.append(Violation("metadata_json", problem))
    if problems:
        raise _invalid([*_unconfigured(registry, chain, request.asset), *problems])
    expires_in = timedelta(seconds=request.expires_in_seconds) if request.HasField("expires_in_seconds") else None
    return NewOrder(
        merchant_id=request.merchant_id,
        id=request.order_id,
        asset=request.asset,
        chain=chain,
        amount_minor=request.amount_minor,
        customer_wallet=wallet,
        metadata=metadata,
        expires_in=expires_in,
    )


def unconfigured(registry: Registry, order: NewOrder) -> Fault | None:
    """Why an order cannot be made, where its chain or asset is not configured. It may have been, when it was made."""
    problems = _unconfigured(registry, order.chain, order.asset)
    return _invalid(problems) if problems else None


def _unconfigured(registry: Registry, chain: str, asset: str) -> list[Violation]:
    if chain not in registry.chains:
        return [Violation("chain", f"{chain} is not configured")]
    if registry.asset(chain, asset) is None:
        return [Violation("asset", f"{asset} is not configured on {chain}")]
    return []


def _invalid(problems: list[Violation]) -> Fault:
    detail = "; ".join(f"{item.field}: {item.message}" for item in problems)
    return Fault(Kind.INVALID, "invalid_request", detail, violations=problems)


def new_merchant(registry: Registry, request: orders_pb2.CreateMerchantRequest) -> NewMerchant:
    """A checked merchant: with a wallet, or with an extended public key. Errors: Fault `invalid_request`."""
    if bool(request.merchant_wallet_address) == bool(request.xpub):
        raise invalid("merchant_wallet_address", "either this or xpub is needed, and not both")
    terms = Terms(request.underpayment_tolerance_minor, request.surplus_policy == orders_pb2.SURPLUS_POLICY_CREDIT)
    if request.merchant_wallet_address and terms.tolerance_minor:
        raise invalid("underpayment_tolerance_minor", "needs an address of its own for each order: give an xpub")
    if request.merchant_wallet_address and terms.credits_surplus:
        raise invalid("surplus_policy", "needs an address of its own for each order: give an xpub")
    return NewMerchant(
        id=request.merchant_id or None,
        name=request.name,
        wallet=merchant_wallet(registry, request.merchant_wallet_address) if request.merchant_wallet_address else None,
        xpub=request.xpub or None,
        account_key=_account_key(request.xpub) if request.xpub else None,
        terms=terms,
    )


def _account_key(xpub: str) -> bytes:
    try:
        return account_key(xpub)
    except ValueError as error:
        raise invalid("xpub", str(error)) from None


def merchant_wallet(registry: Registry, text: str) -> str:
    """A wallet that can be paid, EIP-55. Errors: Fault `invalid_request`."""
    try:
        wallet = checksum_address(text)
    except ValueError as error:
        raise invalid("merchant_wallet_address", str(error)) from None
    if wallet == ZERO_ADDRESS:
        raise invalid("merchant_wallet_address", "is the zero address")
    if registry.is_token(wallet):
        raise invalid("merchant_wallet_address", "is a token contract: what is sent there is lost")
    return wallet


def payment_uri(asset: Asset, to: str, amount_minor: int) -> str:
    """The EIP-681 link for a transfer of exactly this amount."""
    return f"ethereum:{asset.contract}@{asset.chain_id}/transfer?address={to}&uint256={asset.to_base(amount_minor)}"


def order_message(registry: Registry, order: Order) -> orders_pb2.Order:
    """An order as the contract shows it."""
    asset = registry.asset(order.chain, order.asset)
    message = orders_pb2.Order(
        merchant_id=order.merchant_id,
        order_id=order.id,
        asset=order.asset,
        chain=order.chain,
        amount_minor=order.amount_minor,
        customer_wallet_address=order.customer_wallet,
        deposit_address=order.deposit_address,
        payment_uri=payment_uri(asset, order.deposit_address, order.amount_minor) if asset else "",
        state=_STATES[order.state],
        received_minor=order.received_minor,
        refunded_minor=order.refunded_minor,
        late_minor=order.late_minor,
        tx_hash=order.tx_hash,
        metadata_json=order.metadata,
        deposit_path=order.deposit_path,
        reversed_minor=order.reversed_minor,
        surplus_minor=order.surplus_minor,
    )
    message.created_at.CopyFrom(_timestamp(order.created_at))
    message.expires_at.CopyFrom(_timestamp(order.expires_at))
    if order.paid_at:
        message.paid_at.FromDatetime(order.paid_at)
    if order.settled_at:
        message.settled_at.FromDatetime(order.settled_at)
    if order.settlement_batch_id:
        message.settlement_batch_id = str(order.settlement_batch_id)
    if order.last_claim:
        message.last_claim.CopyFrom(_claim_message(order.last_claim))
    if order.confirming:
        message.confirming.CopyFrom(_confirming_message(order.confirming))
    return message


def _timestamp(time: datetime) -> Timestamp:
    """What FromDatetime makes, at a third of its cost: an order has two at least."""
    since = time - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def state_number(state: State) -> orders_pb2.OrderState.ValueType:
    """The contract's number of a state."""
    return _STATES[state]


def _claim_message(claim: Claim) -> orders_pb2.Claim:
    message = orders_pb2.Claim(
        tx_hash=claim.tx_hash,
        state=orders_pb2.ClaimState.Value(f"CLAIM_STATE_{claim.state.value}"),
        reason=claim.reason,
        seen_minor=claim.seen_minor,
        confirmations=claim.confirmations,
        block_number=claim.block_number,
    )
    message.updated_at.FromDatetime(claim.updated_at)
    return message


def _confirming_message(confirming: Confirming) -> orders_pb2.Confirming:
    return orders_pb2.Confirming(
        tx_hash=confirming.tx_hash,
        amount_minor=confirming.amount_minor,
        block_number=confirming.block_number,
        confirmations=confirming.confirmations,
    )


def payment_message(listed: Listed) -> orders_pb2.Payment:
    """A transfer to an order's address as the contract shows it."""
    transfer = listed.transfer
    message = orders_pb2.Payment(
        chain_id=transfer.chain_id,
        tx_hash=transfer.tx_hash,
        log_index=transfer.log_index,
        block_number=transfer.block_number,
        block_hash=transfer.block_hash,
        sender=transfer.sender,
        asset=listed.asset,
        amount_base=str(transfer.amount_base),
        amount_minor=transfer.amount_minor,
        credited_minor=listed.credited_minor,
        state=orders_pb2.PaymentState.Value(f"PAYMENT_STATE_{listed.state.value}"),
        reason=listed.reason,
    )
    message.block_time.FromDatetime(transfer.block_time)
    return message


def page_token(page: Page) -> str:
    """An opaque token for a position."""
    text = json.dumps([page.created_at.isoformat(), page.id])
    return base64.urlsafe_b64encode(text.encode()).decode()


def read_page_token(token: str) -> Page | None:
    """The position that a token names, None for an empty one. Errors: Fault `invalid_cursor`."""
    if not token:
        return None
    try:
        created_at, last_id = json.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
        position = datetime.fromisoformat(created_at)
        if position.tzinfo is None or not _ID.fullmatch(last_id):
            raise ValueError(token)
        # The database's driver does the same, and fails where the year leaves 1 … 9999.
        return Page(position.astimezone(UTC), last_id)
    except (ValueError, TypeError, OverflowError, binascii.Error, RecursionError):
        raise bad_cursor() from None


def bad_cursor() -> Fault:
    """The fault for a token that this service did not make."""
    violation = Violation("page_token", "is not a token of this list")
    return Fault(Kind.INVALID, "invalid_cursor", "page_token is not a token of this list", violations=[violation])
