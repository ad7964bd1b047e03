"""A block whose logs are more than an endpoint shows at once is looked through all the same: anyone can make one."""

from datetime import UTC, datetime, timedelta

import pytest

from services.verifier.tests.malicious import malicious
from verifier import jsonrpc
from verifier.watch.store import sightings

ONE = 10**18
BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
CAP = 40_000  # bytes: some 60 logs
TOO_MANY = {"code": -32005, "message": "query returned more than 10000 results"}


def refusing(*heights):
    """Refuses the logs of ranges with one of these blocks."""

    def lie(asked, answers):
        for question, answer in zip(asked, answers, strict=True):
            if question["method"] == "eth_getLogs":
                first, last = (int(question["params"][0][key], 16) for key in ("fromBlock", "toBlock"))
                if any(first <= height <= last for height in heights):
                    del answer["result"]
                    answer["error"] = TOO_MANY
        return answers

    return lie


@pytest.fixture
async def dust(anvil):
    """`await dust(transactions, transfers)` sends so many transfers to the shop in each transaction; none is mined."""
    batch = await anvil.deploy("Batch")
    await anvil.send_token(anvil.accounts[0], batch, ONE, mine=True)

    async def send(transactions, transfers):
        shop = [anvil.accounts[1]] * transfers
        values = list(range(1, transfers + 1))
        return [await anvil.call("Batch", batch, "pay", anvil.token, shop, values) for _ in range(transactions)]

    return send


@pytest.fixture
async def following(watcher, anvil):
    """The watcher, with a look behind it."""
    await watcher.watch(anvil.accounts[1], from_block=await anvil.head())
    await watcher.passes()
    return watcher


async def test_a_block_with_more_logs_than_an_answer_may_hold_is_looked_through(following, anvil, dust, monkeypatch):
    """Dust fills a block past the cap on answers: every transfer in it, and what is paid in it and after, is FINAL."""
    monkeypatch.setattr(jsonrpc, "MAX_BODY_BYTES", CAP)
    await dust(6, 20)
    paid = [await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)]
    paid.append(await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True))
    await anvil.finalize()
    await following.passes()
    assert ["FINAL"] * 122 == await following.states()
    assert paid == [tx for _, amount, tx in await following.seen() if amount == ONE]
    assert await anvil.finalized() == (await following.covered())[0]


async def test_a_block_whose_logs_are_refused_is_looked_through(following, liar, anvil, dust):
    """An endpoint with a bound on the number of logs, which has shown some, is asked for the block's receipts."""
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    liar.lie = refusing(await anvil.head())
    await anvil.finalize()
    await following.passes()
    assert [("FINAL", ONE, tx)] == await following.seen()
    assert await anvil.finalized() == (await following.covered())[0]


async def test_the_second_look_and_the_past_go_through_such_a_block(make_watcher, anvil, dust, monkeypatch):
    """Where a block is too large the second look is by the other operator's receipts, and so is a new address' past."""
    monkeypatch.setattr(jsonrpc, "MAX_BODY_BYTES", CAP)
    await anvil.mine(10)
    async with malicious(anvil.url) as ann, malicious(anvil.url) as ben:
        watcher = await make_watcher(ann=ann.url, ben=ben.url)
        await watcher.watch(anvil.accounts[1], anvil.accounts[2], from_block=await anvil.head())
        await watcher.passes()
        await dust(6, 20)
        tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[3], ONE, mine=True)
        large = await anvil.head()
        await anvil.mine(20)
        await watcher.passes()
        watcher.scanner._sweep_at = 0.0
        await watcher.passes()
        assert (await watcher.covered())[1] > large
        assert ben.calls["eth_getTransactionReceipt"] > 7
        await watcher.watch(anvil.accounts[3], from_block=large - 1)
        await watcher.passes()
        assert tx in [found for _, _, found in await watcher.seen()]


async def test_while_it_is_not_final_it_is_passed_over(following, liar, anvil, dust, monkeypatch):
    """What is paid above such a block is SEEN at once; it is asked for once, and is not told as looked through."""
    await following.watch(anvil.accounts[2])
    await following.passes()
    monkeypatch.setattr(jsonrpc, "MAX_BODY_BYTES", CAP)
    await dust(6, 20)
    await anvil.mine()
    large = await anvil.head()
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[2], ONE, mine=True)
    asked = []

    def note(requests, answers):
        queries = [each["params"][0] for each in requests if each["method"] == "eth_getLogs"]
        asked.extend(int(each["toBlock"], 16) for each in queries if int(each["fromBlock"], 16) <= large)
        return answers

    liar.lie = note
    await following.rows("UPDATE cursors SET looked_through_at = $1 RETURNING chain_id", BEFORE)
    following.scanner._progress._noted_at = 0.0
    await following.passes(3)
    assert [("SEEN", ONE, tx)] == await following.seen()
    assert 1 == asked.count(large)
    covered = await following.register.coverage(56)
    assert covered.position.scanned < large
    assert BEFORE == covered.looked_through_at
    await anvil.finalize()
    await following.passes()
    assert 121 == len(await following.seen())
    assert {"FINAL"} == set(await following.states())


async def test_a_transaction_that_is_too_large_alone_is_passed_over(following, anvil, dust, monkeypatch):
    """It could not be proved either; what is paid beside it is."""
    monkeypatch.setattr(jsonrpc, "MAX_BODY_BYTES", CAP)
    await dust(1, 80)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.finalize()
    await following.passes()
    assert [("FINAL", ONE, tx)] == await following.seen()


async def test_what_is_left_out_beside_such_transactions_is_asked_for_again(following, anvil, dust, monkeypatch):
    """Twenty of them in one block leave out the receipts beside them; payments among these are FINAL all the same."""
    monkeypatch.setattr(jsonrpc, "MAX_BODY_BYTES", CAP // 2)
    await dust(20, 35)
    paid = {await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE) for _ in range(2)}
    await anvil.finalize()
    await following.passes()
    assert {("FINAL", ONE, tx) for tx in paid} == set(await following.seen())


async def test_what_cannot_be_settled_is_looked_at_ever_more_rarely(following, anvil, dust, monkeypatch):
    """A sighting whose receipt is too large: soon at first, twice a minute in the first hour, after 20 once an hour."""
    await dust(1, 80)
    await anvil.finalize()
    due = """SELECT min(extract(epoch FROM next_look_at - clock_timestamp())) AS soonest,
                    max(extract(epoch FROM next_look_at - clock_timestamp())) AS latest FROM sightings"""
    await following.scanner._follow(await following.panel.heads())
    monkeypatch.setattr(jsonrpc, "MAX_BODY_BYTES", CAP)
    await following.passes()
    (soon,) = await following.rows(due)
    waited = """UPDATE sightings SET changed_at = now() - $1::interval, looks = 16, next_look_at = now() RETURNING id"""
    await following.rows(waited, timedelta(minutes=50))
    await following.passes()
    (early,) = await following.rows(due)
    await following.rows(waited, timedelta(hours=20))
    await following.passes()
    (late,) = await following.rows(due)
    assert soon["latest"] < 1
    assert 20 < early["soonest"] <= early["latest"] <= 30
    assert 3000 < late["soonest"] <= late["latest"] < 4000
    assert {"SEEN"} == set(await following.states())


async def test_more_sightings_than_one_statement_takes_are_stored(following, anvil, dust, monkeypatch):
    """What a block shows is stored in parts, in one commit with the cursor, and each transfer once."""
    monkeypatch.setattr(sightings, "ROWS_PER_STATEMENT", 7)
    await dust(2, 20)
    await anvil.finalize()
    await following.passes()
    assert sorted([*range(1, 21)] * 2) == sorted(amount for _, amount, _ in await following.seen())


async def test_many_transfers_of_one_transaction_do_not_fill_a_batch(following, anvil, dust):
    """What has waited longest is settled first, by transactions: those with many transfers do not go one by one."""
    await dust(4, 60)
    await anvil.mine()
    await following.passes()
    async with following.pool.connection() as connection:
        due = await sightings.due(connection, 56, await anvil.head(), 50)
    assert 240 == len(due)
