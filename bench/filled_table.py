"""A table that holds many files before anything is measured: what the projector wrote, many times over.

Copies get ids of their own, and their number as one word more, so that the indexes grow as with so many different
files. Postgres makes all of it itself; the indexes are built afterwards, as a rebuild does it.
"""

from typing import Final

import asyncpg

from bench import projecting
from bench.projecting import TABLE, Log
from bench.servers import Servers

COPIED: Final = 50_000
"""Different rows that are copied."""
SAMPLE: Final = f"CREATE TABLE sample AS SELECT * FROM {TABLE} WHERE NOT deleted LIMIT {COPIED}"  # noqa: S608
EMPTY: Final = f"TRUNCATE {TABLE}"
COLUMNS: Final = f"""
SELECT column_name FROM information_schema.columns
WHERE table_name = '{TABLE}' AND is_generated = 'NEVER' AND column_name NOT IN ('file_id', 'search')
"""  # noqa: S608 - a constant
INDEXES: Final = f"""
SELECT indexname, indexdef FROM pg_indexes WHERE tablename = '{TABLE}' AND indexdef NOT LIKE 'CREATE UNIQUE%'
"""  # noqa: S608 - a constant
COPY: Final = f"""
INSERT INTO {TABLE} (file_id, search, {{columns}})
SELECT gen_random_uuid(), search || array_to_tsvector(ARRAY['n' || number]), {{columns}}
FROM generate_series(1, $1::integer) AS number
JOIN (SELECT row_number() OVER () AS place, * FROM sample) AS copied
  ON copied.place = number % (SELECT count(*) FROM sample) + 1
"""  # noqa: S608 - a constant
READY: Final = (
    "DROP TABLE sample",
    "DELETE FROM projector_positions",
    f"VACUUM (ANALYZE) {TABLE}",
)


async def fill(servers: Servers, log: Log, database: str, files: int) -> None:
    """Make a prepared Query database hold `files` files, none of them of this topic, and no positions."""
    await projecting.project(servers, database, log)
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(SAMPLE)
        await connection.execute(EMPTY)
        indexes = await connection.fetch(INDEXES)
        for index in indexes:
            await connection.execute(f"DROP INDEX {index['indexname']}")
        columns = ", ".join(row["column_name"] for row in await connection.fetch(COLUMNS))
        await connection.execute(COPY.format(columns=columns), files)
        # Only for this session, so that a large table is ready within a minute or two.
        await connection.execute("SET maintenance_work_mem = '1GB'")
        for index in indexes:
            await connection.execute(index["indexdef"])
        for statement in READY:
            await connection.execute(statement)
    finally:
        await connection.close()
