"""A verifier on real parts, and panels of endpoints; malicious.py has those that lie."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import nats
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from nats.aio.client import Client
from pydantic import SecretStr

from chains import Chain, Registry
from kit.channel import Peer
from kit.database import Database as Pool
from kit.process import Process
from local.devchain import DevChain
from local.ports import free_port
from local.testing import Database, MakeDatabase
from ospay.verifier.v1 import verifier_pb2 as pb
from ospay.verifier.v1.verifier_pb2_grpc import VerifierServiceStub
from services.verifier.tests.malicious import MaliciousRpc, malicious
from services.verifier.tests.scene import AMOUNT, FAR, Scene
from verifier import bootstrap
from verifier.jsonrpc import JsonRpc, open_session
from verifier.node import Node
from verifier.panel import Panel
from verifier.settings import Settings
from verifier.store import ProofStore
from verifier.watch.register import Register
from verifier.watch.scanner import Scanner
from verifier.watch.watching import Watch

TOKEN = "v" * 40
BOUND = 20.0

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


async def until(condition: Callable[[], Awaitable[bool]], bound: float = BOUND) -> None:
    """Waits for a condition, at most `bound` seconds."""
    deadline = time.monotonic() + bound
    while not await condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def liar(anvil: DevChain) -> AsyncIterator[MaliciousRpc]:
    """A proxy before the dev chain."""
    async with malicious(anvil.url) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def made(database: MakeDatabase) -> Database:
    """A fresh database of the verifier."""
    return await database("verifier")


@pytest_asyncio.fixture
async def store(made: Database) -> AsyncIterator[ProofStore]:
    """The store on it, by the service's own role."""
    opened = await Pool.open(made.url, application="test")
    yield ProofStore(opened)
    await opened.close()


@pytest.fixture
def bsc(tmp_path: Path) -> Chain:
    """The chain of the configuration above."""
    file = tmp_path / "bsc.toml"
    file.write_text(CHAINS)
    return Registry.load(file).chains["BSC"]


MakePanel = Callable[..., Panel]


@pytest_asyncio.fixture
async def make_panel(bsc: Chain) -> AsyncIterator[MakePanel]:
    """`make_panel(ann=url, ben=[url, url], quorum=2)` is a panel of these operators; any number."""
    async with AsyncExitStack() as sessions:

        def make(*, chain: Chain = bsc, quorum: int = 0, mark: int = 0, **operators: str | list[str]) -> Panel:
            nodes = []
            for operator, urls in operators.items():
                for url in [urls] if isinstance(urls, str) else urls:
                    session = open_session()
                    sessions.push_async_callback(session.close)
                    rpc = JsonRpc(url, chain=chain.name, chain_id=chain.chain_id, session=session, concurrency=4)
                    nodes.append(Node(chain, rpc, operator, mark))
            return Panel(chain, nodes, quorum=quorum or min(len(operators), 2), mark=mark)

        yield make


@dataclass
class Verifier:
    """A running verifier: its rpc, and all that it said over NATS."""

    process: Process
    settings: Settings
    peer: Peer
    nats: Client
    database: Database
    heard: list[pb.Verdict]

    def claim(self, tx_hash: str, recipient: str, **overrides: Any) -> pb.Claim:
        fields = {"claim_id": str(uuid4()), "chain": "BSC", "asset": "USDT", "tx_hash": tx_hash, "recipient": recipient}
        claim = pb.Claim(**{**fields, **overrides})
        if not claim.HasField("give_up_at"):
            claim.give_up_at.seconds = FAR
        return claim

    @property
    def stub(self) -> VerifierServiceStub:
        return VerifierServiceStub(self.peer.channel)

    async def verify(self, claim: pb.Claim, timeout: float = 15) -> pb.Verdict:
        answer = await self.peer.call(self.stub.Verify, pb.VerifyRequest(claim=claim), timeout=timeout)
        return answer.verdict

    async def batch(self, claims: list[pb.Claim]) -> list[pb.Verdict]:
        request = pb.BatchVerifyRequest(claims=claims)
        return list((await self.peer.call(self.stub.BatchVerify, request, timeout=20)).verdicts)

    async def head(self, chain: str = "BSC") -> int:
        return (await self.peer.call(self.stub.GetHead, pb.GetHeadRequest(chain=chain), timeout=5)).block_number

    async def chains(self) -> dict[str, pb.ChainStatus]:
        answer = await self.peer.call(self.stub.ListChains, pb.ListChainsRequest(), timeout=5)
        return {status.chain: status for status in answer.chains}

    async def says(self, component: str, state: str) -> bool:
        """Whether the health service says this of a component; it knows one once it was asked."""
        request = health_pb2.HealthCheckRequest(service=component)
        with suppress(grpc.aio.AioRpcError):
            answer = await health_pb2_grpc.HealthStub(self.peer.channel).Check(request, timeout=5)
            return state == health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return False

    async def publish(self, claims: list[pb.Claim]) -> None:
        await self.publish_bytes(pb.BatchVerifyRequest(claims=claims).SerializeToString())

    async def publish_bytes(self, payload: bytes) -> None:
        await until(lambda: _consumes(self.nats))  # before that nobody is interested, and the stream keeps nothing
        await self.nats.jetstream().publish("ospay.orders.v1.payment_claimed", payload, timeout=5)

    def said(self, claim: pb.Claim) -> list[pb.Verdict]:
        return [verdict for verdict in self.heard if verdict.claim_id == claim.claim_id]

    async def hear(self, claim: pb.Claim, outcome: str, bound: float = BOUND) -> pb.Verdict:
        """Waits until a verdict of this kind (or of this Waiting reason) was published for the claim."""

        def found() -> list[pb.Verdict]:
            return [
                verdict for verdict in self.said(claim) if outcome in (verdict.WhichOneof("outcome"), reason(verdict))
            ]

        async def heard() -> bool:
            return bool(found())

        await until(heard, bound)
        return found()[-1]


def reason(verdict: pb.Verdict) -> str:
    """`not_final`, `tx_failed` … or `final`."""
    match verdict.WhichOneof("outcome"):
        case "waiting":
            return pb.WaitReason.Name(verdict.waiting.reason).removeprefix("WAIT_REASON_").lower()
        case "rejected":
            return pb.RejectReason.Name(verdict.rejected.reason).removeprefix("REJECT_REASON_").lower()
    return "final"


@pytest.fixture(name="reason")
def reason_fixture() -> Callable[[pb.Verdict], str]:
    return reason


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Awaitable[None]]:
    return until


StartVerifier = Callable[..., Awaitable[Verifier]]


@pytest_asyncio.fixture
async def start_verifier(
    database: MakeDatabase, nats_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[StartVerifier]:
    """`await start_verifier(rpc_url)` is a verifier in this event loop; any number, on one database and one NATS."""
    started: list[Verifier] = []
    shared = await database("verifier")

    async def start(
        rpc_url: str, chains: str = CHAINS, env: dict[str, str] | None = None, **overrides: Any
    ) -> Verifier:
        file = tmp_path / f"chains-{len(started)}.toml"
        file.write_text(chains)
        for name, value in {"BSC_RPC_URL": rpc_url, **(env or {})}.items():
            monkeypatch.setenv(name, value)
        settings = Settings(
            environment="local",
            grpc_listen=f"127.0.0.1:{free_port()}",
            metrics_listen=f"127.0.0.1:{free_port()}",
            grpc_callers={"orders": SecretStr(TOKEN)},
            database_url=SecretStr(shared.url),
            nats_url=nats_url,
            chains_file=file,
            **overrides,
        )
        process = Process()
        try:
            await bootstrap.start(process, settings)
        except BaseException:
            process.stop()
            await process.finish(5)
            raise
        client = await nats.connect(nats_url)
        heard: list[pb.Verdict] = []

        async def hear(message: Any) -> None:
            heard.extend(pb.BatchVerifyResponse.FromString(message.data).verdicts)

        await client.subscribe("ospay.verifier.v1.verdict", cb=hear)
        peer = Peer(settings.grpc_listen, token=SecretStr(TOKEN))
        verifier = Verifier(process, settings, peer, client, shared, heard)
        started.append(verifier)
        return verifier

    yield start
    for verifier in started:
        await verifier.peer.close()
        verifier.process.stop()
        with suppress(Exception):
            await verifier.process.finish(10)
        await verifier.nats.close()


async def _consumes(client: Client) -> bool:
    with suppress(Exception):
        await client.jetstream().consumer_info("OSPAY_ORDERS", "verifier", timeout=1)
        return True
    return False


@pytest_asyncio.fixture
async def verifier(start_verifier: StartVerifier, anvil: DevChain) -> Verifier:
    """A verifier straight on the dev chain."""
    return await start_verifier(anvil.url)


LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass
class Watcher:
    """A scanner that passes only when told to, on real parts; what it stored is read by the migrations' own role."""

    chain: Chain
    scanner: Scanner
    register: Register
    panel: Panel
    pool: Pool
    database: Database
    rung: list[Any] = field(default_factory=list)
    awaited: set[Any] = field(default_factory=set)

    async def watch(self, *addresses: str, from_block: int = 1, **fields: Any) -> None:
        given = {"from_time": LONG_AGO, "until": None, **fields}
        await self.register.watch(
            [Watch(self.chain.chain_id, address.lower(), from_block, **given) for address in addresses]
        )

    async def passes(self, count: int = 1) -> None:
        """So many passes, each until there is nothing more to do at once; a chain that fails is no error."""
        for _ in range(count):
            async with asyncio.timeout(BOUND):
                while await self.scanner.look():
                    pass

    async def seen(self) -> list[tuple[str, int, str]]:
        """(state, amount, transaction) of every sighting, by block and index."""
        rows = await self.rows("SELECT state, amount_base, tx_hash FROM sightings ORDER BY block_number, log_index")
        return [(row["state"], int(row["amount_base"]), "0x" + row["tx_hash"].hex()) for row in rows]

    async def states(self) -> list[str]:
        """The states of every sighting, by block and index."""
        return [state for state, _, _ in await self.seen()]

    async def rows(self, query: str, *arguments: Any) -> Sequence[Any]:
        connection = await asyncpg.connect(self.database.owner_url)
        try:
            return await connection.fetch(query, *arguments)
        finally:
            await connection.close()

    async def covered(self) -> tuple[int, int]:
        """Up to which block everything is done, and up to which it was looked at twice."""
        position = (await self.register.coverage(self.chain.chain_id)).position
        assert position is not None
        return position.number, position.swept


MakeWatcher = Callable[..., Awaitable[Watcher]]


@pytest_asyncio.fixture
async def make_watcher(made: Database, bsc: Chain, make_panel: MakePanel) -> AsyncIterator[MakeWatcher]:
    """`await make_watcher(rpc_url)` is a scanner that has taken the lead; any number, on one database.

    `await make_watcher(ann=url, ben=url)` is one over several operators.
    """
    opened: list[Pool] = []

    async def make(url: str = "", **operators: Any) -> Watcher:
        pool = await Pool.open(made.url, application="test")
        opened.append(pool)
        panel = make_panel(**(operators or {"one": url}))
        rung: list[Any] = []
        awaited: set[Any] = set()
        scanner = Scanner(panel, pool, ProofStore(pool), lambda: awaited, rung.extend)
        await scanner.begin()
        return Watcher(bsc, scanner, Register(pool), panel, pool, made, rung, awaited)

    yield make
    for pool in opened:
        await pool.close()


@pytest_asyncio.fixture
async def watcher(make_watcher: MakeWatcher, liar: MaliciousRpc, anvil: DevChain) -> Watcher:
    """A scanner behind the proxy, on a chain that has final blocks."""
    await anvil.mine(10)
    return await make_watcher(liar.url)


@pytest_asyncio.fixture
async def scene(anvil: DevChain, store: ProofStore, make_panel: MakePanel) -> AsyncIterator[Scene]:
    """A final payment, on a chain of this test alone."""
    await anvil.mine(10)
    shop = anvil.accounts[1]
    tx = await anvil.send_token(anvil.accounts[0], shop, AMOUNT, mine=True)
    await anvil.finalize()
    async with AsyncExitStack() as stack:
        yield Scene(anvil, store, make_panel, stack, tx, shop)
