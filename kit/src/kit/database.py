"""PostgreSQL with a bound on every wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import stamina
from asyncpg.pool import PoolConnectionProxy

OPEN_SECONDS = 20.0
ACQUIRE_SECONDS = 3.0
COMMAND_SECONDS = 5.0
# The server's own bounds, a little tighter, so that its clearer error comes first.
SERVER_SETTINGS = {
    "statement_timeout": "4500",
    "lock_timeout": "3000",
    "idle_in_transaction_session_timeout": "5000",
    "timezone": "UTC",
    # A plan made while a table was empty would be kept until PostgreSQL's own ANALYZE comes by, a minute later; with it
    # payments of a new installation went down to a fifth. To plan anew costs 3 % of a create.
    "plan_cache_mode": "force_custom_plan",
}

# What a caller may try again: the server went away, was full, or ran out of time.
UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    # "Another operation is in progress": a connection whose server died under it, noticed too late.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InsufficientResourcesError,
    # A server that is a standby now: whoever took over for it is found by a new connection.
    asyncpg.ReadOnlySQLTransactionError,
)

# What took longer than it may: of much at once a part may go through.
TOO_SLOW = (asyncpg.QueryCanceledError, asyncpg.IdleInTransactionSessionTimeoutError)

Connection = PoolConnectionProxy
# A key was taken by somebody else at the same moment: look again.
AlreadyThere = asyncpg.UniqueViolationError


class Database:
    """A bounded pool of connections to one service's own database.

    NUMERIC columns are read and written as `int`: they hold base units, which `Decimal` would round past 28 digits.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str, *, application: str, size: int = 10) -> Database:
        """Opens at most `size` connections, waiting for a server that starts at the same time.

        Errors: OSError or asyncpg's when the server cannot be reached for 20 s.
        """
        async for attempt in stamina.retry_context(on=UNAVAILABLE, attempts=None, timeout=OPEN_SECONDS, wait_max=1.0):
            with attempt:
                pool = await asyncpg.create_pool(
                    url,
                    min_size=1,
                    max_size=size,
                    command_timeout=COMMAND_SECONDS,
                    timeout=ACQUIRE_SECONDS,
                    init=_register_codecs,
                    reset=_keep_session,
                    server_settings={**SERVER_SETTINGS, "application_name": application},
                )
        return cls(pool)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection without a transaction: each statement commits by itself."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            try:
                yield connection
            except (
                # A query that was cut short leaves the protocol in an unknown state (geldata/gel#2257).
                asyncio.CancelledError,
                TimeoutError,
                asyncpg.InternalClientError,
                # A busy connection to a server that was demoted would never leave the pool.
                asyncpg.ReadOnlySQLTransactionError,
            ):
                connection.terminate()
                raise

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction, committed with fsync when the block ends well."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A connection whose statements all read what was committed when the first of them began; it writes nothing."""
        async with self.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection

    async def ping(self) -> None:
        """Raises when the database does not answer, or only reads: a standby, or a managed one whose disk is full."""
        async with self.connection() as connection:
            if await connection.fetchval("SELECT current_setting('transaction_read_only') = 'on'"):
                raise asyncpg.ReadOnlySQLTransactionError("the database only reads")

    async def close(self) -> None:
        """Waits for what is under way, at most as long as a command may take."""
        try:
            await asyncio.wait_for(self._pool.close(), COMMAND_SECONDS)
        except TimeoutError:
            self._pool.terminate()


async def _register_codecs(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=int, format="text")


async def _keep_session(connection: asyncpg.Connection) -> None:
    """We set nothing on a session, so the pool's RESET ALL, a round trip for each acquire, would buy nothing."""
