"""Watches and reports by gRPC and over NATS, on a whole verifier."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from chains import checksum_address
from kit.bus import Bus
from kit.errors import Fault, Kind
from ospay.verifier.v1 import verifier_pb2 as pb

ONE = 10**18
SEEN, FINAL = pb.SIGHTING_STATE_SEEN, pb.SIGHTING_STATE_FINAL


def watch(address, **fields):
    """A watch from the first block on."""
    message = pb.Watch(**{"watch_id": str(uuid4()), "chain": "BSC", "address": address, "from_block": 1, **fields})
    if not message.HasField("from_time"):
        message.from_time.seconds = 1_600_000_000
    return message


class Client:
    """The rpcs of watching."""

    def __init__(self, verifier):
        self.verifier = verifier
        self.told = []

    async def listen(self):
        """Hears what is published."""

        async def hear(message):
            self.told.extend(pb.TakeReportsResponse.FromString(message.data).reports)

        await self.verifier.nats.subscribe("ospay.verifier.v1.transfers", cb=hear)
        await self.verifier.nats.flush()

    async def call(self, name, request):
        """One rpc."""
        return await self.verifier.peer.call(getattr(self.verifier.stub, name), request, timeout=5)

    async def watch(self, *watches):
        """Watches addresses."""
        return await self.call("BatchWatch", pb.BatchWatchRequest(watches=watches))

    async def take(self, limit=500):
        """Takes open reports."""
        return list((await self.call("TakeReports", pb.TakeReportsRequest(limit=limit))).reports)

    async def confirm(self, *versions):
        """Confirms (id, version)."""
        reports = [pb.ReportVersion(report_id=id, version=version) for id, version in versions]
        await self.call("ConfirmReports", pb.ConfirmReportsRequest(reports=reports))

    async def coverage(self, chain="BSC"):
        """What was looked through."""
        return await self.call("ListCoverage", pb.ListCoverageRequest(chain=chain))


@pytest.fixture
async def client(verifier):
    """A client of a verifier straight on the dev chain."""
    made = Client(verifier)
    await made.listen()
    return made


async def test_a_payment_is_told_as_it_becomes_final(client, anvil, until):
    """Watched, paid, never claimed: SEEN is published, then FINAL, with the amount, the sender and the heights."""
    await anvil.mine(10)
    payer, shop = map(checksum_address, anvil.accounts[:2])
    await client.watch(watch(shop))
    tx = await anvil.send_token(payer, shop, 1_500_000_000_000_000_000, mine=True)

    async def told(state):
        return any(report.state == state for report in client.told)

    await until(lambda: told(SEEN))
    await anvil.finalize()
    await until(lambda: told(FINAL))
    seen, final = client.told[0], client.told[-1]
    assert (seen.report_id, seen.version + 1) == (final.report_id, final.version)
    assert ("BSC", "USDT", 56, tx) == (final.chain, final.asset, final.transfer.chain_id, final.transfer.tx_hash)
    assert (payer, shop) == (final.transfer.sender, final.transfer.recipient)
    assert ("1500000000000000000", 1_500_000) == (final.transfer.amount_base, final.transfer.amount_minor)
    receipt = await anvil.receipt(tx)
    block = (int(receipt["blockNumber"], 16), receipt["blockHash"])
    assert block == (final.transfer.block_number, final.transfer.block_hash)
    assert final.head_number >= final.finalized_number >= block[0] > seen.finalized_number


async def test_reports_are_handed_out_until_they_are_confirmed(client, anvil, until):
    """A taken report is kept from others for some seconds; an older version confirms nothing newer."""
    await anvil.mine(10)
    await client.watch(watch(anvil.accounts[1]))
    await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.finalize()
    taken = []

    async def some():
        taken.extend(await client.take())
        return any(report.state == FINAL for report in taken)

    await until(some)
    report = taken[-1]
    assert [] == await client.take()
    await client.confirm((report.report_id, report.version + 5))
    await client.confirm((report.report_id, report.version - 1))
    await client.confirm((str(uuid4()), 1))
    row = "SELECT version, confirmed_version FROM sightings"
    assert [(report.version, report.version - 1)] == await rows(client, row)
    await client.confirm((report.report_id, report.version), (report.report_id, report.version - 1))
    assert [(report.version, report.version)] == await rows(client, row)
    await rows(client, "UPDATE sightings SET next_report_at = now() RETURNING 1")
    assert [] == await client.take()


async def rows(client, query):
    """What the database says, by the migrations' role."""
    connection = await asyncpg.connect(client.verifier.database.owner_url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def test_two_takers_share_the_reports(client, anvil, until):
    """No report is handed to two takers at once, and each asks for as many as it can bear."""
    await anvil.mine(10)
    await client.watch(watch(anvil.accounts[1]))
    for amount in range(10):
        await anvil.send_token(anvil.accounts[0], anvil.accounts[1], amount + 1)
    await anvil.mine()

    async def ten():
        return [(10,)] == await rows(client, "SELECT count(*) FROM sightings")

    await until(ten)
    await rows(client, "UPDATE sightings SET next_report_at = now() RETURNING 1")
    taken = await asyncio.gather(*(client.take(4) for _ in range(3)))
    ids = [report.report_id for part in taken for report in part]
    assert (10, 10) == (len(ids), len(set(ids)))
    assert max(map(len, taken)) == 4


async def test_coverage_has_no_gap(client, anvil, until):
    """Coverage is empty, then one range up to the newest final block with its hash, and what is watched is counted."""
    await anvil.mine(10)
    empty = await client.coverage()
    assert ([], 0, 0) == (list(empty.ranges), empty.scanned_number, empty.watched_count)
    await client.watch(watch(anvil.accounts[1]), watch(anvil.accounts[2], from_block=0))

    async def covered():
        await anvil.mine()
        answer = await client.coverage()
        return len(answer.ranges) == 1 and answer.catching_up_count == 0

    await until(covered)
    answer = await client.coverage()
    (span,) = answer.ranges
    header = await anvil.rpc("eth_getBlockByNumber", hex(span.last_number), False)
    assert ([], 2, header["hash"]) == (list(answer.gaps), answer.watched_count, span.last_hash)
    assert span.first_number <= span.last_number < answer.scanned_number


async def test_bad_watches_are_refused_whole(client, anvil):
    """What breaks the contract is refused by name, and its whole batch with it."""
    good = watch(anvil.accounts[1])
    bad = [
        (watch(anvil.accounts[1], chain="NOPE"), "unknown_chain"),
        (watch("0x12"), "invalid_request"),
        (watch(anvil.accounts[1], watch_id="1"), "invalid_request"),
        (watch(anvil.accounts[1], from_block=-1), "invalid_request"),
        (pb.Watch(watch_id=str(uuid4()), chain="BSC", address=anvil.accounts[1]), "invalid_request"),
    ]
    far = watch(anvil.accounts[1])
    far.until.seconds = 2**62
    odd = watch(anvil.accounts[1])
    odd.from_time.nanos = -5
    for message, reason in [*bad, (far, "invalid_request"), (odd, "invalid_request")]:
        with pytest.raises(Fault) as refused:
            await client.watch(good, message)
        assert ("INVALID_ARGUMENT", reason) == (refused.value.kind.value, refused.value.reason)
    for count in (0, 1001):
        with pytest.raises(Fault) as refused:
            await client.watch(*[good] * count)
        assert "invalid_request" == refused.value.reason
    with pytest.raises(Fault) as refused:
        await client.coverage("NOPE")
    assert "unknown_chain" == refused.value.reason
    assert 0 == (await client.coverage()).watched_count


async def test_a_watch_told_twice_is_one(client, anvil):
    """The same watch again, in any case, twice in a batch or from two callers at once, changes nothing."""
    first = watch(anvil.accounts[1], from_block=5)
    shouted = watch("0x" + anvil.accounts[1][2:].upper(), from_block=5)
    await asyncio.gather(*(client.watch(first, shouted, watch(anvil.accounts[2])) for _ in range(5)))
    before = await rows(client, "SELECT xmin::text, from_block, until FROM watches ORDER BY address")
    await client.watch(first)
    assert before == await rows(client, "SELECT xmin::text, from_block, until FROM watches ORDER BY address")
    assert 2 == len(before)


async def test_reports_are_taken_while_nats_is_away(start_verifier, anvil, until, monkeypatch):
    """Without a broker reports are found by TakeReports, and the scan goes on."""

    async def away(*_):
        raise Fault(Kind.UNAVAILABLE, "unavailable", "not connected to NATS")

    monkeypatch.setattr(Bus, "publish", away)
    await anvil.mine(10)
    client = Client(await start_verifier(anvil.url))
    await client.watch(watch(anvil.accounts[1]))
    await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.finalize()

    async def taken():
        return any(report.state == FINAL for report in await client.take())

    await until(taken)
