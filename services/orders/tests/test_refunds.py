"""To whom a refund goes, and that what sent an item of suspense back is no refund as well, on a real database."""

from __future__ import annotations

import pytest

from kit.errors import Fault
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
from services.orders.tests.test_refund_proofs import (  # type: ignore[import-not-found]
    CONFIRMED,
    Shop,
    final,
    moved,
)
from services.orders.tests.test_suspense import Operator  # type: ignore[import-not-found]

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
