"""The older system is only read, and hardly notices: a page at a time by its key, each page a statement of its own.

No lock, no snapshot that holds back its vacuum, and a session that the server itself keeps from writing. Values come as
JSON that the server makes, so that one that no driver could hold (year 20000, infinity) spoils its own row alone.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

import asyncpg
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from producer_admin.errors import MappingError, SourceError
from runtime.postgres import AWAY, UrlError, checked

PAGE_SECONDS: Final = 60.0
"""How long the source may take for one page."""
CLOSE_SECONDS: Final = 2.0
KEY_TYPES: Final = frozenset({"uuid", "text", "character varying", "bigint", "integer", "smallint"})

TABLE: Final = """
SELECT class.oid, namespace.nspname || '.' || class.relname AS name,
       quote_ident(namespace.nspname) || '.' || quote_ident(class.relname) AS quoted,
       class.reltuples::bigint AS estimate
FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
WHERE class.oid = to_regclass($1) AND class.relkind IN ('r', 'p')
"""
COLUMNS: Final = """
SELECT attname, format_type(atttypid, NULL) AS type FROM pg_attribute
WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
# A page that ended between two rows of one key would lose the second.
UNIQUE: Final = """
SELECT EXISTS (
    SELECT FROM pg_index AS index
    JOIN pg_attribute AS attribute ON attribute.attrelid = index.indrelid AND attribute.attnum = index.indkey[0]
    WHERE index.indrelid = $1 AND attribute.attname = $2 AND index.indisunique AND index.indisvalid
      AND index.indnkeyatts = 1 AND index.indpred IS NULL
)
"""


class SourceRow(NamedTuple):
    """One row of the source."""

    key: str
    row: str
    """A JSON object of field to value."""


@dataclass(frozen=True)
class SourceTable:
    """What the source says of its table."""

    identity: str
    """host:port/database/schema.table: the same table is the same backfill."""
    oid: int
    quoted: str
    columns: Mapping[str, str]
    """Type by column, as Postgres formats types."""
    estimate: int | None
    """About how many rows there are; None when the source has never counted."""


class Source:
    """An older system's database, and how to page through one table of it."""

    def __init__(self, connection: asyncpg.Connection, place: str) -> None:
        self._connection = connection
        self._place = place

    async def table(self, name: str) -> SourceTable:
        """Look a table up, as SQL would (`schema.table`, quoted where needed).

        Raises:
            MappingError: there is none of this name.
            SourceError: the source went away.
        """
        with _as_source_error():
            try:
                found = await self._connection.fetchrow(TABLE, name)
            except (asyncpg.InvalidNameError, asyncpg.SyntaxOrAccessError):
                found = None
            if found is None:
                raise MappingError(f"The source has no table {name}.")
            columns = {row["attname"]: row["type"] for row in await self._connection.fetch(COLUMNS, found["oid"])}
        return SourceTable(
            identity=f"{self._place}/{found['name']}",
            oid=found["oid"],
            quoted=found["quoted"],
            columns=columns,
            estimate=found["estimate"] if found["estimate"] >= 0 else None,
        )

    async def check_key(self, table: SourceTable, key: str) -> None:
        """Return when every row can be found by `key`.

        Raises:
            MappingError: pages by this column would lose rows; says why.
            SourceError: the source went away.
        """
        if key not in table.columns:
            raise MappingError(f"The source has no column {key}. Its columns are {', '.join(table.columns)}.")
        if table.columns[key] not in KEY_TYPES:
            raise MappingError(f"The key {key} is of type {table.columns[key]}; it must be uuid, text or an integer.")
        with _as_source_error():
            if not await self._connection.fetchval(UNIQUE, table.oid, key):
                raise MappingError(f"The key {key} has no unique index of its own. Name a column that has one as key.")
            empty = f"SELECT EXISTS (SELECT FROM {table.quoted} WHERE {_quoted(key)} IS NULL)"  # noqa: S608 - quoted
            if await self._connection.fetchval(empty):
                raise MappingError(f"Some rows have no {key}. Name a column as key that no row lacks.")

    async def distinct(self, table: SourceTable, column: str) -> list[str]:
        """Every value of a column as text, without null. Reads the whole table once.

        Raises:
            SourceError: the source went away.
        """
        statement = f"SELECT DISTINCT {_quoted(column)}::text FROM {table.quoted}"  # noqa: S608 - quoted
        with _as_source_error():
            # It may well take longer than a page.
            rows = await self._connection.fetch(statement, timeout=60 * PAGE_SECONDS)
        return sorted(row[0] for row in rows if row[0] is not None)

    async def page(
        self, table: SourceTable, key: str, columns: Mapping[str, str], after: str | None, limit: int
    ) -> list[SourceRow]:
        """The rows with the least keys behind `after`, at most `limit`. Walks the key's index.

        Args:
            table: to read
            key: its key column
            columns: column by field
            after: a key as text; None is before the first
            limit: rows

        Raises:
            SourceError: the source went away, or cannot give this page.
        """
        fields = ", ".join(f"{_literal(name)}, source.{_quoted(column)}" for name, column in columns.items())
        # Always source.key: alone, ORDER BY would take it for the text that is selected.
        place = f"source.{_quoted(key)}"
        behind = f"WHERE {place} > $2::text::{table.columns[key]}" if after is not None else ""
        statement = (
            f"SELECT {place}::text, json_build_object({fields})::text "  # noqa: S608 - names are quoted
            f"FROM {table.quoted} AS source {behind} ORDER BY {place} LIMIT $1"
        )
        with _as_source_error():
            rows = await self._connection.fetch(statement, limit, *([] if after is None else [after]))
        return [SourceRow(*row) for row in rows]


@asynccontextmanager
async def open_source(url: str) -> AsyncIterator[Source]:
    """Connect to an older system's database, for reading only.

    Args:
        url: postgresql://user:password@host:port/database

    Raises:
        MappingError: this is no such URL.
        SourceError: it does not answer or refuses.
    """
    place = _place(url)
    with _as_source_error():
        connection = await asyncpg.connect(
            checked(url),
            command_timeout=PAGE_SECONDS,
            server_settings={
                "application_name": "artstore-backfill",
                "default_transaction_read_only": "on",
                # Moments that know their zone come as UTC.
                "timezone": "UTC",
            },
        )
    try:
        yield Source(connection, place)
    finally:
        with suppress(*AWAY, asyncpg.PostgresError, OSError):
            await connection.close(timeout=CLOSE_SECONDS)


def _place(url: str) -> str:
    try:
        parts = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise MappingError("--from must look like postgresql://user:password@host:port/database.") from error
    if parts.drivername not in {"postgresql", "postgres"} or not parts.database:
        raise MappingError("--from must look like postgresql://user:password@host:port/database.")
    host = parts.host or parts.query.get("host") or "localhost"
    return f"{host}:{parts.port or 5432}/{parts.database}"


@contextmanager
def _as_source_error() -> Iterator[None]:
    try:
        yield
    except (*AWAY, asyncpg.PostgresError, OSError, UrlError) as error:
        raise SourceError(f"The source cannot be read: {str(error) or type(error).__name__}.") from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
