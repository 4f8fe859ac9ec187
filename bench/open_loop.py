"""Each append is due at its time whatever became of those before it, and its delay counts from when it was due.

So nothing is left out while the generator itself is held up; how late it was is reported beside the delays.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from bench.report import percentile
from bench.visible import Watch
from producer_admin.outbox import shard_of
from schemas.codec import encode
from schemas.events import EventType, FileEvent, record_headers


class Record(NamedTuple):
    """An event, ready to be sent, and whether a SELECT on the view can show it."""

    event: FileEvent
    shows: bool
    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]

    @classmethod
    def of(cls, event: FileEvent) -> "Record":
        """What a relay would send."""
        return cls(
            event,
            event.event_type is not EventType.DELETED,
            shard_of(event.file_id),
            str(event.file_id).encode(),
            encode(event),
            record_headers(event.revision, event.event_id),
        )


Append = Callable[[Record], Awaitable[Awaitable[object]]]
"""Hands one record over; what it returns is awaited at the end: the acknowledgement."""


class Timed(NamedTuple):
    """Percentiles of one run, in milliseconds."""

    p50: float
    p99: float
    slowest: float
    asking: float
    """One round of asking, median."""
    late: float
    """How late the generator itself was, p99; part of the delays."""

    @classmethod
    def of(cls, watch: Watch, late: Sequence[float]) -> "Timed":
        """From what a watch saw and from how late the generator was, both in seconds."""
        shares = (percentile(watch.delays, 0.5), percentile(watch.delays, 0.99), max(watch.delays))
        return cls(*(1000 * one for one in (*shares, percentile(watch.rounds, 0.5), percentile(late, 0.99))))


async def open_loop(
    append: Append, records: Sequence[Record], rate: float, watch: Watch, enough: asyncio.Event | None = None
) -> list[float]:
    """Append each record when it is due, `rate` a second, until all are or there is `enough`.

    Returns:
        How late each append began, seconds.
    """
    late, acknowledged = [], []
    begin = time.perf_counter()
    for number, record in enumerate(records):
        if enough is not None and enough.is_set():
            break
        due = begin + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        late.append(time.perf_counter() - due)
        if record.shows:
            watch.expect(record.event.file_id, record.event.revision, due)
        acknowledged.append(await append(record))
    await asyncio.gather(*acknowledged)
    return late


async def asked_when_due(ask: Callable[[int], Awaitable[object]], count: int, rate: float) -> tuple[list[float], float]:
    """Ask `count` questions, each when it is due, `rate` a second, whether or not those before are answered.

    Args:
        ask: called with the number of a question; returns when it is answered
        count: of questions
        rate: a second

    Returns:
        Seconds from when each was due until it was answered, and how late the generator itself was, p99.
    """
    delays: list[float] = []
    late: list[float] = []

    async def one(number: int, due: float) -> None:
        await ask(number)
        delays.append(time.perf_counter() - due)

    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            due = begin + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            late.append(time.perf_counter() - due)
            group.create_task(one(number, due))
    return delays, percentile(late, 0.99)
