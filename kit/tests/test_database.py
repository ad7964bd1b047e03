"""What a session of ours is set to."""

from __future__ import annotations

import asyncpg
import pytest

from kit.database import UNAVAILABLE, Database
from local.process import until
from local.testing import MakeDatabase


async def test_no_plan_outlives_the_size_of_its_table(database: MakeDatabase) -> None:
    """A statement that was used while its table was empty goes by the key as soon as there is much in it."""
    opened = await Database.open((await database("orders")).owner_url, application="test", size=1)
    try:
        async with opened.connection() as connection:
            # ANALYZE never comes by itself to a temporary table: here it is always the first minute.
            await connection.execute(
                "CREATE TEMP TABLE seen (chain int, id text, note text, PRIMARY KEY (chain, id));"
                "CREATE INDEX seen_by_chain ON seen (chain)"
            )
            await connection.execute(
                "PREPARE look (int, text[]) AS"
                " SELECT note FROM unnest($2) AS k (id) JOIN seen s ON s.chain = $1 AND s.id = k.id"
            )
            for _ in range(8):
                await connection.execute("EXECUTE look (56, '{a,b}')")
            await connection.execute("INSERT INTO seen SELECT 56, generate_series(1, 20000), repeat('x', 100)")
            plan = await connection.fetch("EXPLAIN EXECUTE look (56, '{a,b}')")
            assert "seen_pkey" in "\n".join(row[0] for row in plan), plan
    finally:
        await opened.close()


async def test_a_session_that_cannot_write_is_left(database: MakeDatabase) -> None:
    """A server that became a standby may be asked again by the caller, and not over the connection of before."""
    opened = await Database.open((await database("orders")).owner_url, application="test", size=1)

    async def count(before: str = "SELECT 1") -> None:
        async with opened.connection() as connection:
            await connection.execute(before)
            await connection.execute("UPDATE counters SET value = value + 1")

    try:
        with pytest.raises(UNAVAILABLE):
            await count("SET default_transaction_read_only = on")
        await count()
    finally:
        await opened.close()


async def test_a_database_that_only_reads_is_not_well(database: MakeDatabase) -> None:
    """As a standby does, or a managed one whose disk is full; one that writes again is well."""

    async def is_well() -> bool:
        try:
            await opened.ping()
        except UNAVAILABLE:
            return False
        return True

    made = await database("orders")
    opened, owner = await Database.open(made.url, application="test", size=1), await asyncpg.connect(made.owner_url)
    try:
        await opened.ping()
        await owner.execute(f"ALTER DATABASE {made.name} SET default_transaction_read_only = on")
        async with opened.connection() as connection:
            connection.terminate()
        with pytest.raises(UNAVAILABLE):
            await opened.ping()
        await owner.execute("SET default_transaction_read_only = off")
        await owner.execute(f"ALTER DATABASE {made.name} RESET default_transaction_read_only")
        await until(is_well, "a session that writes")
    finally:
        await owner.close()
        await opened.close()
