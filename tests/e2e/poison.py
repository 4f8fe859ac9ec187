"""A log with bad records among good ones, by a seed: what is bad, where, and what the good ones amount to is known.

A bad record stands on a file of its own, or on a living file: as its newest revision, behind a newer one, or before
one. It comes alone or in a run on one partition.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from io import BytesIO
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

import fastavro

from consumer_query.records import Reason
from producer_admin.outbox import SHARDS, shard_of
from runtime.kafka import idempotent_producer
from schemas.codec import Decoder, encode, versions
from schemas.events import REVISION_HEADER, EventType, FileEvent
from tests.samples import created, deleted, updated

REFUSED_BEGIN: Final = "refuse me"
"""Descriptions that begin so are refused by the test's own rule in Postgres."""
MANY_WORDS: Final = 120_000
"""Of 7 letters: 1.3 MB in the index, where 1 MB fit, and about 1 MB in the record."""
RUN_SHARE: Final = 0.1
"""Of the turns of bad records, those that are runs."""
LONGEST_RUN: Final = 12
_WORDS: Final = ("договор", "поставка", "отчёт", "contract", "invoice", "scan", "final", "draft", "акт", "счёт")


class Kind(NamedTuple):
    """One way in which a record can be bad."""

    name: str
    reason: Reason
    forge: Callable[[FileEvent], bytes | None]
    """Makes it of what would have been the event."""
    header: Callable[[FileEvent], bytes | None] = lambda event: str(event.revision).encode()
    """The revision that stands beside it."""
    late: bool = False
    """Only seen when it is to be written, so not where a newer revision is written in its stead."""
    tells: bool = True
    """Whether the letter says which revision it was."""


def _avro(event: FileEvent, **changes: Any) -> bytes:
    """An event that cannot be, encoded all the same; changes are of the record or of its metadata."""
    record = Decoder().read(encode(event))
    for name, value in changes.items():
        (record if name in record else record["metadata"])[name] = value
    newest, buffer = versions()[-1], BytesIO()
    buffer.write(newest.header)
    fastavro.schemaless_writer(buffer, newest.parsed, record)
    return buffer.getvalue()


def _words(event: FileEvent) -> bytes:
    return _avro(event, description=" ".join(f"w{number:06}" for number in range(MANY_WORDS)))


KINDS: Final = (
    Kind("rubbish", Reason.UNDECODABLE, lambda _: b"no event"),
    Kind("rubbish and no header", Reason.UNDECODABLE, lambda _: b"\xff" * 40, lambda _: None, tells=False),
    Kind("cut short", Reason.UNDECODABLE, lambda event: encode(event)[:-7]),
    Kind("bytes left over", Reason.UNDECODABLE, lambda event: encode(event) + b"\x00"),
    Kind("key of another file", Reason.BREAKS_CONTRACT, lambda event: encode(replace(event, file_id=uuid4()))),
    Kind("revision 0", Reason.BREAKS_CONTRACT, lambda event: _avro(event, revision=0), lambda _: b"0", tells=False),
    Kind("deletion with metadata", Reason.BREAKS_CONTRACT, lambda event: _avro(event, event_type="FILE_DELETED")),
    Kind("tombstone and no header", Reason.BREAKS_CONTRACT, lambda _: None, lambda _: None, tells=False),
    Kind("NUL in a text", Reason.UNSTORABLE_TEXT, lambda event: _avro(event, description="a\x00b"), late=True),
    Kind("NUL in a tag", Reason.UNSTORABLE_TEXT, lambda event: _avro(event, tags=["good", "b\x00d"]), late=True),
    Kind("far time", Reason.OUT_OF_RANGE, lambda event: _avro(event, created_at=2**62)),
    Kind("early time", Reason.OUT_OF_RANGE, lambda event: _avro(event, retention_expires_at=-(2**60))),
    Kind("negative size", Reason.OUT_OF_RANGE, lambda event: _avro(event, file_size=-1)),
    Kind(
        "refused by Postgres",
        Reason.REFUSED_BY_DATABASE,
        lambda event: _avro(event, description=f"{REFUSED_BEGIN} {event.revision}"),
        late=True,
    ),
)
TOO_MANY_WORDS: Final = Kind("too many words", Reason.TOO_MANY_WORDS, _words, late=True)


class Place(Enum):
    """Where a bad record stands among the revisions of its file."""

    OWN = "a file of its own"
    NEWEST = "the newest revision of a file"
    OLDER = "behind a revision that is as new or newer"
    OVERTAKEN = "before a newer revision"


class Written(NamedTuple):
    """One record of the log; a bad one with its kind and place."""

    file_id: UUID
    revision: int
    value: bytes | None
    header: bytes | None
    kind: Kind | None = None
    place: Place | None = None

    @property
    def may_be_passed_over(self) -> bool:
        """Whether a newer revision may be written in its stead, depending on where batches end."""
        return self.kind is not None and self.kind.late and self.place in {Place.OLDER, Place.OVERTAKEN}


@dataclass
class Story:
    """The log in order, and what the good records amount to."""

    records: list[Written] = field(default_factory=list)
    truth: dict[UUID, FileEvent] = field(default_factory=dict)

    @property
    def good(self) -> list[Written]:
        return [one for one in self.records if one.kind is None]

    def kinds(self) -> Counter[str]:
        """How many bad records there are of each kind."""
        return Counter(one.kind.name for one in self.records if one.kind is not None)


def story(seed: int, events: int, bad: int, large: int) -> Story:
    """So many events in all, `bad` of them bad: `large` are too large for the index, the others of all other kinds."""
    return _Author(random.Random(seed), bad, large).story(events)


class _Author:
    def __init__(self, chance: random.Random, bad: int, large: int) -> None:
        self._chance = chance
        self._told = Story()
        self._living: list[UUID] = []
        kinds = [TOO_MANY_WORDS] * large + [KINDS[number % len(KINDS)] for number in range(bad - large)]
        chance.shuffle(kinds)
        self._kinds = deque(kinds)

    def story(self, events: int) -> Story:
        bad = len(self._kinds)
        # A turn is one bad record or a run of them.
        turns = sorted(self._chance.sample(range(events), bad), reverse=True)
        for number in range(events - bad):
            self._change()
            while turns and turns[-1] <= number and self._kinds:
                turns.pop()
                self._poison()
        while self._kinds:
            self._poison()
        return self._told

    def _change(self) -> None:
        what = self._chance.random()
        if what < 0.6 or len(self._living) < 10:
            event = created(self._file_id(), original_filename=f"{self._text(2)}.pdf", description=self._text(12))
            self._living.append(event.file_id)
        else:
            place = self._chance.randrange(len(self._living))
            known = self._told.truth[self._living[place]]
            if what < 0.93:
                event = updated(known.file_id, known.revision + 1, description=self._text(12), tags=(self._text(1),))
            else:
                event = deleted(known.file_id, known.revision + 1)
                self._retire(place)
        self._good(event)

    def _good(self, event: FileEvent) -> None:
        self._told.truth[event.file_id] = event
        header = str(event.revision).encode()
        self._told.records.append(Written(event.file_id, event.revision, encode(event), header))
        if event.event_type is EventType.DELETED:
            self._told.records.append(Written(event.file_id, event.revision, None, header))

    def _poison(self) -> None:
        if self._chance.random() < RUN_SHARE:
            shard = self._chance.randrange(SHARDS)
            for _ in range(min(len(self._kinds), self._chance.randrange(2, LONGEST_RUN))):
                self._bad(created(self._file_id(shard)), Place.OWN)
            return
        place = self._chance.choice(list(Place))
        if place is Place.OWN or not self._living:
            self._bad(created(self._file_id()), Place.OWN)
            return
        # Nothing else happens to this file, so that what becomes of the record is certain.
        # Mostly of what came lately, so that the good revision and the bad one are in one batch.
        lately = len(self._living) - 1 - int(len(self._living) * self._chance.random() ** 3)
        known = self._told.truth[self._retire(lately)]
        older = self._chance.choice((known.revision, max(1, known.revision - 1)))
        revision = older if place is Place.OLDER else known.revision + 1
        self._bad(updated(known.file_id, revision), place)
        if place is Place.OVERTAKEN:
            self._good(updated(known.file_id, revision + 1, description=self._text(12)))

    def _bad(self, event: FileEvent, place: Place) -> None:
        kind = self._kinds.popleft()
        self._told.records.append(
            Written(event.file_id, event.revision, kind.forge(event), kind.header(event), kind, place)
        )

    def _retire(self, place: int) -> UUID:
        self._living[place], self._living[-1] = self._living[-1], self._living[place]
        return self._living.pop()

    def _text(self, count: int) -> str:
        return f"{' '.join(self._chance.choices(_WORDS, k=count))} {self._chance.randrange(10**6)}"

    def _file_id(self, shard: int | None = None) -> UUID:
        while True:
            file_id = UUID(bytes=self._chance.randbytes(16), version=4)
            if shard is None or shard_of(file_id) == shard:
                return file_id


def plain(*events: FileEvent) -> list[Written]:
    """Good records without tombstones."""
    return [Written(one.file_id, one.revision, encode(one), str(one.revision).encode()) for one in events]


async def write(bootstrap_servers: str, topic: str, records: Iterable[Written]) -> list[tuple[int, int]]:
    """Write records in order, in batches as large as they get; partition and offset of each."""
    records = list(records)
    by_partition: dict[int, list[int]] = {}
    for number, record in enumerate(records):
        by_partition.setdefault(shard_of(record.file_id), []).append(number)
    places: list[tuple[int, int]] = [(-1, -1)] * len(records)
    async with idempotent_producer(bootstrap_servers, "tests") as producer:
        sent = []
        for partition, numbers in by_partition.items():
            batch, held = producer.create_batch(), list[int]()
            for number in numbers:
                if not _append(batch, records[number]):
                    sent.append((partition, held, await producer.send_batch(batch, topic, partition=partition)))
                    batch, held = producer.create_batch(), []
                    assert _append(batch, records[number])
                held.append(number)
            sent.append((partition, held, await producer.send_batch(batch, topic, partition=partition)))
        for partition, held, future in sent:
            first = (await future).offset
            for place, number in enumerate(held):
                places[number] = partition, first + place
    return places


def _append(batch: Any, record: Written) -> bool:
    headers: Sequence[tuple[str, bytes]] = [] if record.header is None else [(REVISION_HEADER, record.header)]
    key = str(record.file_id).encode()
    return batch.append(timestamp=None, key=key, value=record.value, headers=headers) is not None
