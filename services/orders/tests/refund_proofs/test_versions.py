"""Refunds that were recorded by the version before, or are recorded by it beside this one."""

from __future__ import annotations

import hashlib
import json
from uuid import UUID

import pytest

from orders.store import outbox
from services.orders.tests.conftest import WALLET  # type: ignore[import-not-found]
from services.orders.tests.desk import tx  # type: ignore[import-not-found]
from services.orders.tests.refund_proofs.shop import (  # type: ignore[import-not-found]
    CONFIRMED,
    PAYER,
    RECORDED,
    Shop,
    final,
    moved,
)


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
