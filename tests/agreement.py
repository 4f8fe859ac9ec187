"""What has to be true once everything has settled: files, bytes, outbox and topic tell one story."""

from pathlib import Path

import asyncpg

from producer_admin.marks import MARK
from schemas.codec import Decoder
from tests.integration.conftest import Topic
from tests.waiting import settles


def objects(folders: dict[str, Path]) -> set[tuple[str, str]]:
    """Every file on every element, also what is staged."""
    return {
        (element_id, path.relative_to(folder).as_posix())
        for element_id, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MARK
    }


async def require_agreement(pool: asyncpg.Pool, folders: dict[str, Path]) -> None:
    """The files table, the storage elements, the outbox and the accounts tell the same story."""
    files = await pool.fetch("SELECT * FROM files")
    living = [row for row in files if row["deleted_at"] is None]
    assert objects(folders) == {
        (row["storage_element_id"], f"{row['storage_path']}/{row['storage_filename']}") for row in living
    }
    announced = await pool.fetch(
        """
        SELECT file_id, array_agg(revision ORDER BY outbox_id) AS revisions
        FROM (
            SELECT file_id, revision, outbox_id FROM outbox
            UNION SELECT file_id, revision, outbox_id FROM outbox_sent
        )
        GROUP BY file_id
        """
    )
    assert {row["file_id"]: row["revisions"] for row in announced} == {
        row["file_id"]: list(range(1, row["revision"] + 1)) for row in files
    }
    used = await pool.fetch("SELECT element_id, sum(used_bytes) AS used FROM storage_usage GROUP BY element_id")
    for row in used:
        assert row["used"] == sum(
            one["file_size"] for one in living if one["storage_element_id"] == row["element_id"]
        ), row["element_id"]
    assert await pool.fetchval("SELECT count(*) FROM sagas WHERE state NOT IN ('done', 'compensated')") == 0


async def require_topic(pool: asyncpg.Pool, topic: Topic, seconds: float = 20) -> None:
    """The last record of each key is the file's row, no revision is missing, and none goes down."""
    await settles(lambda: pool.fetchval("SELECT count(*) FROM outbox"), 0, seconds)
    histories: dict[str, list[tuple[int, bytes | None]]] = {}
    for record in await topic.records():
        assert record.key is not None
        revision = int(dict(record.headers)["revision"])
        histories.setdefault(record.key.decode(), []).append((revision, record.value))
    rows = {str(row["file_id"]): row for row in await pool.fetch("SELECT * FROM files")}
    assert histories.keys() == rows.keys()
    for file_id, history in histories.items():
        row, revisions = rows[file_id], [revision for revision, _ in history]
        assert revisions == sorted(revisions)
        assert set(revisions) == set(range(1, row["revision"] + 1))
        value = history[-1][1]
        if row["deleted_at"] is not None:
            assert value is None
            continue
        assert value is not None
        event = Decoder().decode(value)
        assert event.metadata is not None
        assert (event.revision, event.storage_element_id) == (row["revision"], row["storage_element_id"])
        assert (event.metadata.description, event.metadata.checksum) == (row["description"], row["checksum"])
