"""The scanner may end between any two writes, or stand still and wake up too late: nothing is lost, nothing doubled."""

import asyncio
import os
import re
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from kit.database import Database
from kit.process import Process
from local.ports import free_port
from services.verifier.tests.malicious import changing, dropped, fails, of
from verifier.domain import StoreUnavailable
from verifier.store import ProofStore
from verifier.watch import leader
from verifier.watch.leader import Lock
from verifier.watch.register import Register
from verifier.watch.scanner import Scanner
from verifier.watch.store.cursors import Fenced
from verifier.watch.watching import Watch

ONE = 10**18
TAKEOVER_SECONDS = 10.0


class Crash(BaseException):
    """The process is gone."""


class Mortal:
    """A database whose user dies at its n-th write: before the commit, or right after it."""

    def __init__(self, database, dies_at, *, before_commit):
        self._database = database
        self._dies_at = dies_at
        self._before_commit = before_commit
        self.uses = 0

    @asynccontextmanager
    async def connection(self):
        """One use, without a transaction."""
        async with self._database.connection() as connection:
            yield connection
        self._use()

    @asynccontextmanager
    async def transaction(self):
        """One use, in a transaction."""
        async with self._database.transaction() as connection:
            yield connection
            if self._before_commit and self.uses + 1 == self._dies_at:
                raise Crash
        self._use()

    def _use(self):
        self.uses += 1
        if self.uses == self._dies_at:
            raise Crash


class Shop:
    """Applies reports as orders does: once by transfer, and confirms what is applied; it may die in between as well."""

    def __init__(self, register):
        self.register = register
        self.credited = {}

    async def collect(self, *, dies=False):
        """Takes all that is open; without confirming when it dies."""
        while reports := await self.register.take(500):
            for report in reports:
                if report.state == "FINAL":
                    key = (report.transfer.tx_hash, report.transfer.log_index)
                    assert self.credited.setdefault(key, report.transfer.amount_base) == report.transfer.amount_base
            if dies:
                return
            await self.register.confirm([(report.id, report.version) for report in reports])


@pytest.mark.parametrize("before_commit", [True, False], ids=["before a commit", "after a commit"])
async def test_a_crash_at_any_write_loses_and_doubles_nothing(watcher, anvil, before_commit):
    """Killed at the first write, at the second … of a pass: the next process ends with every payment FINAL once."""
    shop = Shop(watcher.register)
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    paid, died = set(), 0
    for point in range(1, 16):
        late = anvil.accounts[2 + point % 6]
        paid.add(await anvil.send_token(anvil.accounts[0], anvil.accounts[1], point))
        paid.add(await anvil.send_token(anvil.accounts[0], late, point, mine=True))
        await anvil.finalize()
        await watcher.watch(late)
        mortal = Mortal(watcher.pool, point, before_commit=before_commit)
        scanner = Scanner(watcher.panel, mortal, ProofStore(mortal), set, watcher.rung.extend)
        try:
            await scanner.begin()
            scanner._sweep_at = 0.0
            while await scanner.look():
                pass
        except Crash:
            died += 1
        await watcher.scanner.begin()
        await watcher.passes()
        await watcher.rows("UPDATE sightings SET next_report_at = now() RETURNING id")
        await shop.collect(dies=point % 2 == 0)
    await watcher.rows("UPDATE sightings SET next_report_at = now() RETURNING id")
    await shop.collect()
    found = await watcher.seen()
    assert ({"FINAL"}, paid) == ({state for state, _, _ in found}, {tx for _, _, tx in found})
    assert len(paid) == len(found) == len(shop.credited)
    assert died > 10
    assert await anvil.finalized() == (await watcher.covered())[0]


@pytest.mark.parametrize("before_commit", [True, False], ids=["before a commit", "after a commit"])
async def test_a_crash_at_any_write_of_an_incident_settles_it_all_the_same(watcher, anvil, monkeypatch, before_commit):
    """Killed anywhere between a deep reorganisation and its settlement: the lost is REVERSED, the moved is kept."""
    monkeypatch.setattr("verifier.watch.decisions.DOUBT_SECONDS", 0.0)
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    died = 0
    for point in range(1, 13):
        lost = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], point, mine=True)
        kept = await anvil.send_token(anvil.accounts[5], anvil.accounts[1], point, mine=True)
        signed = await anvil.rpc("eth_getRawTransactionByHash", kept)
        await anvil.finalize()
        await watcher.scanner.begin()
        await watcher.passes()
        await anvil.rpc("anvil_reorg", 8, [[signed, 4]])
        await anvil.finalize()
        mortal = Mortal(watcher.pool, point, before_commit=before_commit)
        scanner = Scanner(watcher.panel, mortal, ProofStore(mortal), set, watcher.rung.extend)
        try:
            await scanner.begin()
            while await scanner.look():
                pass
        except Crash:
            died += 1
        await watcher.scanner.begin()
        await watcher.passes(2)
        standing = [(state, tx) for state, _, tx in await watcher.seen() if state != "GONE" and tx in (lost, kept)]
        assert {("REVERSED", lost), ("FINAL", kept)} == set(standing)
        assert 2 == len(standing)
    assert died > 7


async def test_a_stale_leader_writes_nothing(watcher, make_watcher, liar, anvil):
    """A scanner whose term is over finds out at its next write, whatever it was about to write."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    second = await make_watcher(liar.url)
    with pytest.raises(Fenced):
        await watcher.passes()
    assert [] == await watcher.seen()
    await second.passes()
    assert [("SEEN", ONE, tx)] == await second.seen()


async def test_a_database_that_goes_away_loses_nothing(watcher, anvil):
    """A pass that meets a closed database ends with a named error; the next one on a new pool goes on."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.finalize()
    opened = await Database.open(watcher.database.url, application="test")
    scanner = Scanner(watcher.panel, opened, ProofStore(opened), set, watcher.rung.extend)
    await scanner.begin()
    await opened.close()
    with pytest.raises(StoreUnavailable):
        await scanner.look()
    await watcher.scanner.begin()
    await watcher.passes()
    assert [("FINAL", ONE, tx)] == await watcher.seen()


async def test_the_lock_goes_with_its_session(made, until):
    """One holds the lock of a chain; when its session ends another takes it at its next try."""
    first, second = Lock(made.url, 56), Lock(made.url, 56)
    other_chain = Lock(made.url, 97)
    try:
        assert [True, False, True] == [await lock.take() for lock in (first, second, other_chain)]
        first.release()
        await until(second.take)
    finally:
        for lock in (first, second, other_chain):
            lock.release()


@pytest.fixture
async def follow(made, monkeypatch):
    """`follow(watcher)` is a replica that leads when it can; one that is blind leaves the lead after half a second."""
    monkeypatch.setattr(leader, "BLIND_SECONDS", 0.5)
    process = Process()
    running = []

    def start(watcher):
        work = leader.follow(watcher.scanner, Lock(made.url, 56), "BSC", 0.05, process)
        running.append(asyncio.create_task(work))

    yield start
    process.stop()
    await asyncio.gather(*running)


@pytest.mark.parametrize(
    "lie",
    [dropped, changing(of("eth_getLogs"), fails(-32601)), changing(of("eth_getLogs"), fails(-32000))],
    ids=["no way to the chain", "no logs", "logs fail"],
)
async def test_who_does_not_get_at_the_chain_leaves_the_lead(watcher, make_watcher, liar, anvil, follow, until, lie):
    """A leader whose database is there and whose endpoint is not is followed by a stand-by that sees the chain."""
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.finalize()
    liar.lie = lie
    (before,) = await watcher.rows("SELECT term FROM cursors")
    follow(watcher)

    async def leads():
        return before != (await watcher.rows("SELECT term FROM cursors"))[0]

    await until(leads)
    follow(await make_watcher(anvil.url))

    async def found():
        return [("FINAL", ONE, tx)] == await watcher.seen()

    await until(found)


async def test_the_only_one_takes_the_lead_again(watcher, liar, anvil, follow, until, monkeypatch):
    """With no stand-by a leader that did not get at the chain goes on when the chain is back."""
    monkeypatch.setattr(leader, "BLIND_PAUSE_SECONDS", 0.2)
    await watcher.watch(anvil.accounts[1])
    await watcher.passes()
    liar.lie = dropped
    follow(watcher)

    async def led_twice():
        return (await watcher.rows("SELECT term FROM cursors"))[0]["term"] > 2

    await until(led_twice)
    tx = await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True)
    await anvil.finalize()
    liar.lie = None

    async def found():
        return [("FINAL", ONE, tx)] == await watcher.seen()

    await until(found)


async def test_who_has_nothing_to_look_for_keeps_the_lead(watcher, liar, follow, until):
    """While nothing is watched the chain is not read, and a leader that could not get at it does not leave."""
    liar.lie = dropped
    follow(watcher)

    async def looked_on():
        return watcher.scanner.looked_at > began + 2 * leader.BLIND_SECONDS

    began = time.monotonic()
    await until(looked_on)
    assert 2 == (await watcher.rows("SELECT term FROM cursors"))[0]["term"]


CHAINS = """
[chains.BSC]
chain_id = 56
rpc_url_env = "BSC_RPC_URL"
finality = "finalized"
block_seconds = 0.25

[chains.BSC.assets.USDT]
contract = "0x55d398326f99059fF775485246999027B3197955"
base_decimals = 18
minor_decimals = 6
"""


class Replica:
    """`python -m verifier` in a process of its own."""

    def __init__(self, process, metrics):
        self.process = process
        self._metrics = metrics

    async def leads(self):
        """Whether it says so; a process that does not answer does not."""
        timeout = aiohttp.ClientTimeout(total=0.5)
        with suppress(aiohttp.ClientError, TimeoutError):
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(self._metrics) as answer:
                return bool(re.search(r'^verifier_leader\{chain="BSC"\} 1\.0$', await answer.text(), re.MULTILINE))
        return False


@pytest.fixture
async def replicas(made, nats_url, anvil, tmp_path):
    """Two verifiers on one database."""
    file = Path(tmp_path) / "chains.toml"
    file.write_text(CHAINS)
    started = []
    for _ in range(2):
        metrics = f"127.0.0.1:{free_port()}"
        environment = {
            **os.environ,
            "OSPAY_ENVIRONMENT": "local",
            "NATS_URL": nats_url,
            "OSPAY_CHAINS_FILE": str(file),
            "VERIFIER_GRPC_LISTEN": f"127.0.0.1:{free_port()}",
            "VERIFIER_METRICS_LISTEN": metrics,
            "VERIFIER_DATABASE_URL": made.url,
            "VERIFIER_GRPC_CALLERS": "orders=" + "v" * 40,
            "BSC_RPC_URL": anvil.url,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "verifier", env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        started.append(Replica(process, f"http://{metrics}/metrics"))
    yield started
    for replica in started:
        with suppress(ProcessLookupError):
            replica.process.send_signal(signal.SIGCONT)
            replica.process.kill()
        await replica.process.wait()


async def test_a_standby_takes_over(replicas, made, anvil, until):
    """When the leading process is stopped, or killed with -9, the other leads within ten seconds.

    Payments go on to be found, each once, and the one that wakes up again stands down.
    """
    pool = await Database.open(made.url, application="test")
    watch = Watch(56, anvil.accounts[1].lower(), 1, datetime(2020, 1, 1, tzinfo=UTC), None)
    await Register(pool).watch([watch])
    await anvil.mine(10)

    async def leaders():
        return [replica for replica in replicas if await replica.leads()]

    async def one_leads():
        return len(await leaders()) == 1

    await until(one_leads)
    (first,) = await leaders()
    (second,) = [replica for replica in replicas if replica is not first]
    paid = []

    async def pay_and_see():
        paid.append(await anvil.send_token(anvil.accounts[0], anvil.accounts[1], ONE, mine=True))
        await anvil.finalize()
        await until(all_final)

    async def all_final():
        async with pool.connection() as connection:
            rows = await connection.fetch("SELECT tx_hash, state FROM sightings")
        return sorted((tx, "FINAL") for tx in paid) == sorted(
            ("0x" + row["tx_hash"].hex(), row["state"]) for row in rows
        )

    await pay_and_see()
    first.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    await until(second.leads, TAKEOVER_SECONDS)
    await pay_and_see()
    first.process.send_signal(signal.SIGCONT)

    async def stood_down():
        return not await first.leads()

    await until(stood_down)
    assert time.monotonic() - began < 2 * TAKEOVER_SECONDS
    second.process.kill()
    await until(first.leads, TAKEOVER_SECONDS)
    await pay_and_see()
    await pool.close()
