"""Databases for tests: one cluster, a fresh clone for each test. The fixtures are in the root conftest.py."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg

from local.places import REPOSITORY
from local.postgres import Postgres, migrate

SERVICES_WITH_DATABASE = ("orders", "verifier", "ledger")
PASSWORD = "test"  # noqa: S105  of a server that lives as long as a test run


@dataclass(frozen=True)
class Database:
    """A fresh, migrated database. `url` is the service's own role, `owner_url` that of the migrations."""

    name: str
    url: str
    owner_url: str


MakeDatabase = Callable[[str], Awaitable[Database]]


class PostgresServer:
    """One cluster for all tests of a process; each test clones a database that is migrated once."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._templates: set[str] = set()

    @property
    def admin_url(self) -> str:
        return self._server.url("postgres")

    async def create_roles(self) -> None:
        names = [f"{service}{role}".upper() for service in SERVICES_WITH_DATABASE for role in ("", "_owner")]
        passwords = {f"{name}_PASSWORD": PASSWORD for name in names}
        await self._server.psql(REPOSITORY / "config" / "databases.sql", passwords)

    async def clone(self, service: str) -> Database:
        if service not in self._templates:
            await migrate(self.url_of(service, f"{service}_owner"), REPOSITORY / "services" / service / "migrations")
            self._templates.add(service)
        name = f"{service}_{secrets.token_hex(6)}"
        # What may connect is not copied from a template.
        await self._execute(
            f"CREATE DATABASE {name} TEMPLATE {service} OWNER {service}_owner",
            f"REVOKE ALL ON DATABASE {name} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {name} TO {service}",
        )
        return Database(name, url=self.url_of(name, service), owner_url=self.url_of(name, f"{service}_owner"))

    async def drop(self, database: Database) -> None:
        await self._execute(f"DROP DATABASE {database.name} WITH (FORCE)")

    def url_of(self, database: str, role: str) -> str:
        return self._server.url(database, role, PASSWORD)

    async def _execute(self, *statements: str) -> None:
        connection = await asyncpg.connect(self.admin_url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()
