"""The `database` fixture."""

import asyncpg
import pytest

from local.testing import SERVICES_WITH_DATABASE


@pytest.mark.parametrize("service", SERVICES_WITH_DATABASE)
async def test_each_database_is_fresh_and_migrated(database, service):
    first, second = await database(service), await database(service)
    for each in (first, second):
        connection = await asyncpg.connect(each.url)
        assert await connection.fetchval("SELECT current_user") == service
        assert await connection.fetchval("SELECT count(*) > 0 FROM pg_tables WHERE schemaname = 'public'")
        await connection.close()
        owner = await asyncpg.connect(each.owner_url)
        await owner.execute("CREATE TABLE only_here (n int)")
        await owner.close()


async def test_a_clone_is_closed_to_other_services(database):
    clone = await database("ledger")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(clone.url.replace("://ledger:", "://orders:"))
