"""Every connection is made here, named after its process, and only to a database that folds Cyrillic case.

A URL says by libpq's parameters (`?sslmode=verify-full&sslrootcert=FILE`) whether it goes over TLS and whom it trusts.
Anything less than verify-full does not protect: the driver then takes any certificate, or none.

Under the plain C locale `lower('Ж')` changes nothing and search would silently miss Russian names, so each process
checks at start that the database uses the `builtin` provider (PostgreSQL 17 and later).
"""

import ssl
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

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

TLS_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
"""Parameters of a URL that name files."""

NOW = "SELECT clock_timestamp()"
"""The database's clock, not that of a transaction's beginning."""

SELECT_LOCALE = """
SELECT datlocprovider = 'b' AS builtin, datlocale AS locale
FROM pg_database WHERE datname = current_database()
"""


class UrlError(StartError):
    """The URL of a database names a file that cannot be read."""


class UnreachableError(StartError):
    """The database does not answer, or does not let us in, or is not the one that the URL trusts."""


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

    Raises:
        UrlError: see `checked`.
    """
    return asyncpg.create_pool(
        checked(url),
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


async def connect(url: str, process: str) -> asyncpg.Connection:
    """One connection, for a verb that ends soon.

    Raises:
        UrlError: see `checked`.
        UnreachableError: there is none to be had.
    """
    try:
        return await asyncpg.connect(checked(url), server_settings={"application_name": process})
    except (*AWAY, asyncpg.PostgresError, OSError) as error:
        raise unreachable(error) from error


def checked(url: str) -> str:
    """The same URL, if it and the files that it names can be read: the driver does not say which file it misses.

    Raises:
        UrlError: one of them cannot. What the driver would say of the URL may be a part of its password.
    """
    try:
        parts = urlsplit(url)
        for host in parts.netloc.rpartition("@")[2].split(","):
            _ = urlsplit(f"//{host}").port
    except ValueError:
        raise UrlError(
            "The database's URL cannot be read. In its password, write / ? # [ ] and % as %2F %3F %23 %5B %5D and %25."
        ) from None
    named = parse_qs(parts.query)
    for name in TLS_FILES:
        for path in named.get(name, ()):
            try:
                Path(path).open("rb").close()
            except OSError as error:
                raise UrlError(
                    f"The database's URL says {name}={path}, which cannot be read: {error.strerror}"
                ) from error
    return url


def unreachable(error: BaseException) -> UnreachableError:
    """What the driver's error means to a verb, which does not wait."""
    return UnreachableError(f"The database cannot be reached: {reason(error)}")


def reason(error: BaseException) -> str:
    """Why a connection was not made, in a line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    return f"{type(error).__name__}: {error}"


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
