"""What the database says of files and what the storage elements hold are compared, and each difference is named.

Nothing is called a difference that a change under way explains: an object is looked up after it was listed, a file is
looked up again after its object was not found, and each question to the database is one statement, so one moment.
Only objects of our naming that nothing refers to are ever removed, and only after one more such question.

Memory is bounded by a page: files are walked by their key, objects as the storage element lists them.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, TypeVar
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin.errors import StorageError
from producer_admin.marks import MARK
from producer_admin.object_store import CHECK_FOLDER
from producer_admin.storage import FoundObject, StorageElement, own_name

PAGE: Final = 1000
AT_ONCE: Final = 16
"""Questions to one storage element under way at a time."""
VERIFIED_AT_ONCE: Final = 2
"""Objects read at a time: hashing is this machine's work."""

# By the primary key, so each page costs its own rows and those of other elements between them.
FILES: Final = text(
    """
    SELECT file_id, storage_path || '/' || storage_filename AS key, file_size, checksum
    FROM files WHERE file_id > :behind AND storage_element_id = :element_id AND deleted_at IS NULL
    ORDER BY file_id LIMIT :limit
    """
)
FILES_COUNT: Final = text("SELECT count(*) FROM files WHERE storage_element_id = :element_id AND deleted_at IS NULL")
# The file again, by its primary key: is its object still the one that was looked for?
FILE_STILL: Final = text(
    """
    SELECT 1 FROM files WHERE file_id = :file_id AND storage_element_id = :element_id AND deleted_at IS NULL
      AND storage_path || '/' || storage_filename = :key AND file_size = :file_size AND checksum = :checksum
    """
)
# Keys that these files have, and that unfinished sagas name. Files by primary key, sagas by sagas_unfinished.
REFERRED: Final = text(
    """
    SELECT storage_path || '/' || storage_filename AS key, true AS by_file FROM files
    WHERE file_id = ANY(:file_ids) AND storage_element_id = :element_id AND deleted_at IS NULL
    UNION ALL
    SELECT ref ->> 'key', false FROM sagas, LATERAL (VALUES (detail -> 'created'), (detail -> 'doomed')) AS refs (ref)
    WHERE state NOT IN ('done', 'compensated') AND ref ->> 'element_id' = :element_id
    """
)
NOW: Final = text("SELECT now()")
MOST_FAILURES: Final = 50
"""So many failures in a row are the storage element's, not those of so many objects."""


class Difference(StrEnum):
    """What can be wrong, and what is only worth knowing."""

    MISSING = "missing"
    """A file whose object is not there."""
    WRONG_SIZE = "wrong_size"
    WRONG_CHECKSUM = "wrong_checksum"
    """The object has the right size and other bytes. Found with `verify` alone."""
    UNREADABLE = "unreadable"
    """The storage element failed when it was asked for this object."""
    ORPHAN = "orphan"
    """An object of our naming that nothing refers to."""
    STAGED = "staged"
    """What a killed write or check has left."""


@dataclass(frozen=True)
class Finding:
    """One difference."""

    difference: Difference
    element_id: str
    key: str
    size: int
    """Bytes: of the file as recorded, or of the object that nobody refers to."""
    file_id: UUID | None = None
    detail: str | None = None
    reclaimed: bool = False


@dataclass
class Totals:
    """What one element's scrub has seen."""

    element_id: str
    files: int = 0
    objects: int = 0
    object_bytes: int = 0
    verified_bytes: int = 0
    too_young: int = 0
    """Objects that nothing refers to, younger than the grace."""
    foreign: int = 0
    """Objects that are not of our naming."""
    foreign_files: int = 0
    """Files whose objects are among those: taken over from elsewhere."""
    found: dict[Difference, int] = field(default_factory=dict)
    reclaimed: int = 0
    reclaimed_bytes: int = 0

    @property
    def clean(self) -> bool:
        """No difference was found."""
        return not self.found


@dataclass(frozen=True)
class Options:
    """What to do."""

    verify: bool = False
    reclaim: bool = False
    grace: timedelta = timedelta(hours=24)


T = TypeVar("T")
Report = Callable[[Finding], None]
Tell = Callable[[int, int | None, str], None]


@dataclass(frozen=True)
class _Referred:
    """Keys in use, by whom."""

    by_files: frozenset[str]
    by_sagas: frozenset[str]


@dataclass(frozen=True)
class _File:
    file_id: UUID
    key: str
    file_size: int
    checksum: str


class Scrub:
    """The scrub of one storage element."""

    def __init__(
        self,
        engine: AsyncEngine,
        element_id: str,
        storage: StorageElement,
        options: Options,
        report: Report,
        tell: Tell = lambda _done, _total, _text: None,
    ) -> None:
        self._engine = engine
        self._element_id = element_id
        self._storage = storage
        self._options = options
        self._report = report
        self._tell = tell
        self._failures = 0
        self.totals = Totals(element_id)

    async def run(self) -> Totals:
        """Look at every file of the element, then at every object on it.

        Raises:
            StorageError: it does not answer, or cannot be listed. Of a single object this is a finding.
        """
        await self._storage.check(write=False)
        await self._look_at_files()
        await self._look_at_objects()
        return self.totals

    async def _look_at_files(self) -> None:
        async with self._engine.connect() as connection:
            total = (await connection.execute(FILES_COUNT, {"element_id": self._element_id})).scalar_one()
        what = "reading the files' objects" if self._options.verify else "looking for the files' objects"
        async for page in self._pages():
            await _each(page, self._look_at_file, VERIFIED_AT_ONCE if self._options.verify else AT_ONCE)
            self.totals.files += len(page)
            rate = f", {self.totals.verified_bytes:,} bytes read" if self._options.verify else ""
            self._tell(self.totals.files, total, f"{self._element_id}: {what}{rate}")

    async def _pages(self) -> AsyncIterator[list[_File]]:
        behind = UUID(int=0)
        while True:
            values = {"behind": behind, "element_id": self._element_id, "limit": PAGE}
            async with self._engine.connect() as connection:
                rows = (await connection.execute(FILES, values)).all()
            if not rows:
                return
            yield [_File(*row) for row in rows]
            behind = rows[-1].file_id

    async def _look_at_file(self, file: _File) -> None:
        try:
            difference, detail = await self._compare(file)
            self._failures = 0
        except StorageError as error:
            self._failures += 1
            if self._failures >= MOST_FAILURES:
                raise
            difference, detail = Difference.UNREADABLE, str(error)
        # It may have been deleted, moved or given other content since its page was read.
        if difference is not None and await self._is_still(file):
            self._note(Finding(difference, self._element_id, file.key, file.file_size, file.file_id, detail))

    async def _compare(self, file: _File) -> tuple[Difference | None, str | None]:
        found = await self._storage.find(file.key)
        if found is None:
            return Difference.MISSING, None
        self.totals.foreign_files += own_name(file.key) is None
        if found.size != file.file_size:
            return Difference.WRONG_SIZE, f"{found.size} bytes"
        if not self._options.verify:
            return None, None
        digest = hashlib.sha256()
        async for chunk in await self._storage.read(file.key):
            # Off the loop, whose other reader goes on meanwhile.
            await asyncio.to_thread(digest.update, chunk)
            self.totals.verified_bytes += len(chunk)
        checksum = f"sha256:{digest.hexdigest()}"
        return (None, None) if checksum == file.checksum else (Difference.WRONG_CHECKSUM, checksum)

    async def _is_still(self, file: _File) -> bool:
        values = {
            "file_id": file.file_id,
            "element_id": self._element_id,
            "key": file.key,
            "file_size": file.file_size,
            "checksum": file.checksum,
        }
        async with self._engine.connect() as connection:
            return (await connection.execute(FILE_STILL, values)).one_or_none() is not None

    async def _look_at_objects(self) -> None:
        async with self._engine.connect() as connection:
            now: datetime = (await connection.execute(NOW)).scalar_one()
        page: list[FoundObject] = []
        async for found in self._storage.list():
            if found.key != MARK:
                page.append(found)
            if len(page) == PAGE:
                await self._look_at_page(page, now - self._options.grace)
                page = []
        await self._look_at_page(page, now - self._options.grace)

    async def _look_at_page(self, page: Sequence[FoundObject], old: datetime) -> None:
        self.totals.objects += len(page)
        self.totals.object_bytes += sum(found.size for found in page)
        self._tell(self.totals.objects, None, f"{self._element_id}: asking who refers to its objects")
        referred = await self._referred([found.key for found in page])
        for found in page:
            difference = _classify(found.key, referred)
            if difference is not None and found.modified > old:
                self.totals.too_young += 1
            elif difference is not None:
                await self._report_unreferred(found, difference)
            elif own_name(found.key) is None:
                self.totals.foreign += 1

    async def _report_unreferred(self, found: FoundObject, difference: Difference) -> None:
        if self._options.reclaim:
            # In the moment of removal, once more. What is staged goes without what it is beside.
            if _classify(found.key, await self._referred([found.key])) is None:
                return
            await self._storage.remove(found.key)
            self.totals.reclaimed += 1
            self.totals.reclaimed_bytes += found.size
        own = own_name(found.key)
        file_id = None if own is None else own.file_id
        reclaimed = self._options.reclaim
        self._note(Finding(difference, self._element_id, found.key, found.size, file_id, reclaimed=reclaimed))

    async def _referred(self, keys: Sequence[str]) -> _Referred:
        file_ids = [own.file_id for own in map(own_name, keys) if own is not None]
        async with self._engine.connect() as connection:
            rows = await connection.execute(REFERRED, {"file_ids": file_ids, "element_id": self._element_id})
            found = rows.all()
        return _Referred(
            frozenset(row.key for row in found if row.by_file), frozenset(row.key for row in found if not row.by_file)
        )

    def _note(self, finding: Finding) -> None:
        self.totals.found[finding.difference] = self.totals.found.get(finding.difference, 0) + 1
        self._report(finding)


def _classify(key: str, referred: _Referred) -> Difference | None:
    """What an object is that nothing under way explains; None when it is in order or none of ours."""
    if key.startswith(f"{CHECK_FOLDER}/"):
        return Difference.STAGED
    own = own_name(key)
    if own is None:
        return None
    if own.staged:
        # Beside a recorded object it is what an earlier try of the same saga has left.
        return None if key.partition("#")[0] in referred.by_sagas else Difference.STAGED
    return None if key in referred.by_files or key in referred.by_sagas else Difference.ORPHAN


async def _each(items: Iterable[T], act: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Act on each item, some at once; the first failure ends all."""
    rest = iter(items)

    async def work() -> None:
        for item in rest:
            await act(item)

    workers = [asyncio.create_task(work()) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
