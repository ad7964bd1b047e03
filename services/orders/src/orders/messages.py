"""The messages that orders owes to others and hears from them, in their contracts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

import structlog
from google.protobuf.message import Message
from prometheus_client import Counter

from chains import Registry, checksum_address
from kit import telemetry
from orders.domain import (
    Arrival,
    Credit,
    Debt,
    Due,
    Hold,
    Order,
    Outcome,
    Refund,
    Release,
    Report,
    Reversal,
    SightingState,
    Transfer,
    Verdict,
)
from orders.domain.claims import CLOCK_TOLERANCE
from ospay.ledger.v1 import ledger_pb2
from ospay.verifier.v1 import verifier_pb2

log = structlog.get_logger()

M = TypeVar("M", bound=Message)
T = TypeVar("T")

PAYMENT_CLAIMED = "ospay.orders.v1.payment_claimed"
ORDER_PAID = "ospay.orders.v1.order_paid"
ORDER_REFUNDED = "ospay.orders.v1.order_refunded"
MONEY_MOVED = "ospay.orders.v1.money_moved"
ADDRESS_WATCHED = "ospay.orders.v1.address_watched"
POSTINGS = (ORDER_PAID, ORDER_REFUNDED, MONEY_MOVED)

NOT_UNDERSTOOD = Counter(
    "orders_items_not_understood_total", "What a newer peer, or one configured otherwise, tells: left open", ["kind"]
)


def claim_debt(
    order: Order,
    claim_id: UUID,
    tx_hash: str,
    traceparent: str,
    give_up_at: datetime,
    *,
    recipient: str | None = None,
    debt_id: UUID | None = None,
) -> Debt:
    """The verification of a claim; of a refund's transaction, with its recipient and a debt of another id."""
    claim = verifier_pb2.Claim(
        claim_id=str(claim_id),
        chain=order.chain,
        asset=order.asset,
        tx_hash=tx_hash,
        recipient=recipient or order.deposit_address,
        traceparent=traceparent,
    )
    claim.give_up_at.FromDatetime(give_up_at)
    payload = claim.SerializeToString()
    return Debt(debt_id or claim_id, PAYMENT_CLAIMED, order.merchant_id, order.asset, payload, traceparent)


def watch_debt(
    watch_id: UUID,
    merchant_id: str,
    chain: str,
    address: str,
    *,
    from_block: int | None,
    from_time: datetime,
    until: datetime | None,
) -> Debt:
    """The watching of an address. It names no asset: it is no posting, and must not be counted with them."""
    watch = verifier_pb2.Watch(watch_id=str(watch_id), chain=chain, address=address, from_block=from_block or 0)
    watch.from_time.FromDatetime(from_time)
    if until is not None:
        watch.until.FromDatetime(until)
    return Debt(watch_id, ADDRESS_WATCHED, merchant_id, "", watch.SerializeToString())


def configuration_of(debt: Debt) -> tuple[str, str]:
    """The chain, and the asset where there is one, that the verifier has to know for a claim or an address to watch."""
    if debt.subject == ADDRESS_WATCHED:
        return verifier_pb2.Watch.FromString(debt.payload).chain, ""
    claim = verifier_pb2.Claim.FromString(debt.payload)
    return claim.chain, claim.asset


def span_of(
    order: Due, configured: Mapping[tuple[str, str], verifier_pb2.Token], margin: timedelta
) -> verifier_pb2.Span:
    """Where and when money for an order has come in time, with a margin after its end.

    Its asset is named while it is configured here: a verifier that does not know it, or knows another by this name, has
    not looked for it.
    """
    token = configured.get((order.chain, order.asset))
    span = verifier_pb2.Span(chain=order.chain, address=order.address, asset=order.asset if token else "", token=token)
    span.from_time.FromDatetime(order.created_at - CLOCK_TOLERANCE)
    span.until.FromDatetime(order.expires_at + margin)
    return span


def credited_debt(credit: Credit) -> Debt:
    """The booking of a payment: the amount is the chain's."""
    posting = ledger_pb2.Posting(
        event_id=str(credit.event_id),
        event_type=ledger_pb2.EVENT_TYPE_ORDER_PAID,
        merchant_id=credit.order.merchant_id,
        order_id=credit.order.id,
        asset=credit.order.asset,
        amount_minor=credit.credited_minor,
        tx_hash=credit.arrival.transfer.tx_hash,
        traceparent=credit.traceparent,
    )
    return _posting_debt(ORDER_PAID, posting, credit.arrival.transfer.block_time)


def held_debt(hold: Hold) -> Debt:
    """The booking of money that comes into suspense."""
    item = hold.item
    posting = ledger_pb2.Posting(
        event_id=str(hold.event_id),
        event_type=ledger_pb2.EVENT_TYPE_SUSPENSE_RECEIVED,
        merchant_id=item.merchant_id,
        order_id=item.order_id or "",
        asset=item.arrival.asset,
        amount_minor=item.amount_minor,
        tx_hash=item.arrival.transfer.tx_hash,
        traceparent=item.arrival.traceparent,
    )
    return _posting_debt(MONEY_MOVED, posting, item.arrival.transfer.block_time)


def released_debt(release: Release, released_at: datetime) -> Debt:
    """The booking of money that leaves suspense, under the order that it was held for."""
    item = release.item
    posting = ledger_pb2.Posting(
        event_id=str(release.event_id),
        event_type=ledger_pb2.EVENT_TYPE_SUSPENSE_RELEASED,
        merchant_id=item.merchant_id,
        order_id=item.order_id or "",
        asset=item.arrival.asset,
        amount_minor=item.amount_minor,
        tx_hash=item.arrival.transfer.tx_hash,
        traceparent=release.traceparent,
    )
    return _posting_debt(MONEY_MOVED, posting, released_at)


def reversed_debt(reversal: Reversal, reversed_at: datetime) -> Debt:
    """The booking of what the chain took back of a payment."""
    posting = ledger_pb2.Posting(
        event_id=str(reversal.event_id),
        event_type=ledger_pb2.EVENT_TYPE_PAYMENT_REVERSED,
        merchant_id=reversal.order.merchant_id,
        order_id=reversal.order.id,
        asset=reversal.order.asset,
        amount_minor=reversal.amount_minor,
        tx_hash=reversal.key[1],
        traceparent=reversal.traceparent,
    )
    return _posting_debt(MONEY_MOVED, posting, reversed_at)


def refunded_debt(order: Order, refund: Refund, event_id: UUID, tx_hash: str | None, made_at: datetime) -> Debt:
    """The booking of a refund."""
    posting = ledger_pb2.Posting(
        event_id=str(event_id),
        event_type=ledger_pb2.EVENT_TYPE_ORDER_REFUNDED,
        merchant_id=order.merchant_id,
        order_id=order.id,
        asset=order.asset,
        amount_minor=refund.amount_minor,
        tx_hash=tx_hash or "",
        traceparent=telemetry.traceparent(),
    )
    return _posting_debt(ORDER_REFUNDED, posting, made_at)


def _posting_debt(subject: str, posting: ledger_pb2.Posting, effective_at: datetime) -> Debt:
    posting.effective_at.FromDatetime(effective_at)
    payload = posting.SerializeToString()
    return Debt(UUID(posting.event_id), subject, posting.merchant_id, posting.asset, payload, posting.traceparent)


def understood(read: Callable[[M], T], messages: Iterable[M]) -> list[T]:
    """What `read` (errors: ValueError) makes of those that this version understands.

    The others stay open, where they are told from: they are asked for or told again, here or by a newer version.
    """
    found: list[T] = []
    for message in messages:
        try:
            found.append(read(message))
        except ValueError as error:
            NOT_UNDERSTOOD.labels(message.DESCRIPTOR.name).inc()
            log.error("not_understood", kind=message.DESCRIPTOR.name, error=str(error))
    return found


_WAIT_REASONS = {
    verifier_pb2.WAIT_REASON_NOT_FOUND: "not_found",
    verifier_pb2.WAIT_REASON_NOT_FINAL: "not_final",
    verifier_pb2.WAIT_REASON_CHAIN_UNAVAILABLE: "chain_unavailable",
}
_REJECT_REASONS = {
    verifier_pb2.REJECT_REASON_TX_FAILED: "tx_failed",
    verifier_pb2.REJECT_REASON_WRONG_TOKEN: "wrong_token",
    verifier_pb2.REJECT_REASON_WRONG_RECIPIENT: "wrong_recipient",
    verifier_pb2.REJECT_REASON_NO_TRANSFER: "no_transfer",
    verifier_pb2.REJECT_REASON_GIVEN_UP: "given_up",
}
_SIGHTING_STATES = {
    verifier_pb2.SIGHTING_STATE_SEEN: SightingState.SEEN,
    verifier_pb2.SIGHTING_STATE_FINAL: SightingState.FINAL,
    verifier_pb2.SIGHTING_STATE_GONE: SightingState.GONE,
    verifier_pb2.SIGHTING_STATE_REVERSED: SightingState.REVERSED,
}


class Reader:
    """The verifier's word in our terms, where both mean the same by an asset.

    What this version does not understand, and what is said of an asset that is configured otherwise there, is left out
    (see `understood`): a transfer on a test net, or of another contract, is no money, and an amount is its scale.
    """

    def __init__(self, registry: Registry) -> None:
        self._tokens = tokens(registry)

    def verdicts(self, messages: Iterable[verifier_pb2.Verdict]) -> list[Verdict]:
        """What the chain says of claims."""
        return understood(self._verdict, messages)

    def reports(self, messages: Iterable[verifier_pb2.Report]) -> list[Report]:
        """What was found."""
        return understood(self._report, messages)

    def _verdict(self, message: verifier_pb2.Verdict) -> Verdict:
        self._check(message)
        claim_id = UUID(message.claim_id)
        match message.WhichOneof("outcome"):
            case "final" if message.final.transfers:
                transfers = tuple(_transfer(item) for item in message.final.transfers)
                return Verdict(claim_id, Outcome.FINAL, transfers=transfers, traceparent=message.traceparent)
            case "waiting" if message.waiting.reason in _WAIT_REASONS:
                return Verdict(
                    claim_id,
                    Outcome.WAITING,
                    _WAIT_REASONS[message.waiting.reason],
                    tuple(_transfer(item) for item in message.waiting.transfers),
                    block_number=message.waiting.block_number or None,
                    head_number=message.waiting.head_number or None,
                    traceparent=message.traceparent,
                )
            case "rejected" if message.rejected.reason in _REJECT_REASONS:
                reason = _REJECT_REASONS[message.rejected.reason]
                return Verdict(claim_id, Outcome.REJECTED, reason, traceparent=message.traceparent)
        raise ValueError(f"verdict on {claim_id} without an outcome that is known here")

    def _report(self, message: verifier_pb2.Report) -> Report:
        self._check(message)
        state = _SIGHTING_STATES.get(message.state)
        if state is None:
            raise ValueError(f"report {message.report_id} is in a state that is not known here")
        arrival = Arrival(
            chain=message.chain,
            asset=message.asset,
            recipient=checksum_address(message.transfer.recipient),
            transfer=_transfer(message.transfer),
            traceparent=message.traceparent,
        )
        return Report(UUID(message.report_id), message.version, state, arrival, message.head_number or None)

    def _check(self, message: verifier_pb2.Verdict | verifier_pb2.Report) -> None:
        """Errors: ValueError for an asset that is configured otherwise there.

        One that is configured here no more is the verifier's alone, and a version before names no token: both are
        believed.
        """
        ours = self._tokens.get((message.chain, message.asset))
        if ours is not None and message.HasField("token") and message.token != ours:
            raise ValueError(
                f"{message.chain} {message.asset} is ({_text(message.token)}) to the verifier and ({_text(ours)}) here"
            )


def tokens(registry: Registry) -> dict[tuple[str, str], verifier_pb2.Token]:
    """What each asset is, by chain and name."""
    return {
        (asset.chain, asset.name): verifier_pb2.Token(
            chain_id=asset.chain_id,
            contract=asset.contract,
            base_decimals=asset.base_decimals,
            minor_decimals=asset.minor_decimals,
        )
        for chain in registry.chains.values()
        for asset in chain.assets.values()
    }


def _text(token: verifier_pb2.Token) -> str:
    return " ".join(str(token).split())


_BOOKED = (ledger_pb2.POST_OUTCOME_POSTED, ledger_pb2.POST_OUTCOME_ALREADY_POSTED)
_REFUSED = (ledger_pb2.POST_OUTCOME_CONFLICT, ledger_pb2.POST_OUTCOME_INVALID)


def to_result(message: ledger_pb2.PostResult) -> tuple[UUID, str | None]:
    """The event, and why it is refused for good, None where it is booked.

    Errors: ValueError for what this version does not understand.
    """
    event_id = UUID(message.event_id)
    if message.outcome in _BOOKED:
        return event_id, None
    if message.outcome in _REFUSED:
        return event_id, f"{ledger_pb2.PostOutcome.Name(message.outcome)}: {message.detail}"
    raise ValueError(f"event {event_id} with an outcome that is not known here")


def _transfer(message: verifier_pb2.Transfer) -> Transfer:
    return Transfer(
        chain_id=message.chain_id,
        tx_hash=message.tx_hash,
        log_index=message.log_index,
        block_number=message.block_number,
        block_hash=message.block_hash,
        block_time=message.block_time.ToDatetime(UTC),
        sender=message.sender,
        amount_base=int(message.amount_base),
        amount_minor=message.amount_minor,
    )
