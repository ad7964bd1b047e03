"""PostgreSQL as a part: its roles, its restarts."""

import asyncpg
import pytest

from local.places import REPOSITORY, remove
from local.ports import free_port
from local.postgres import Postgres, migrate
from local.process import PartFailed, running
from local.testing import PASSWORD, PostgresServer

MIGRATION = """-- migrate:up
CREATE TABLE entries (id int PRIMARY KEY);
GRANT SELECT, INSERT ON entries TO ledger;
-- migrate:down
"""


@pytest.fixture
def server(tmp_path):
    yield Postgres(tmp_path, free_port(), "secret", tmp_path / "postgres.log")
    remove(tmp_path)


async def test_it_keeps_what_was_committed_through_stop_and_kill(server):
    async with running(server) as process:
        connection = await asyncpg.connect(server.url("postgres"))
        assert await connection.fetchval("SHOW fsync") == "on"
        await connection.execute("CREATE TABLE kept (n int)")
        await connection.execute("INSERT INTO kept VALUES (1)")
        process.kill()
        await process.wait()
    async with running(server):
        connection = await asyncpg.connect(server.url("postgres"))
        await connection.execute("INSERT INTO kept VALUES (2)")
        await connection.close()
    async with running(server):
        connection = await asyncpg.connect(server.url("postgres"))
        assert await connection.fetchval("SELECT sum(n) FROM kept") == 3
        await connection.close()


async def test_it_starts_over_a_pid_file_whose_number_now_belongs_to_another_program(server):
    async with running(server):
        pass
    stale = f"1\n{server.cluster}\n1700000000\n{server.port}\n\n127.0.0.1\n0 0\nready\n"
    (server.cluster / "postmaster.pid").write_text(stale)
    async with running(server):
        pass


async def test_a_part_that_cannot_start_says_why(server, tmp_path):
    async with running(server):
        twin = Postgres(tmp_path, free_port(), "secret", tmp_path / "twin.log")
        with pytest.raises(PartFailed, match="postgres exited with 1"):
            async with running(twin):
                pass


@pytest.mark.parametrize("database", ["orders", "verifier", "postgres", "template1"])
async def test_a_service_cannot_open_another_database(postgres_server: PostgresServer, database):
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(postgres_server.url_of(database, "ledger"))


async def test_a_wrong_password_is_refused(postgres_server: PostgresServer):
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres_server.url_of("ledger", "ledger").replace(PASSWORD, "wrong"))


async def test_a_service_uses_what_its_migrations_made_and_makes_nothing_itself(server, tmp_path):
    passwords = {f"{s}{r}_PASSWORD": "p" for s in ("ORDERS", "VERIFIER", "LEDGER") for r in ("", "_OWNER")}
    migrations = tmp_path / "migrations"
    migrations.mkdir()
    (migrations / "20260101000000_entries.sql").write_text(MIGRATION)
    async with running(server):
        for _ in range(2):  # safe to run again
            await server.psql(REPOSITORY / "config" / "databases.sql", passwords)
            await migrate(server.url("ledger", "ledger_owner", "p"), migrations)
        connection = await asyncpg.connect(server.url("ledger", "ledger", "p"))
        await connection.execute("INSERT INTO entries VALUES (1)")
        for refused in ("DELETE FROM entries", "CREATE TABLE mine (n int)", "CREATE TEMP TABLE mine (n int)"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(refused)
        await connection.close()
