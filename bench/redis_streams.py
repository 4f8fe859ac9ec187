"""The design that this one replaces: Redis Streams and a consumer group, one event, one commit and one XACK at a time.

As its documents write it: fields with the metadata as JSON, XREADGROUP with COUNT 10, each event validated by pydantic,
upserted through SQLAlchemy in a session of its own and acknowledged. Beside it the same stream read 2,000 at a time,
upserted in one statement and acknowledged at once: the best that this design comes to.

Two things favour it: Redis writes nothing to disk, and the stream keeps all events (the design drops all but 10,000).
It knows no revisions, so none are stored, and a deletion removes the row.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
from pydantic import BaseModel
from redis.asyncio import Redis
from sqlalchemy import BigInteger, Column, DateTime, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from bench.full_table import TAG_SEPARATOR
from bench.servers import Tell
from local.errors import LocalError
from local.ports import LOOPBACK, answers, free_port
from local.process import Child, Command
from schemas.events import EventType, FileEvent

STREAM: Final = "file-events"
GROUP: Final = "query-module-consumers"
CONSUMER: Final = "query-module-1"
COUNT: Final = 10
LARGE_COUNT: Final = 2000
START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 10.0
TABLE: Final = "redis_cache"

Entry = tuple[str, dict[str, str]]
"""Id and fields, as XREADGROUP gives them."""


class FileMetadataEvent(BaseModel):
    """The metadata of an event."""

    original_filename: str
    storage_filename: str
    file_size: int
    mime_type: str
    created_at: datetime
    updated_at: datetime
    created_by_username: str
    created_by_fullname: str | None = None
    description: str | None = None
    version: str | None = None
    tags: list[str] = []
    storage_path: str
    checksum: str
    retention_expires_at: datetime | None = None


CACHE: Final = Table(
    TABLE,
    MetaData(),
    Column("file_id", Uuid, primary_key=True),
    Column("storage_element_id", Text),
    Column("original_filename", Text),
    Column("storage_filename", Text),
    Column("file_size", BigInteger),
    Column("mime_type", Text),
    Column("created_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    Column("created_by_username", Text),
    Column("created_by_fullname", Text),
    Column("description", Text),
    Column("version", Text),
    Column("tags_text", Text),
    Column("storage_path", Text),
    Column("checksum", Text),
    Column("retention_expires_at", DateTime(timezone=True)),
)
_NAMES: Final = ", ".join(column.name for column in CACHE.columns)
_KEPT: Final = ", ".join(
    f"{column.name} = excluded.{column.name}" for column in CACHE.columns if not column.primary_key
)
UPSERT_ALL: Final = f"""
INSERT INTO {TABLE} ({_NAMES})
SELECT {_NAMES} FROM json_to_recordset($1::json) AS incoming (
    file_id uuid, storage_element_id text, original_filename text, storage_filename text, file_size bigint,
    mime_type text, created_at timestamptz, updated_at timestamptz, created_by_username text, created_by_fullname text,
    description text, version text, tags_text text, storage_path text, checksum text, retention_expires_at timestamptz
)
ON CONFLICT (file_id) DO UPDATE SET {_KEPT}
"""  # noqa: S608 - from the columns above
DELETE_ALL: Final = f"DELETE FROM {TABLE} WHERE file_id = ANY($1::uuid[])"  # noqa: S608 - a constant


@contextmanager
def redis_server(folder: Path, tell: Tell) -> Iterator[str]:
    """URL of a Redis of its own, started as a child; installed first when this is a Debian machine and its root.

    Raises:
        LocalError: there is none and it cannot be installed.
    """
    program = _program(tell)
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    child = Child(
        Command(
            name="redis",
            argv=[program, "--bind", LOOPBACK, "--port", str(port), "--save", "", "--appendonly", "no"],
            log=folder / "redis.log",
            cwd=folder,
        )
    )
    try:
        child.wait_until(lambda: answers(port), START_SECONDS)
        yield f"redis://{LOOPBACK}:{port}"
    finally:
        child.stop(STOP_SECONDS)


async def publish(url: str, events: Iterable[FileEvent]) -> int:
    """Make the stream and its group anew.

    Returns:
        How many events it holds.
    """
    async with Redis.from_url(url) as redis:
        await redis.flushall()
        await redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        count = 0
        pipeline = redis.pipeline(transaction=False)
        for count, event in enumerate(events, 1):
            _ = pipeline.xadd(STREAM, _fields(event))  # sent with the rest of the pipeline
            if count % LARGE_COUNT == 0:
                await pipeline.execute()
        await pipeline.execute()
    return count


async def add(redis: "Redis", event: FileEvent) -> None:
    """Append one event, as the design's publisher does."""
    await redis.xadd(STREAM, _fields(event))


async def one_by_one(url: str, database: str, count: int) -> float:
    """Seconds to apply `count` events as the design says."""
    engine = create_async_engine(database.replace("postgresql://", "postgresql+asyncpg://"))
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with Redis.from_url(url, decode_responses=True) as redis:
        begin, applied = time.perf_counter(), 0
        while applied < count:
            for entry_id, fields in await _read(redis, COUNT):
                async with sessions() as session:
                    await _apply_one(session, fields)
                await redis.xack(STREAM, GROUP, entry_id)
                applied += 1
        took = time.perf_counter() - begin
    await engine.dispose()
    return took


async def in_batches(url: str, database: str, count: int) -> float:
    """Seconds to apply `count` events with one statement a batch."""
    connection = await asyncpg.connect(database)
    async with Redis.from_url(url, decode_responses=True) as redis:
        begin, applied = time.perf_counter(), 0
        while applied < count:
            entries = await _read(redis, LARGE_COUNT)
            newest = {fields["file_id"]: fields for _, fields in entries}
            gone = [file_id for file_id, fields in newest.items() if fields["event_type"] == EventType.DELETED]
            rows = [_row(fields) for fields in newest.values() if fields["event_type"] != EventType.DELETED]
            async with connection.transaction():
                await connection.execute(UPSERT_ALL, json.dumps(rows))
                if gone:
                    await connection.execute(DELETE_ALL, gone)
            await redis.xack(STREAM, GROUP, *(entry_id for entry_id, _ in entries))
            applied += len(entries)
        took = time.perf_counter() - begin
    await connection.close()
    return took


async def _read(redis: "Redis", count: int) -> list[Entry]:
    found: Any = await redis.xreadgroup(GROUP, CONSUMER, {STREAM: ">"}, count=count, block=5000)
    if not found:
        raise LocalError("The stream of Redis holds fewer events than were added.")
    entries = next(iter(found.values()))[0] if isinstance(found, dict) else found[0][1]
    return list(entries)


async def _apply_one(session: AsyncSession, fields: dict[str, str]) -> None:
    file_id = UUID(fields["file_id"])
    if fields["event_type"] == EventType.DELETED:
        await session.execute(CACHE.delete().where(CACHE.c.file_id == file_id))
    else:
        values = FileMetadataEvent.model_validate_json(fields["metadata"]).model_dump()
        values["tags_text"] = TAG_SEPARATOR.join(values.pop("tags"))
        values |= {"file_id": file_id, "storage_element_id": fields["storage_element_id"]}
        statement = insert(CACHE).values(values)
        kept = {name: statement.excluded[name] for name in values if name != "file_id"}
        await session.execute(statement.on_conflict_do_update(index_elements=[CACHE.c.file_id], set_=kept))
    await session.commit()


def _row(fields: dict[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(fields["metadata"])
    values["tags_text"] = TAG_SEPARATOR.join(values.pop("tags"))
    return values | {"file_id": fields["file_id"], "storage_element_id": fields["storage_element_id"]}


def _fields(event: FileEvent) -> dict[Any, Any]:
    metadata = event.metadata
    fields = {
        "event_type": str(event.event_type),
        "timestamp": event.occurred_at.isoformat(),
        "file_id": str(event.file_id),
        "storage_element_id": event.storage_element_id,
    }
    if metadata is not None:
        values = {name: getattr(metadata, name) for name in FileMetadataEvent.model_fields}
        fields["metadata"] = FileMetadataEvent.model_validate(values | {"tags": list(metadata.tags)}).model_dump_json()
    return fields


def _program(tell: Tell) -> str:
    apt = shutil.which("apt-get")
    if shutil.which("redis-server") is None and os.geteuid() == 0 and apt is not None:
        tell("Installing redis-server")
        for arguments in (("update",), ("install", "-y", "--no-install-recommends", "redis-server")):
            subprocess.run([apt, *arguments], check=False, capture_output=True)
    found = shutil.which("redis-server")
    if found is None:
        raise LocalError("There is no redis-server. Install the package redis-server, or go without: --peers debezium.")
    return found
