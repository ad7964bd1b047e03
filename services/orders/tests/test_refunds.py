"""To whom a refund goes, and that what sent an item of suspense back is no refund as well, on a real database."""

from __future__ import annotations

import asyncio

import pytest

from kit.errors import Fault
from local.process import until
from ospay.orders.v1 import orders_pb2
from services.orders.tests.conftest import Suite  # type: ignore[import-not-found]
from services.orders.tests.desk import (  # type: ignore[import-not-found]
    CHAINS,
    FIVE,
    PAYER,
    REVERSED,
    report,
    tx,
    xpub_merchant,
)
from services.orders.tests.played import PlayedVerifier  # type: ignore[import-not-found]
from services.orders.tests.refund_proofs.shop import (  # type: ignore[import-not-found]
    CONFIRMED,
    REFUTED,
    Shop,
    final,
    moved,
)
from services.orders.tests.suspense.operator import Operator  # type: ignore[import-not-found]

STRANGER = "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65"


class House(Shop, Operator):  # type: ignore[misc]
    """The operator, and a merchant with addresses for each order (mrc_1)."""

    async def refused(self, refund_id: str = "r1", **fields: object) -> tuple[str, list[str]]:
        """(reason, fields) of a refund that is refused."""
        with pytest.raises(Fault) as caught:
            await self.refund(refund_id, **fields)
        return caught.value.reason, [item.field for item in caught.value.violations]


@pytest.fixture
def settings(verifier: PlayedVerifier) -> dict[str, object]:
    return {"verifier_target": f"127.0.0.1:{verifier.server.port}", "chains_file": CHAINS}


@pytest.fixture
async def house(suite: Suite) -> House:
    await xpub_merchant(suite)
    return House(suite)


async def address(house: House, order_id: str = "ord_1", **fields: object) -> str:
    created: orders_pb2.CreateOrderResponse = await house.suite.create(order_id, **fields)
    return created.order.deposit_address


async def test_a_strangers_dust_is_no_reason_to_refund_to_him(house: House) -> None:
    """Dust that came before the customer's payment: a refund has to say to whom, and that address is what is proved."""
    own = await address(house)
    await house.find(report(own, 1, 1, sender=STRANGER), report(own, 2, block_number=102))
    assert await house.refused(amount_minor=FIVE) == ("ambiguous_payer", ["to_address"])
    assert (await house.refunds(), (await house.suite.get()).refunded_minor) == ([], 0)
    answer = await house.refund(amount_minor=FIVE, to_address=PAYER, tx_hash=tx(7))
    assert answer.refund.to_address == PAYER  # type: ignore[attr-defined]
    (claim,) = await house.claims()
    assert claim.recipient == PAYER
    await house.say(final(claim.claim_id, moved(7, FIVE)))
    assert (await house.shown()).state == CONFIRMED


async def test_parts_of_one_payer_are_refunded_to_him(house: House) -> None:
    """However many parts a customer paid in, the payer is known."""
    own = await address(house)
    await house.find(report(own, 1, 2_000_000), report(own, 2, 3_000_000))
    answer = await house.refund()
    assert answer.refund.to_address == PAYER  # type: ignore[attr-defined]


async def test_what_was_taken_back_has_no_payer(house: House) -> None:
    """Only the senders of what the order still has count: the one whose payment the chain took back does not."""
    own = await address(house)
    await house.find(report(own, 1, 2_000_000, sender=STRANGER), report(own, 2, 3_000_000, block_number=102))
    await house.find(report(own, 1, 2_000_000, REVERSED, version=2, sender=STRANGER))
    answer = await house.refund()
    assert answer.refund.to_address == PAYER  # type: ignore[attr-defined]


@pytest.mark.parametrize("is_surplus", [False, True])
async def test_what_the_operator_allocated_has_a_payer_too(house: House, is_surplus: bool) -> None:
    """An item of another sender, a whole transfer or what was too much for another order, makes the payer ambiguous."""
    paid = FIVE if is_surplus else 0
    await house.find(report(await address(house, "ord_2"), 1, paid + 2_000_000, sender=STRANGER))
    own = await address(house)
    (item,) = await house.items()
    await house.allocate(item.suspense_id)
    await house.find(report(own, 2, 3_000_000, block_number=102))
    assert await house.state() == "PAID"
    assert await house.refused() == ("ambiguous_payer", ["to_address"])


async def test_a_refund_of_before_with_several_payers_names_no_transaction(house: House) -> None:
    """A row of the version before, with no address, of an order that several have paid: no transfer can prove it."""
    own = await address(house)
    await house.find(report(own, 1, 1, sender=STRANGER), report(own, 2, block_number=102))
    await house.refund(to_address=PAYER)
    await house.owner("UPDATE refunds SET to_address = NULL")
    assert (await house.shown()).to_address == ""
    with pytest.raises(Fault) as caught:
        await house.attach(7)
    assert caught.value.reason == "ambiguous_payer"
    assert await house.claims() == []


async def held(house: House, number: int, amount: int = FIVE) -> str:
    """What came for an order beyond what it asks for; returns the id of the item."""
    own = await address(house, f"twice_{number}")
    await house.find(report(own, number, FIVE + amount))
    (item,) = await house.items(state=orders_pb2.SUSPENSE_STATE_OPEN)
    return item.suspense_id


async def return_refused(house: House, item: str, number: int) -> str:
    with pytest.raises(Fault) as caught:
        await house.give_back(item, tx_hash=tx(number))
    return caught.value.reason


async def test_what_sent_an_item_back_proves_no_refund(house: House) -> None:
    """The customer paid twice and got one payment back: noted as the return, it is not the refund as well."""
    item = await held(house, 1)
    await house.give_back(item, tx_hash=tx(7).upper().replace("X", "x"))
    await house.refund(order_id="twice_1", amount_minor=FIVE, tx_hash=tx(7))
    (claim,) = await house.claims()
    await house.say(final(claim.claim_id, moved(7, FIVE), moved(7, FIVE, log_index=1)))
    assert await house.stands("r1", "twice_1") == (REFUTED, "already_used")
    await house.attach(8)
    (claim,) = await house.claims()
    await house.say(final(claim.claim_id, moved(8, FIVE)))
    assert await house.stands("r1", "twice_1") == (CONFIRMED, "")


async def test_what_is_named_after_the_return_proves_no_refund_either(house: House) -> None:
    """Sent back first, and its transaction named later: by then it may prove a refund, and else it never will."""
    item = await held(house, 1)
    await house.give_back(item)
    await house.give_back(item, tx_hash=tx(7))
    await house.refund(order_id="twice_1", amount_minor=FIVE, tx_hash=tx(7))
    (claim,) = await house.claims()
    await house.say(final(claim.claim_id, moved(7, FIVE)))
    assert await house.stands("r1", "twice_1") == (REFUTED, "already_used")
    await house.attach(8)
    (claim,) = await house.claims()
    await house.say(final(claim.claim_id, moved(8, FIVE)))
    later = await held(house, 2)
    await house.give_back(later)
    assert await return_refused(house, later, 8) == "transaction_proves_refund"


async def test_what_proves_a_refund_sends_no_item_back(house: House) -> None:
    """Named for the return of an item it is refused, and nothing is changed; another transaction, or none, is taken."""
    item = await held(house, 1)
    await house.refund(order_id="twice_1", amount_minor=FIVE, tx_hash=tx(7))
    (claim,) = await house.claims()
    await house.say(final(claim.claim_id, moved(7, FIVE)))
    before = await house.items()
    assert await return_refused(house, item, 7) == "transaction_proves_refund"
    assert await house.items() == before
    done = await house.give_back(item, tx_hash=tx(8))
    assert done.state == orders_pb2.SUSPENSE_STATE_RETURNED
    assert await house.give_back(item, tx_hash=tx(8)) == done
    assert await return_refused(house, item, 7) == "transaction_proves_refund"


async def test_a_return_waits_for_a_refund_that_is_proved(house: House) -> None:
    """One transaction for both at the same moment: the return sees what the proof that it waited for has used."""
    item = await held(house, 1)
    await house.refund(order_id="twice_1", amount_minor=FIVE, tx_hash=tx(7))
    (claim,) = await house.claims()
    async with house.suite.database.connection() as connection:
        gate = connection.transaction()
        await gate.start()
        # The proof stops at this key, when it has looked who uses the transfer and not yet written that it does.
        await connection.execute(
            """
            INSERT INTO refund_transfers (chain_id, tx_hash, log_index, claim_id, refund_id, merchant_id, amount_base,
                                          amount_minor, sender, block_number, block_hash, block_time)
            VALUES (56, $1, 0, uuidv7(), 'none', 'none', 1, 1, $2, 1, $1, now())
            """,
            tx(7),
            PAYER,
        )
        proving = asyncio.create_task(house.say(final(claim.claim_id, moved(7, FIVE))))
        await until(lambda: house.are_waiting(1), "the proof to stop")
        returning = asyncio.create_task(return_refused(house, item, 7))
        await until(lambda: house.are_waiting(2), "the return to wait for the proof")
        await gate.rollback()
    await proving
    assert (await returning, await house.stands("r1", "twice_1")) == ("transaction_proves_refund", (CONFIRMED, ""))


async def test_returns_and_refunds_that_race_for_one_transaction(house: House) -> None:
    """Whichever is first, a transaction sends an item back or proves a refund, never both and never neither."""
    for number in range(1, 9):
        item = await held(house, number)
        refund_id, order_id, sent = f"r{number}", f"twice_{number}", 100 + number
        await house.refund(refund_id, order_id, amount_minor=FIVE, tx_hash=tx(sent))
        (claim,) = await house.claims()
        returned, _ = await asyncio.gather(
            house.give_back(item, tx_hash=tx(sent)),
            house.say(final(claim.claim_id, moved(sent, FIVE))),
            return_exceptions=True,
        )
        is_proved = (await house.stands(refund_id, order_id))[0] == CONFIRMED
        assert is_proved == isinstance(returned, Fault)
        await house.give_back(item)
