"""Every connection is made here, named after its process, and only to a database that folds Cyrillic case.

Under the plain C locale `lower('Ж')` changes nothing and search would silently miss Russian names, so each process
checks at start that the database uses the `builtin` provider (PostgreSQL 17 and later).
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import asyncpg

from runtime.errors import StartError

LOCALES = ("C.UTF-8", "PG_UNICODE_FAST")

AWAY = (
    ConnectionError,
    TimeoutError,
    asyncpg.exceptions.PostgresConnectionError,
    asyncpg.exceptions.InterfaceError,
    # The driver's own, when a connection is lost at an odd moment, as while it goes back to its pool.
    asyncpg.exceptions.InternalClientError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.TooManyConnectionsError,
)
"""Errors that mean the server is away or going: the same call may succeed later."""

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
"""A connection, whether it is a pool's or not."""

NOW = "SELECT clock_timestamp()"
"""The database's clock, not that of a transaction's beginning."""

SELECT_LOCALE = """
SELECT datlocprovider = 'b' AS builtin, datlocale AS locale
FROM pg_database WHERE datname = current_database()
"""


class WrongLocaleError(StartError):
    """The database would not fold case outside ASCII. Make it anew; the message says how."""


def make_pool(
    url: str,
    process: str,
    *,
    max_size: int = 10,
    command_timeout: float = 30,
    settings: Mapping[str, str] | None = None,
    init: Callable[[Any], Coroutine[Any, Any, None]] | None = None,
    reset: Callable[[Any], Coroutine[Any, Any, None]] | None = None,
) -> asyncpg.Pool:
    """A pool for hand-written SQL, to be entered. Nothing is asked of the database before a connection is needed.

    Args:
        url: postgresql://user:password@host:port/database
        process: shown in pg_stat_activity
        max_size: connections at most
        command_timeout: seconds that one statement may take, as seen from here
        settings: of each session, for example of the planner
        init: called with each new connection
        reset: called with each connection that comes back, instead of a statement that takes a round trip
    """
    return asyncpg.create_pool(
        url,
        # Connections are made when they are needed: a pool that keeps one tells the log each time that it cannot.
        min_size=0,
        max_size=max_size,
        command_timeout=command_timeout,
        init=init,
        reset=reset,
        server_settings={"application_name": process, **(settings or {})},
    )


async def open_pool(url: str, process: str, **options: Any) -> asyncpg.Pool:
    """The same, entered and of a database that is there; for whoever need not wait for it. Takes the same options.

    Raises:
        WrongLocaleError: see the module.
        Exception: the database is away.
    """
    pool = await make_pool(url, process, **options)
    async with pool.acquire() as connection:
        await check_locale(connection)
    return pool


async def check_locale(connection: Connection) -> None:
    """Refuse a database that cannot fold Cyrillic case.

    Raises:
        WrongLocaleError: see the module.
    """
    row = await connection.fetchrow(SELECT_LOCALE)
    assert row is not None  # noqa: S101 - the current database is in pg_database
    if not row["builtin"] or row["locale"] not in LOCALES:
        raise WrongLocaleError(
            "This database does not use the builtin C.UTF-8 locale, so lower('Ж') may do nothing. Create it with: "
            "CREATE DATABASE … TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"
        )
