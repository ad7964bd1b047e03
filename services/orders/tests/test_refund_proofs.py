"""Refunds that the chain confirms, on a real database: what proves one, what does not, and never twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import nats
import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from chains import Registry, checksum_address
from kit.bus import Bus
from kit.errors import Fault
from local.process import until
from orders.consumer import Consumer
from orders.domain import Outcome, Verdict
from orders.doorbell import Doorbell
from orders.peers import Verifier
from orders.proof import Proof, ProofState, Ruling, rule
from orders.reports import Reports
from orders.rpc.convert import order_message
from orders.rpc.refunds import refund_message, transfer_data
from orders.store import outbox
from orders.workflow import orders, refund_proofs
from ospay.orders.v1 import orders_pb2
from ospay.verifier.v1 import verifier_pb2
from services.orders.tests.conftest import WALLET, Suite  # type: ignore[import-not-found]
from services.orders.tests.test_money import Desk, transfer, tx  # type: ignore[import-not-found]

LATER = timedelta(hours=1)
PAYER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
OTHER = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"
OTHER_WALLET = "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65"
TOKEN_CONTRACT = "0x55d398326f99059fF775485246999027B3197955"
PAID_BLOCK = 101
RECORDED = orders_pb2.REFUND_STATE_RECORDED
CONFIRMED = orders_pb2.REFUND_STATE_CONFIRMED
REFUTED = orders_pb2.REFUND_STATE_REFUTED
CLAIMED = "ospay.orders.v1.payment_claimed"


def moved(number: int, amount_minor: int = 1_000_000, **fields: object) -> verifier_pb2.Transfer:
    """A transfer from the merchant's wallet to the payer, as the verifier tells it."""
    given_fields = {"sender": WALLET, "block_number": PAID_BLOCK + 5, "log_index": 0, **fields}
    found = verifier_pb2.Transfer(
        chain_id=56,
        tx_hash=tx(number),
        block_hash=tx(98),
        recipient=PAYER,
        amount_base=str(amount_minor * 10**12),
        amount_minor=amount_minor,
        **given_fields,  # type: ignore[arg-type]
    )
    found.block_time.GetCurrentTime()
    return found


def final(claim_id: str, *transfers: verifier_pb2.Transfer) -> verifier_pb2.Verdict:
    return verifier_pb2.Verdict(claim_id=claim_id, final=verifier_pb2.Final(transfers=transfers))


def waiting(claim_id: str, reason: str) -> verifier_pb2.Verdict:
    number = verifier_pb2.WaitReason.Value(f"WAIT_REASON_{reason.upper()}")
    return verifier_pb2.Verdict(claim_id=claim_id, waiting=verifier_pb2.Waiting(reason=number))


def rejected(claim_id: str, reason: str) -> verifier_pb2.Verdict:
    number = verifier_pb2.RejectReason.Value(f"REJECT_REASON_{reason.upper()}")
    return verifier_pb2.Verdict(claim_id=claim_id, rejected=verifier_pb2.Rejected(reason=number))


class Shop(Desk):  # type: ignore[misc]
    """A merchant whose verifier is the test: its verdicts come as messages, through the consumer."""

    def __init__(self, suite: Suite) -> None:
        super().__init__(suite)
        nowhere = Bus("nats://127.0.0.1:1", name="none", streams={})
        doorbell = Doorbell(nowhere, suite.process)
        reports = Reports(suite.database, doorbell, Verifier(suite.peer), LATER)  # none come here
        self._consumer = Consumer(nowhere, suite.database, doorbell, reports, LATER)

    async def sell(self, order_id: str, number: int, sender: str = PAYER) -> None:
        """An order of 5 USDT that this transaction has paid."""
        await self.suite.create(order_id)
        claim = await self.claim(order_id, number)
        await self.apply(Verdict(claim, Outcome.FINAL, transfers=(transfer(number, sender=sender),)))

    async def refund(self, refund_id: str = "r1", order_id: str = "ord_1", **fields: object) -> object:
        """A refund of 1 USDT."""
        given_fields = {"merchant_id": "mrc_1", "reason": "asked", "amount_minor": 1_000_000, **fields}
        request = orders_pb2.RefundOrderRequest(order_id=order_id, refund_id=refund_id, **given_fields)  # type: ignore[arg-type]
        return await self.suite.peer.call(self.suite.orders.RefundOrder, request, timeout=5)

    async def attach(self, number: int, refund_id: str = "r1", merchant_id: str = "mrc_1") -> orders_pb2.Refund:
        request = orders_pb2.AttachRefundTransactionRequest(
            merchant_id=merchant_id, refund_id=refund_id, tx_hash=tx(number)
        )
        return (await self.suite.peer.call(self.suite.orders.AttachRefundTransaction, request, timeout=5)).refund

    async def refunds(self, order_id: str = "ord_1", merchant_id: str = "mrc_1") -> list[orders_pb2.Refund]:
        request = orders_pb2.ListRefundsRequest(merchant_id=merchant_id, order_id=order_id)
        return list((await self.suite.peer.call(self.suite.orders.ListRefunds, request, timeout=5)).refunds)

    async def shown(self, refund_id: str = "r1", order_id: str = "ord_1") -> orders_pb2.Refund:
        (found,) = [item for item in await self.refunds(order_id) if item.refund_id == refund_id]
        return found

    async def stands(self, refund_id: str = "r1", order_id: str = "ord_1") -> tuple[int, str]:
        """(state, reason)"""
        found = await self.shown(refund_id, order_id)
        return found.state, found.state_reason

    async def claims(self) -> list[verifier_pb2.Claim]:
        """What is owed to the verifier, oldest first."""
        async with self.suite.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT payload FROM outbox WHERE subject = $1 ORDER BY created_at, event_id", CLAIMED
            )
        return [verifier_pb2.Claim.FromString(row["payload"]) for row in rows]

    async def named(self, number: int, refund_id: str = "r1", **fields: object) -> str:
        """A refund with this transaction; returns the claim's id."""
        await self.refund(refund_id, tx_hash=tx(number), **fields)
        return (await self.claims())[-1].claim_id

    async def say(self, *verdicts: verifier_pb2.Verdict) -> None:
        """The verifier's word, in one message."""
        await self._consumer.verdicts([verifier_pb2.BatchVerifyResponse(verdicts=verdicts).SerializeToString()])


@pytest.fixture
async def shop(suite: Suite) -> Shop:
    """A paid order, and another merchant with a wallet of its own."""
    await suite.merchant()
    request = orders_pb2.CreateMerchantRequest(merchant_id="mrc_2", name="Other", merchant_wallet_address=OTHER_WALLET)
    await suite.peer.call(suite.merchants.CreateMerchant, request, timeout=5)
    made = Shop(suite)
    await made.sell("ord_1", 1)
    return made


async def test_where_nothing_can_be_sent_no_link_is_shown(shop: Shop) -> None:
    """Not to a payer that is no account, and not of an asset that is not configured any more."""
    for number, sender in ((2, "0x" + "0" * 40), (3, TOKEN_CONTRACT)):
        await shop.sell(f"ord_{number}", number, sender)
        answer = await shop.refund(f"r{number}", f"ord_{number}")
        found = answer.refund  # type: ignore[attr-defined]
        assert (found.to_address, found.payment_uri, found.HasField("unsigned_transaction")) == (sender, "", False)
    await shop.refund()
    without = Registry({})
    order = await orders.get(shop.suite.database, "mrc_1", "ord_1")
    assert order_message(without, order).payment_uri == ""
    found = refund_message(without, await refund_proofs.get(shop.suite.database, "mrc_1", "r1"))
    assert (found.payment_uri, found.HasField("unsigned_transaction")) == ("", False)


async def test_a_refund_is_booked_at_once_and_shows_how_to_send_it(shop: Shop) -> None:
    """Without a transaction it is RECORDED, owed to the ledger alone, and says what the merchant has to sign."""
    answer = await shop.refund()
    found = answer.refund  # type: ignore[attr-defined]
    assert (found.state, found.state_reason, found.HasField("tx_hash")) == (RECORDED, "", False)
    assert (found.to_address, found.from_address, found.HasField("confirmed_at")) == (PAYER, WALLET, False)
    assert found.payment_uri == f"ethereum:{TOKEN_CONTRACT}@56/transfer?address={PAYER}&uint256={10**18}"
    signed = found.unsigned_transaction
    assert (signed.chain_id, signed.to, signed.value) == (56, TOKEN_CONTRACT, "0")
    assert signed.data == transfer_data(PAYER, 10**18)
    assert await shop.refunds() == [found]
    owed = "SELECT array_agg(subject ORDER BY subject) FROM outbox WHERE subject <> 'ospay.orders.v1.address_watched'"
    assert await shop.value(owed) == [
        "ospay.orders.v1.order_paid",
        "ospay.orders.v1.order_refunded",
    ]


async def test_a_named_transaction_is_a_debt_to_the_verifier(shop: Shop) -> None:
    """The claim has an id of its own, names the payer as recipient, and counts for the bound of the queue."""
    await shop.refund(tx_hash=f"0x{0xABC:064X}")
    (claim,) = await shop.claims()
    assert (claim.chain, claim.asset, claim.tx_hash, claim.recipient) == ("BSC", "USDT", tx(0xABC), PAYER)
    assert str(await shop.value("SELECT claim_id FROM refund_proofs")) == claim.claim_id
    assert (await shop.shown()).tx_hash == tx(0xABC)
    assert await shop.stands() == (RECORDED, "queued")
    async with shop.suite.database.connection() as connection:
        assert await outbox.count_claims(connection, 10) == 1


async def test_waiting_then_final_confirms(shop: Shop) -> None:
    """Each waiting verdict tells why; the final one confirms, closes the debt and leaves the books as they were."""
    claim = await shop.named(7)
    before = (await shop.suite.get()).SerializeToString(deterministic=True)
    for reason in ("not_found", "chain_unavailable", "not_final"):
        await shop.say(waiting(claim, reason))
        assert await shop.stands() == (RECORDED, reason)
        assert len(await shop.claims()) == 1
    await shop.say(final(claim, moved(7)))
    found = await shop.shown()
    assert (found.state, found.state_reason, found.tx_hash) == (CONFIRMED, "", tx(7))
    assert found.confirmed_at.ToDatetime() >= found.created_at.ToDatetime()
    assert await shop.claims() == []
    assert (await shop.suite.get()).SerializeToString(deterministic=True) == before
    assert await shop.value("SELECT count(*) FROM outbox WHERE subject = 'ospay.orders.v1.order_refunded'") == 1
    assert await shop.value("SELECT refund_id || log_index || sender FROM refund_transfers") == f"r10{WALLET}"


async def test_a_transaction_can_be_named_later(shop: Shop) -> None:
    """AttachRefundTransaction makes the debt that RefundOrder makes with a transaction; settled orders take it too."""
    await shop.refund()
    await shop.value("UPDATE orders SET state = 'SETTLED', settled_at = now() RETURNING 1")
    found = await shop.attach(7)
    assert (found.state, found.state_reason, found.tx_hash) == (RECORDED, "queued", tx(7))
    (claim,) = await shop.claims()
    await shop.say(final(claim.claim_id, moved(7)))
    assert await shop.stands() == (CONFIRMED, "")


@pytest.mark.parametrize(
    ("transfers", "reason"),
    [
        ([moved(7, sender=OTHER)], "wrong_sender"),
        ([moved(7, 999_999)], "wrong_amount"),
        ([moved(7, 1_000_001)], "wrong_amount"),
        ([moved(7, -1)], "wrong_amount"),
        ([moved(7, block_number=PAID_BLOCK - 1)], "mined_before_order"),
        ([moved(7, sender=OTHER), moved(7, 2_000_000, log_index=1)], "wrong_amount"),
    ],
)
async def test_a_transfer_that_does_not_fit_refutes(
    shop: Shop, transfers: Sequence[verifier_pb2.Transfer], reason: str
) -> None:
    """Another sender, more or less, or mined before the order was paid: REFUTED, with the reason that came nearest."""
    await shop.say(final(await shop.named(7), *transfers))
    assert await shop.stands() == (REFUTED, reason)
    assert await shop.claims() == []
    assert await shop.value("SELECT count(*) FROM refund_transfers") == 0


@pytest.mark.parametrize("reason", ["tx_failed", "wrong_token", "wrong_recipient", "no_transfer", "given_up"])
async def test_what_the_verifier_refutes_is_refuted(shop: Shop, reason: str) -> None:
    """The verifier's own reason is told."""
    await shop.say(rejected(await shop.named(7), reason))
    assert await shop.stands() == (REFUTED, reason)
    assert await shop.claims() == []


async def test_the_block_of_the_payment_is_early_enough(shop: Shop) -> None:
    """A refund may be mined in the block that paid, and dust below a minor unit is ignored."""
    dusty = moved(7, block_number=PAID_BLOCK)
    dusty.amount_base = str(10**18 + 10**12 - 1)
    await shop.say(final(await shop.named(7), dusty))
    assert await shop.stands() == (CONFIRMED, "")


async def test_one_fitting_transfer_among_others_confirms(shop: Shop) -> None:
    """A batch transaction proves a refund by the one transfer that fits."""
    transfers = [moved(7, sender=OTHER), moved(7, 3, log_index=1), moved(7, log_index=2), moved(7, log_index=3)]
    await shop.say(final(await shop.named(7), *transfers))
    assert await shop.stands() == (CONFIRMED, "")
    assert await shop.value("SELECT array_agg(log_index) FROM refund_transfers") == [2]


async def test_declared_addresses_are_what_counts(shop: Shop) -> None:
    """The claim goes to the declared recipient, and the declared sender counts instead of the wallet."""
    answer = await shop.refund(to_address=OTHER.lower(), from_address=PAYER.lower(), tx_hash=tx(7))
    found = answer.refund  # type: ignore[attr-defined]
    assert (found.to_address, found.from_address) == (OTHER, PAYER)
    assert found.unsigned_transaction.data == transfer_data(OTHER, 10**18)
    (claim,) = await shop.claims()
    assert claim.recipient == OTHER
    await shop.say(final(claim.claim_id, moved(7)))
    assert await shop.stands() == (REFUTED, "wrong_sender")
    await shop.attach(8)
    (claim,) = await shop.claims()
    assert claim.recipient == OTHER
    await shop.say(final(claim.claim_id, moved(8, sender=PAYER)))
    assert await shop.stands() == (CONFIRMED, "")


@pytest.mark.parametrize("field", ["to_address", "from_address"])
@pytest.mark.parametrize(
    "address", ["0x3c44CdDdB6a900fa2b585dd299e03d12FA4293BC", "0x" + "0" * 40, TOKEN_CONTRACT.lower(), "0x12"]
)
async def test_a_bad_address_is_refused_and_nothing_is_booked(shop: Shop, field: str, address: str) -> None:
    """A wrong checksum, the zero address, a token contract and what is no address name the field."""
    with pytest.raises(Fault) as caught:
        await shop.refund(**{field: address})
    assert (caught.value.reason, [item.field for item in caught.value.violations]) == ("invalid_request", [field])
    assert await shop.refunds() == []
    assert (await shop.suite.get()).refunded_minor == 0


async def test_a_refund_to_where_the_order_was_paid_is_refused(shop: Shop) -> None:
    """Money that the merchant sends to itself is no refund."""
    with pytest.raises(Fault) as caught:
        await shop.refund(to_address=WALLET)
    assert (caught.value.reason, [item.field for item in caught.value.violations]) == (
        "invalid_request",
        ["to_address"],
    )


async def test_an_order_that_the_wallet_paid_itself_is_never_confirmed(shop: Shop) -> None:
    """There the payer is the wallet: the refund is booked, but what goes to oneself could pay an order too."""
    await shop.sell("self", 3, sender=WALLET)
    claim = await shop.named(7, "r2", order_id="self")
    await shop.say(final(claim, moved(7)))
    assert await shop.stands("r2", "self") == (REFUTED, "wrong_recipient")
    declared = await shop.named(8, "r3", order_id="self", to_address=PAYER)
    await shop.say(final(declared, moved(8)))
    assert await shop.stands("r3", "self") == (CONFIRMED, "")


async def test_a_transfer_that_paid_an_order_proves_no_refund(shop: Shop) -> None:
    """What is a payment of the merchant's is not its refund as well."""
    await shop.say(final(await shop.named(1), moved(1)))
    assert await shop.stands() == (REFUTED, "already_used")


async def test_another_merchants_wallet_sends_its_own_refunds(shop: Shop) -> None:
    """Who copies another merchant's transaction and declares its wallet cannot use up that merchant's refund."""
    claim = await shop.named(7, from_address=OTHER_WALLET)
    await shop.say(final(claim, moved(7, sender=OTHER_WALLET)))
    assert await shop.stands() == (REFUTED, "wrong_sender")
    assert await shop.value("SELECT count(*) FROM refund_transfers") == 0


async def test_merchants_of_one_wallet_share_its_transfers(shop: Shop) -> None:
    """A transfer proves one refund, whichever of the wallet's merchants names it first."""
    await shop.suite.merchant("mrc_3")
    await shop.suite.create("ord_3", merchant_id="mrc_3")
    await shop.value(
        """WITH paid AS (
               INSERT INTO payments (chain_id, tx_hash, log_index, order_id, merchant_id, event_id, amount_base,
                                     amount_minor, sender, block_number, block_hash, block_time)
               SELECT 56, $1, 0, 'ord_3', 'mrc_3', uuidv7(), 1, 5000000, $2, 100, $1, now())
           UPDATE orders SET state = 'PAID', received_minor = 5000000, paid_at = now()
           WHERE id = 'ord_3' RETURNING 1""",
        tx(33),
        PAYER,
    )
    first = await shop.named(7)
    await shop.say(final(first, moved(7)))
    second = await shop.named(7, "r3", order_id="ord_3", merchant_id="mrc_3")
    await shop.say(final(second, moved(7)))
    assert [(item.state, item.state_reason) for item in await shop.refunds("ord_3", "mrc_3")] == [
        (REFUTED, "already_used")
    ]


async def test_refunds_that_race_for_one_transfer(shop: Shop) -> None:
    """Eight refunds of one amount name one transaction at once: exactly one is CONFIRMED, the others were too late."""
    await shop.sell("ord_2", 2)
    owners = {f"r{number}": "ord_1" if number < 4 else "ord_2" for number in range(8)}
    claims = [await shop.named(7, name, order_id=order_id) for name, order_id in owners.items()]
    await asyncio.gather(*(shop.say(final(claim, moved(7))) for claim in claims))
    found = [await shop.stands(name, order_id) for name, order_id in owners.items()]
    assert sorted(found) == [(CONFIRMED, "")] + [(REFUTED, "already_used")] * 7
    assert await shop.value("SELECT count(*) FROM refund_transfers") == 1
    assert await shop.claims() == []


async def test_one_batch_gives_a_transfer_to_one_refund(shop: Shop) -> None:
    """Two refunds of one amount, one transfer, one message of verdicts: the first has it."""
    claims = [await shop.named(7, name) for name in ("r1", "r2")]
    await shop.say(*(final(claim, moved(7)) for claim in claims))
    assert sorted([await shop.stands("r1"), await shop.stands("r2")]) == [(CONFIRMED, ""), (REFUTED, "already_used")]


async def test_two_logs_of_one_transaction_prove_two_refunds(shop: Shop) -> None:
    """Identity includes the log: at once or one after the other, each refund has a transfer of its own."""
    claims = [await shop.named(7, name) for name in ("r1", "r2", "r3", "r4")]
    logs = [moved(7, log_index=index) for index in range(3)]
    await asyncio.gather(*(shop.say(final(claim, *logs)) for claim in claims[:2]))
    await shop.say(*(final(claim, *logs) for claim in claims[2:]))
    found = sorted([await shop.stands(name) for name in ("r1", "r2", "r3", "r4")])
    assert found == [(CONFIRMED, "")] * 3 + [(REFUTED, "already_used")]
    assert await shop.value("SELECT array_agg(log_index ORDER BY log_index) FROM refund_transfers") == [0, 1, 2]


async def test_a_verdict_that_comes_again_changes_nothing(shop: Shop) -> None:
    """Twice in a message, twice at once, later, and contradicted afterwards: what is confirmed stays confirmed."""
    claim = await shop.named(7)
    verdict = final(claim, moved(7))
    await shop.say(verdict, verdict)
    before = (await shop.shown()).SerializeToString(deterministic=True)
    await asyncio.gather(*(shop.say(verdict) for _ in range(4)))
    await shop.say(waiting(claim, "not_found"))
    await shop.say(rejected(claim, "tx_failed"))
    assert (await shop.shown()).SerializeToString(deterministic=True) == before
    assert await shop.value("SELECT count(*) FROM refund_transfers") == 1


async def test_claims_and_proofs_share_a_message(shop: Shop) -> None:
    """Verdicts on an order's claim, on a refund's and on an unknown one, in one message: each does its own."""
    await shop.suite.create("ord_2")
    payment = await shop.claim("ord_2", 2)
    proof = await shop.named(7)
    unknown = str(UUID(int=5))
    paying = moved(2, 5_000_000, sender=PAYER)
    await shop.say(final(str(payment), paying), final(unknown, moved(8)), final(proof, moved(7)))
    assert (await shop.state("ord_2"), await shop.stands()) == ("PAID", (CONFIRMED, ""))
    assert await shop.claims() == []


async def test_the_same_transaction_again_changes_nothing(shop: Shop) -> None:
    """Named again while open, when confirmed, or when refuted: no second job, the refund as it stands."""
    claim = await shop.named(7)
    assert (await shop.attach(7)).state_reason == "queued"
    assert len(await shop.claims()) == 1
    await shop.say(final(claim, moved(7)))
    assert (await shop.attach(7)).state == CONFIRMED
    other = await shop.named(8, "r2")
    await shop.say(rejected(other, "tx_failed"))
    assert (await shop.attach(8, "r2")).state_reason == "tx_failed"
    assert await shop.claims() == []
    assert await shop.value("SELECT count(*) FROM refund_proofs") == 2


async def test_another_transaction_only_after_the_first_is_refuted(shop: Shop) -> None:
    """While one is open, or confirmed, another is refused; once refuted it is taken, and the trail stays."""
    claim = await shop.named(7)
    with pytest.raises(Fault) as caught:
        await shop.attach(8)
    assert caught.value.reason == "refund_transaction_exists"
    await shop.say(final(claim, moved(7, 1)))
    assert (await shop.attach(8)).state == RECORDED
    # Late words on the first are not words on the second.
    await shop.say(final(claim, moved(7)), rejected(claim, "tx_failed"))
    assert await shop.stands() == (RECORDED, "queued")
    (second,) = await shop.claims()
    await shop.say(final(second.claim_id, moved(8)))
    with pytest.raises(Fault) as caught:
        await shop.attach(9)
    assert caught.value.reason == "refund_transaction_exists"
    assert (await shop.shown()).tx_hash == tx(8)
    trail = await shop.value(
        "SELECT array_agg(attempt || ' ' || state || ' ' || reason ORDER BY attempt) FROM refund_proofs"
    )
    assert trail == ["1 REFUTED wrong_amount", "2 CONFIRMED "]


async def test_a_transaction_that_was_given_up_can_be_named_again(shop: Shop) -> None:
    """Unknown is not invalid: the same one is a new job, with a new claim."""
    first = await shop.named(7)
    await shop.say(rejected(first, "given_up"))
    assert (await shop.attach(7)).state == RECORDED
    (second,) = await shop.claims()
    assert second.claim_id != first
    await shop.say(final(second.claim_id, moved(7)))
    assert await shop.stands() == (CONFIRMED, "")


async def test_transactions_named_at_once_are_one(shop: Shop) -> None:
    """Ten callers name two transactions for one refund: one of the two is taken, and it is one job."""
    await shop.refund()
    results = await asyncio.gather(*(shop.attach(7 + number % 2) for number in range(10)), return_exceptions=True)
    assert [item.reason for item in results if isinstance(item, Fault)] == ["refund_transaction_exists"] * 5
    assert len(await shop.claims()) == 1


async def test_a_replay_shows_the_refund_as_it_stands_now(shop: Shop) -> None:
    """The first answer again, beside what the chain has said since; no second claim, no second booking."""
    claim = await shop.named(7)
    await shop.say(final(claim, moved(7)))
    answers = await asyncio.gather(*(shop.refund(tx_hash=tx(7)) for _ in range(4)))
    for answer in answers:
        assert (answer.replayed, answer.state, answer.refunded_minor) == (  # type: ignore[attr-defined]
            True,
            orders_pb2.ORDER_STATE_PAID,
            1_000_000,
        )
        assert answer.refund == await shop.shown()  # type: ignore[attr-defined]
    assert await shop.value("SELECT count(*) FROM refund_proofs") == 1
    assert await shop.claims() == []


async def test_equal_refunds_at_once_owe_one_proof(shop: Shop) -> None:
    """The same body ten times at once: one refund, one booking, one claim."""
    answers = await asyncio.gather(*(shop.refund(tx_hash=tx(7), to_address=OTHER) for _ in range(10)))
    assert sorted(item.replayed for item in answers) == [False] + [True] * 9  # type: ignore[attr-defined]
    assert len(await shop.claims()) == 1


async def test_declared_addresses_belong_to_the_body(shop: Shop) -> None:
    """The same addresses in another spelling replay; others, or none, are another body."""
    await shop.refund(to_address=OTHER)
    assert (await shop.refund(to_address=OTHER.lower())).replayed  # type: ignore[attr-defined]
    for fields in ({}, {"to_address": PAYER}, {"from_address": OTHER}, {"to_address": OTHER, "from_address": OTHER}):
        with pytest.raises(Fault) as caught:
            await shop.refund(**fields)
        assert caught.value.reason == "idempotency_mismatch"


@pytest.mark.parametrize("named", [None, 7])
async def test_rows_of_the_version_before_replay_and_can_be_proved(shop: Shop, named: int | None) -> None:
    """A refund without the new columns replays by its old fingerprint, goes to the payer, and takes a transaction."""
    await record_as_before(shop, named)
    fields = {"tx_hash": tx(named)} if named else {}
    answer = await shop.refund("old", **fields)
    found = answer.refund  # type: ignore[attr-defined]
    assert (answer.replayed, found.state, found.to_address, found.from_address) == (  # type: ignore[attr-defined]
        True,
        RECORDED,
        PAYER,
        WALLET,
    )
    assert (found.tx_hash, found.state_reason) == (tx(named) if named else "", "")
    assert await shop.claims() == []
    await shop.attach(7, "old")
    (claim,) = await shop.claims()
    assert claim.recipient == PAYER
    await shop.say(final(claim.claim_id, moved(7)))
    assert await shop.stands("old") == (CONFIRMED, "")


async def record_as_before(shop: Shop, named: int | None) -> None:
    """A refund of 1 USDT as the version before wrote it, fingerprint included."""
    tx_hash = tx(named) if named else None
    text = json.dumps(["ord_1", 1_000_000, "asked", tx_hash], separators=(",", ":"))
    await shop.value(
        """WITH made AS (
               INSERT INTO refunds (id, merchant_id, order_id, event_id, request_hash, amount_minor, reason, tx_hash,
                                    state_after, refunded_after)
               VALUES ('old', 'mrc_1', 'ord_1', uuidv7(), $1, 1000000, 'asked', $2, 'PAID', 1000000))
           UPDATE orders SET refunded_minor = 1000000 WHERE id = 'ord_1' RETURNING 1""",
        hashlib.sha256(text.encode()).digest(),
        tx_hash,
    )


async def test_a_replica_of_the_version_before_loses_no_debt(shop: Shop) -> None:
    """It closes the debt with the id of a verdict that it does not know; ours has another id and is delivered again."""
    claim = await shop.named(7)
    async with shop.suite.database.connection() as connection:
        await outbox.close(connection, [UUID(claim)])
    assert [item.claim_id for item in await shop.claims()] == [claim]


async def test_merchants_are_walled_off(shop: Shop) -> None:
    """Another merchant's refund or order is not there: nothing is named, nothing is shown."""
    await shop.refund()
    for refund_id, merchant_id in (("r1", "mrc_2"), ("nope", "mrc_1"), ("r1", "nobody")):
        with pytest.raises(Fault) as caught:
            await shop.attach(7, refund_id, merchant_id)
        assert (caught.value.kind.value, caught.value.reason) == ("NOT_FOUND", "refund_not_found")
    for order_id, merchant_id in (("ord_1", "mrc_2"), ("nope", "mrc_1")):
        with pytest.raises(Fault) as caught:
            await shop.refunds(order_id, merchant_id)
        assert (caught.value.kind.value, caught.value.reason) == ("NOT_FOUND", "order_not_found")
    assert await shop.claims() == []


async def test_refunds_are_listed_oldest_first(shop: Shop) -> None:
    """All of the order's and none of another's; an order without any has an empty list."""
    await shop.sell("ord_2", 2)
    for name in ("r3", "r1", "r2"):
        await shop.refund(name)
    assert [item.refund_id for item in await shop.refunds()] == ["r3", "r1", "r2"]
    assert await shop.refunds("ord_2") == []


async def test_the_doorbell_and_the_bus_carry_it(shop: Shop, nats_url: str) -> None:
    """The running service publishes the claim after its commit, and a verdict on the bus confirms the refund."""
    client = await nats.connect(nats_url)
    try:
        asked = await client.subscribe(CLAIMED)
        await client.flush()
        await shop.refund(tx_hash=tx(7))
        message = await asked.next_msg(timeout=10)
        (claim,) = verifier_pb2.BatchVerifyRequest.FromString(message.data).claims
        assert (claim.tx_hash, claim.recipient) == (tx(7), PAYER)
        answer = verifier_pb2.BatchVerifyResponse(verdicts=[final(claim.claim_id, moved(7))])
        await client.publish("ospay.verifier.v1.verdict", answer.SerializeToString())

        async def confirmed() -> bool:
            return (await shop.shown()).state == CONFIRMED

        await until(confirmed, "the refund to be confirmed")
    finally:
        await client.close()


async def test_random_histories_keep_the_promises(shop: Shop) -> None:
    """Whatever is named, said and repeated, at once: a transfer proves at most one refund, of exactly its amount."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)  # not for secrets
    print(f"seed {seed}")  # noqa: T201  # shown when this fails
    names = [f"r{number}" for number in range(8)]
    for name in names:
        await shop.refund(name, amount_minor=chance.choice([100_000, 200_000]))
    verdicts: list[verifier_pb2.Verdict] = []
    for _ in range(6):
        await asyncio.gather(*(shop.attach(chance.randrange(7, 10), name) for name in names), return_exceptions=True)
        for claim in await shop.claims():
            logs = [
                moved(int(claim.tx_hash, 16), chance.choice([100_000, 200_000, 300_000]), log_index=index)
                for index in range(chance.randrange(1, 4))
            ]
            word = chance.choice([final(claim.claim_id, *logs), waiting(claim.claim_id, "not_final")])
            verdicts.append(word)
        chance.shuffle(verdicts)
        await asyncio.gather(*(shop.say(*verdicts[start::3]) for start in range(3)))
    wrong = """SELECT count(*) FROM refund_proofs t JOIN refunds r ON r.id = t.refund_id
               LEFT JOIN refund_transfers x ON x.claim_id = t.claim_id
               WHERE (t.state = 'CONFIRMED') <> (x.amount_minor IS NOT DISTINCT FROM r.amount_minor)"""
    assert await shop.value(wrong) == 0
    assert await shop.value("SELECT count(*) FROM refund_transfers") == await shop.value(
        "SELECT count(DISTINCT refund_id) FROM refund_proofs WHERE state = 'CONFIRMED'"
    )
    owed = "SELECT count(*) FROM outbox o FULL JOIN refund_proofs t ON t.debt_id = o.event_id"
    lost = f"{owed} WHERE (t.state = 'OPEN') <> (o.event_id IS NOT NULL) AND t.claim_id IS NOT NULL"
    assert await shop.value(lost) == 0


PROOF = Proof(
    claim_id=UUID(int=1),
    debt_id=UUID(int=2),
    refund_id="r1",
    merchant_id="mrc_1",
    amount_minor=1_000_000,
    to_address=PAYER,
    from_address=None,
    wallet=None,
    deposit_address=OTHER,
    paid_block=PAID_BLOCK,
)


def test_a_merchant_without_a_wallet_may_send_from_anywhere() -> None:
    """Nothing declared and no wallet: any sender counts, but not the wallet of another merchant."""
    sent = transfer(7, 1_000_000, sender=OTHER)
    verdict = Verdict(PROOF.claim_id, Outcome.FINAL, transfers=(sent,))
    assert rule(PROOF, verdict, set(), set()) == Ruling(ProofState.CONFIRMED, "", sent)
    assert rule(PROOF, verdict, set(), {OTHER}) == Ruling(ProofState.REFUTED, "wrong_sender")
    own = replace(PROOF, wallet=OTHER)
    assert rule(own, verdict, set(), {OTHER}) == Ruling(ProofState.CONFIRMED, "", sent)


@given(
    st.binary(min_size=20, max_size=20).map(lambda raw: checksum_address("0x" + raw.hex())),
    st.integers(0, 2**256 - 1),
)
def test_the_call_data_is_that_of_an_independent_encoder(to: str, amount: int) -> None:
    """Whatever the address and the amount, eth-abi encodes the same call."""
    selector = keccak(text="transfer(address,uint256)")[:4]
    assert transfer_data(to, amount) == "0x" + (selector + encode(["address", "uint256"], [to, amount])).hex()
