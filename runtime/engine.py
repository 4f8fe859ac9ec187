"""SQLAlchemy over asyncpg, for statements that are composed; `postgres` is for those written by hand."""

from typing import Final

import asyncpg
import sqlalchemy.exc
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runtime import postgres

POOL_SECONDS: Final = 5
"""How long a statement waits for a free connection."""
LOCK_SECONDS: Final = 5
"""How long a statement waits for a lock. A row that is held longer is a fault; the caller is told to try again."""
STATEMENT_SECONDS: Final = 30
"""How long one statement takes at most, as seen from here."""

AWAY: Final = (*postgres.AWAY, sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError, OSError)
"""What a statement raises when the server is away, among other things; `is_away` tells them apart."""

_PASSING: Final = (
    *postgres.AWAY,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)


def open_engine(url: str, process: str, *, pool_size: int = 10, patient: bool = False) -> AsyncEngine:
    """A SQLAlchemy engine over asyncpg for the same kind of URL. A patient one waits as long as it takes.

    Raises:
        UrlError: see `postgres.checked`.
    """
    server_settings = {"application_name": process}
    if not patient:
        server_settings["lock_timeout"] = f"{LOCK_SECONDS}s"
    return create_async_engine(
        "postgresql+asyncpg://",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
        # No ping before each use: after a restart of the server the first request to notice empties the pool.
        connect_args={
            # The driver reads the URL itself, as for a pool: SQLAlchemy would not know what its TLS parameters mean.
            "dsn": postgres.checked(url),
            "server_settings": server_settings,
            "timeout": 5,
            "command_timeout": None if patient else STATEMENT_SECONDS,
        },
    )


def of_driver(error: BaseException) -> BaseException:
    """What the driver raised, out of SQLAlchemy's wrappers."""
    if isinstance(error, sqlalchemy.exc.DBAPIError) and error.orig is not None:
        # SQLAlchemy wraps its own wrapper of the driver's error.
        return error.orig.__cause__ or error.orig
    return error


def is_away(error: BaseException) -> bool:
    """Whether an error means that the server is away or busy, so that the same statement may succeed later."""
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        # SQLAlchemy wraps its own wrapper of the driver's error.
        return error.connection_invalidated or (error.orig is not None and is_away(error.orig))
    if isinstance(error, (*_PASSING, sqlalchemy.exc.TimeoutError, OSError)):
        return True
    return error.__cause__ is not None and is_away(error.__cause__)
