"""SQLAlchemy over asyncpg, for statements that are composed; `postgres` is for those written by hand."""

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


def open_engine(url: str, process: str, *, pool_size: int = 10) -> AsyncEngine:
    """A SQLAlchemy engine over asyncpg for the same kind of URL."""
    return create_async_engine(
        sqlalchemy_url(url),
        pool_size=pool_size,
        max_overflow=0,
        # No ping before each use: after a restart of the server the first request to notice empties the pool.
        connect_args={"server_settings": {"application_name": process}, "timeout": 5, "command_timeout": 30},
    )


def sqlalchemy_url(url: str) -> str:
    """The URL with SQLAlchemy's name of the driver."""
    return "postgresql+asyncpg://" + url.split("://", 1)[1]
