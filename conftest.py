"""Real parts for every test: PostgreSQL, NATS and a dev chain. See local/README.md."""

from collections.abc import AsyncIterator
from pathlib import Path

import hypothesis
import pytest
import pytest_asyncio

# Imported first: pytest would take the folders kit/ and chains/ above their tests for the packages of these names.
import chains  # noqa: F401
import kit  # noqa: F401
from local.anvil import Anvil
from local.devchain import DevChain
from local.nats import Nats
from local.places import remove
from local.ports import free_port
from local.postgres import Postgres
from local.process import running
from local.testing import PASSWORD, Database, MakeDatabase, PostgresServer

# How fast examples are made says something about the machine, and nothing about the code.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PostgresServer]:
    folder = tmp_path_factory.mktemp("postgres")
    server = Postgres(folder, free_port(), PASSWORD, folder / "postgres.log")
    async with running(server):
        cluster = PostgresServer(server)
        await cluster.create_roles()
        yield cluster
    remove(folder)


@pytest_asyncio.fixture
async def database(postgres_server: PostgresServer) -> AsyncIterator[MakeDatabase]:
    """`await database("ledger")` is a fresh database with that service's migrations; dropped after the test."""
    made: list[Database] = []

    async def make(service: str) -> Database:
        made.append(await postgres_server.clone(service))
        return made[-1]

    yield make
    for each in made:
        await postgres_server.drop(each)


@pytest_asyncio.fixture
async def nats_url(tmp_path: Path) -> AsyncIterator[str]:
    """A NATS server of this test alone, JetStream on disk."""
    server = Nats(tmp_path, free_port(), tmp_path / "nats.log")
    async with running(server):
        yield server.url


@pytest_asyncio.fixture
async def anvil(tmp_path: Path) -> AsyncIterator[DevChain]:
    """A chain of this test alone, with the token; it mines only when told to."""
    node = Anvil(tmp_path, free_port(), tmp_path / "anvil.log")
    async with running(node), DevChain.connect(node.url) as chain:
        yield chain
