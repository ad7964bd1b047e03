"""Which order a transfer pays, and what becomes of money that pays none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from .claims import Decision, Outcome, Verdict, is_late, judge, mined_before, misfit, wait
from .found import Arrival, Place, SuspenseItem, SuspenseState
from .orders import CLAIMABLE_STATES, OPEN_STATES, ClaimState, Order, OrderKey, State, TransferKey
from .tally import Tally

# An order on a shared wallet that expired this long before a transfer may still have been meant.
EXPIRED_GRACE = timedelta(hours=24)
# Parts that an order holds at most: the transfer that completes it goes through all of them, and dust costs little.
MAX_HELD = 1000


def decide(tally: Tally, arrival: Arrival, place: Place) -> OrderKey | None:
    """Decides once on a transfer in a final block. Returns the order that it concerns.

    What is less than a minor unit, or more than 63 bits of them, is not money that can be booked: it is only recorded.
    """
    if arrival.transfer.amount_minor > 0 and not tally.is_decided(arrival):
        if owner := tally.taken_back(arrival):
            tally.hold(*owner, arrival, arrival.transfer.amount_minor, "reappeared")
        elif place.own:
            _decide_own(tally, place.own, arrival)
        else:
            _decide_shared(tally, place, arrival)
    return place.own or tally.concerned(arrival.key)


def take_back(tally: Tally, key: TransferKey, traceparent: str) -> None:
    """A transfer that was final is on the chain no more."""
    item, payment = tally.items.get(key), tally.payments.get(key)
    if item is not None and item.is_open:
        tally.release(item, SuspenseState.REVERSED, traceparent)
    elif item is not None and item.pays:
        tally.reverse_item(item, traceparent)
    elif item is not None:
        tally.void(item)
    if payment is not None and not payment.reversed:
        tally.reverse_payment(key, traceparent)


def confirms(tally: Tally, arrival: Arrival, place: Place) -> OrderKey | None:
    """The open order that a transfer which is not final would pay."""
    if arrival.transfer.amount_minor <= 0 or tally.is_decided(arrival):
        return None  # decided already: a claim was faster, and tells more
    if place.own:
        order = tally.orders[place.own]
        return place.own if order.state in OPEN_STATES and unfit(order, arrival) is None else None
    fitting = _fitting(tally, place, arrival)
    if place.too_many or len(fitting) != 1 or is_late(fitting[0], arrival.transfer):
        return None
    return fitting[0].key


def settle_claim(tally: Tally, order_key: OrderKey, tx_hash: str, verdict: Verdict) -> Decision:
    """What the chain's word does to an open claim on one of the orders."""
    order = tally.orders[order_key]
    arrivals = [
        Arrival(order.chain, order.asset, order.deposit_address, transfer, verdict.traceparent)
        for transfer in verdict.transfers
    ]
    is_own = order.deposit_index is not None
    if is_own and verdict.outcome is Outcome.FINAL:
        for arrival in arrivals:
            # On a claimant's word nothing is recorded that moved before the address was ours.
            if not mined_before(order, arrival.transfer):
                decide(tally, arrival, Place(order.merchant_id, own=order_key))
    if verdict.outcome is not Outcome.REJECTED and (counted := tally.counted(order_key, tx_hash)):
        return _accept(counted, arrivals)
    if is_own:
        return _judge_own(tally, tally.orders[order_key], arrivals, verdict)
    moved = {arrival.key for arrival in arrivals if tally.is_moved(arrival)}
    decision = judge(order, verdict, tally.used | moved if moved else tally.used, tally.internal)
    for arrival in arrivals:
        if arrival.transfer == decision.paid:
            _pay_exactly(tally, order, arrival)
        elif arrival.transfer == decision.late:
            _name(tally, order, arrival)
    return decision


def allocate(tally: Tally, item: SuspenseItem, order_key: OrderKey) -> None:
    """Lets an open item pay towards an open order, as the operator says: all of it, or it is held for the rest.

    The same again changes nothing.
    """
    if item.is_held and item.order_key == order_key:
        return
    order = tally.orders[order_key]
    total = order.received_minor + item.amount_minor
    if total < order.amount_minor - tally.terms(order).tolerance_minor:
        tally.move(item, order, "underpaid")
        return
    _pay_held(tally, order_key, "")
    tally.credit_item(item, order_key, "")
    tally.add_surplus(order_key, max(0, total - order.amount_minor))
    tally.close(order_key, item.arrival.transfer.tx_hash)


def give_back(tally: Tally, item: SuspenseItem) -> None:
    """Notes that the merchant has sent an open item back to whom it came from."""
    tally.release(item, SuspenseState.RETURNED, "")


def unfit(order: Order, arrival: Arrival) -> str | None:
    """Why a transfer to an order's own address does not count for it, or None."""
    if (arrival.chain, arrival.asset) != (order.chain, order.asset):
        return "wrong_asset"
    if mined_before(order, arrival.transfer):
        return "unattributed"
    if order.customer_wallet is not None and order.customer_wallet != arrival.transfer.sender:
        return "payer_mismatch"
    if is_late(order, arrival.transfer):
        return "late"
    if order.state in (State.SETTLED, State.REFUNDED):
        return "order_closed"
    return None


def _decide_own(tally: Tally, order_key: OrderKey, arrival: Arrival) -> None:
    """On an address of its own an order takes what comes, and several transfers add up."""
    order, amount = tally.orders[order_key], arrival.transfer.amount_minor
    if reason := unfit(order, arrival):
        tally.hold(order.merchant_id, order.id, arrival, amount, reason)
        return
    terms = tally.terms(order)
    is_open = order.state in OPEN_STATES
    if is_open and order.received_minor + amount < order.amount_minor - terms.tolerance_minor:
        reason = "underpaid" if len(tally.held(order_key)) < MAX_HELD else "unattributed"
        tally.hold(order.merchant_id, order.id, arrival, amount, reason)
        return
    _pay_held(tally, order_key, arrival.traceparent)
    asked = min(amount, max(0, order.amount_minor - order.received_minor))
    credited = amount if terms.credits_surplus else asked
    if credited:
        tally.credit(order_key, arrival, credited)
    if credited < amount:
        tally.hold(order.merchant_id, order.id, arrival, amount - credited, "surplus")
    tally.add_surplus(order_key, amount - asked)
    if is_open:
        tally.close(order_key, arrival.transfer.tx_hash)


def _pay_held(tally: Tally, order_key: OrderKey, traceparent: str) -> None:
    for item in tally.held(order_key):
        tally.credit_item(item, order_key, traceparent)


def _decide_shared(tally: Tally, place: Place, arrival: Arrival) -> None:
    """On a wallet that orders share a transfer pays the one order that it fits, and none where that is not plain."""
    fitting, amount = _fitting(tally, place, arrival), arrival.transfer.amount_minor
    if arrival.transfer.sender in tally.internal:
        tally.hold(place.merchant_id, None, arrival, amount, "internal")
        return
    merchants = {order.merchant_id for order in fitting}
    if place.too_many or len(fitting) > 1:
        owner = place.merchant_id if place.too_many or len(merchants) > 1 else fitting[0].merchant_id
        tally.hold(owner, None, arrival, amount, "ambiguous")
    elif not fitting:
        tally.hold(place.merchant_id, None, arrival, amount, "unattributed")
    elif is_late(fitting[0], arrival.transfer):
        tally.hold(fitting[0].merchant_id, fitting[0].id, arrival, amount, "late")
    else:
        _pay_exactly(tally, fitting[0], arrival)


def _fitting(tally: Tally, place: Place, arrival: Arrival) -> list[Order]:
    return [
        order
        for order in (tally.orders[key] for key in place.candidates)
        if order.state in CLAIMABLE_STATES
        and (arrival.chain, arrival.asset) == (order.chain, order.asset)
        and misfit(order, arrival.transfer, frozenset(), tally.internal) is None
        and arrival.transfer.block_time < order.expires_at + EXPIRED_GRACE
    ]


def _pay_exactly(tally: Tally, order: Order, arrival: Arrival) -> None:
    """The transfer pays this order on a shared wallet, out of suspense if it is there."""
    item = tally.items.get(arrival.key)
    if item is None:
        tally.credit(order.key, arrival, arrival.transfer.amount_minor)
    else:
        tally.credit_item(item, order.key, arrival.traceparent)
    tally.close(order.key, arrival.transfer.tx_hash)


def _name(tally: Tally, order: Order, arrival: Arrival) -> None:
    """A claim that comes too late pays nothing: it only says what money was meant for that fits no other order.

    What is not in suspense is left to its report, which knows all orders that the transfer may pay.
    """
    item = tally.items.get(arrival.key)
    if item is not None and item.reason == "unattributed" and item.merchant_id == order.merchant_id:
        tally.move(item, order, "late")


def _accept(counted: TransferKey, arrivals: Sequence[Arrival]) -> Decision:
    transfer = next((arrival.transfer for arrival in arrivals if arrival.key == counted), None)
    if transfer is None:
        return Decision(ClaimState.ACCEPTED, "")
    return Decision(ClaimState.ACCEPTED, "", seen_minor=transfer.amount_minor, block_number=transfer.block_number)


def _judge_own(tally: Tally, order: Order, arrivals: Sequence[Arrival], verdict: Verdict) -> Decision:
    """A claim of which nothing counts for an order with an address of its own."""
    if order.state not in CLAIMABLE_STATES:
        return Decision(ClaimState.REJECTED, "order_closed")
    if verdict.outcome is Outcome.REJECTED:
        return Decision(ClaimState.REJECTED, verdict.reason)
    fitting = [item for item in arrivals if item.transfer.amount_minor > 0 and unfit(order, item) is None]
    shown = max(fitting or arrivals, key=lambda item: item.transfer.amount_minor, default=None)
    seen = None if shown is None or shown.transfer.amount_minor < 0 else shown.transfer.amount_minor
    if verdict.outcome is Outcome.WAITING:
        return wait(order, verdict, fitting[0].transfer if fitting else None, seen)
    assert shown is not None, "a final verdict proves at least one transfer"
    return Decision(ClaimState.REJECTED, _refusal(tally, order, shown), seen_minor=seen)


def _refusal(tally: Tally, order: Order, arrival: Arrival) -> str:
    """Why a final transfer to the order's own address did not count, in the words of a claim."""
    item = tally.items.get(arrival.key)
    if item is not None:
        return item.reason if item.reason in ("late", "payer_mismatch") else "already_used"
    if mined_before(order, arrival.transfer):
        return "mined_before_order"
    return "overpaid" if arrival.transfer.amount_minor < 0 else "underpaid"
