"""Writers that do to the topic what relays do, by a seed, and remember what is true afterwards.

A file's revisions rise along its partition; a deletion is followed by its tombstone; a transaction holds a file at most
once and is written again when its outcome is unknown, so records may repeat; some transactions are aborted; and some
records can never be applied. None of these has a file id in common with another, so what they should become is certain.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from producer_admin.outbox import shard_of
from runtime.kafka import abandon, transactional_producer
from schemas.codec import encode
from schemas.events import REVISION_HEADER, EventType, FileEvent, record_headers
from tests.samples import created, deleted, updated

WRITERS: Final = 2
TRANSACTION_SECONDS: Final = 9.0
"""Short of the broker's own time-out."""
START_SECONDS: Final = 10.0
SIZES: Final = (1, 1, 2, 5, 20, 60, 200)
"""Of transactions: single changes and bursts."""
_WORDS: Final = ("договор", "поставка", "отчёт", "contract", "invoice", "scan", "final", "draft")

POISON: Final[tuple[Callable[[UUID], "tuple[bytes | None, bool]"], ...]] = (
    lambda _: (b"no event", True),
    lambda file_id: (encode(created(file_id))[:-7], True),
    lambda file_id: (encode(created(file_id, description="a\x00b")), True),
    lambda _: (encode(created()), True),
    lambda _: (None, False),
)
"""Values, and whether a revision stands beside them: rubbish, half an event, NUL, a foreign key, a bare tombstone."""


class Written(NamedTuple):
    """One record to write."""

    key: bytes
    value: bytes | None
    partition: int
    headers: list[tuple[str, bytes]]


@dataclass
class Writers:
    """All that is written to one topic."""

    bootstrap_servers: str
    topic: str
    seed: int
    rate: float
    """Events a second, about."""
    poison: float = 0.0
    """Share of events."""
    encodings: Sequence[Callable[[FileEvent], bytes]] = (encode,)
    """One of these for each record, as where producers of more than one version write."""
    truth: dict[UUID, FileEvent] = field(default_factory=dict)
    """The newest event of each file whose transaction was committed."""
    written: int = 0
    """Events whose transactions were committed."""
    poisoned: int = 0
    aborted: int = 0
    again: int = 0
    """Transactions that had to be written again."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Write until `stopping`, and then until the last transaction is committed."""
        async with asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                group.create_task(_Writer(self, number).run(stopping))


class _Writer:
    """One of them, with partitions of its own."""

    def __init__(self, all_of_them: Writers, number: int) -> None:
        self._all = all_of_them
        self._number = number
        self._chance = random.Random(f"{all_of_them.seed} {number}")
        self._mine: dict[UUID, FileEvent] = {}
        self._living: list[UUID] = []
        self._producer: AIOKafkaProducer | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        try:
            while not stopping.is_set():
                size = self._chance.choice(SIZES)
                await self._transaction(self._events(size))
                await asyncio.sleep(size * WRITERS / self._all.rate * self._chance.uniform(0.5, 1.5))
        finally:
            await self._drop()

    def _events(self, count: int) -> list[FileEvent | None]:
        """Changes of as many files; None stands for what can never be applied."""
        chosen: dict[UUID, FileEvent] = {}
        events: list[FileEvent | None] = []
        for _ in range(count):
            event = None if self._chance.random() < self._all.poison else self._event()
            if event is None or event.file_id not in chosen:
                events.append(event)
            if event is not None:
                chosen.setdefault(event.file_id, event)
        return events

    def _event(self) -> FileEvent:
        what = self._chance.random()
        if what < 0.55 or not self._living:
            return created(self._file_id(), original_filename=f"{self._words(3)}.pdf", description=self._words(8))
        # Mostly what was changed lately.
        known = self._mine[self._living[-1 - int(len(self._living) * self._chance.random() ** 3)]]
        if what < 0.85:
            return updated(known.file_id, known.revision + 1, description=self._words(8), tags=(self._words(1),))
        return deleted(known.file_id, known.revision + 1) if what < 0.93 else known

    def _words(self, count: int) -> str:
        return f"{' '.join(self._chance.choices(_WORDS, k=count))} {self._chance.randrange(10**6)}"

    def _file_id(self) -> UUID:
        while True:
            file_id = UUID(bytes=self._chance.randbytes(16), version=4)
            if shard_of(file_id) % WRITERS == self._number:
                return file_id

    async def _transaction(self, events: Sequence[FileEvent | None]) -> None:
        abort = self._chance.random() < 0.05
        records = [record for event in events for record in self._records(event)]
        while True:
            try:
                await self._write(records, abort=abort)
                break
            except (KafkaError, TimeoutError, OSError):
                self._all.again += 1
                await self._drop()
                await asyncio.sleep(0.2)
        if abort:
            self._all.aborted += len(events)
            return
        self._all.written += len(events)
        self._all.poisoned += events.count(None)
        for event in events:
            if event is not None:
                self._remember(event)

    def _remember(self, event: FileEvent) -> None:
        if event.event_type is EventType.CREATED and event.file_id not in self._mine:
            self._living.append(event.file_id)
        if event.event_type is EventType.DELETED:
            self._living.remove(event.file_id)
        self._mine[event.file_id] = self._all.truth[event.file_id] = event

    async def _write(self, records: Sequence[Written], *, abort: bool) -> None:
        if self._producer is None:
            self._producer = transactional_producer(
                self._all.bootstrap_servers, f"{self._all.topic}.writer-{self._number}"
            )
            async with asyncio.timeout(START_SECONDS):
                await self._producer.start()
        async with asyncio.timeout(TRANSACTION_SECONDS):
            await self._producer.begin_transaction()
            sent = [
                await self._producer.send(
                    self._all.topic, one.value, one.key, partition=one.partition, headers=one.headers
                )
                for one in records
            ]
            await asyncio.gather(*sent)
            await (self._producer.abort_transaction() if abort else self._producer.commit_transaction())

    async def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await abandon(producer)

    def _records(self, event: FileEvent | None) -> list[Written]:
        if event is None:
            file_id = self._file_id()
            value, with_revision = self._chance.choice(POISON)(file_id)
            headers = [(REVISION_HEADER, b"1")] if with_revision else []
            return [Written(str(file_id).encode(), value, shard_of(file_id), headers)]
        headers = record_headers(event.revision, event.event_id)
        encodings = self._all.encodings
        value = (encodings[0] if len(encodings) == 1 else self._chance.choice(encodings))(event)
        values = (value, None) if event.event_type is EventType.DELETED else (value,)
        return [Written(str(event.file_id).encode(), value, shard_of(event.file_id), headers) for value in values]
