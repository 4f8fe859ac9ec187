"""What would make the cache silently wrong is noticed, said, and cured by a rebuild: asked for once, then up to people.

    at each seek   is this the log that the rows are of?  →  `starts`
    then           the same again, and was it left for too long? Only then is stored when the log's end was reached,
                   which would else hide that, and a newer witness
    all the time   doubts are said in health, log and metric, and a rebuild is asked for or demanded

The projector goes on applying to a generation in doubt: search stays as fresh as ever, and nearly as right. Into one of
another shape it cannot write, so it stays out of the group, where projectors of that shape may be at work.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

import asyncpg
import structlog
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError

from consumer_query import doubts, generations, guards, positions, rebuild_jobs
from consumer_query.doubts import Noted
from consumer_query.errors import QueryError
from consumer_query.generations import WrongShapeError
from consumer_query.guards import Doubt, Log, Reason, Shape, Sighting, Standing, Witness
from consumer_query.log_evidence import Facts, LogEvidence
from consumer_query.metrics import DOUBTS
from consumer_query.positions import Seen
from consumer_query.rebuild_jobs import ENDS, Kind, RebuildRunsError
from runtime.health import NotReadyError
from runtime.postgres import AWAY, NOW
from runtime.retries import pause

LOOK_SECONDS: Final = 2.0
"""Between looks at doubts, and whether the live generation has become ours."""
FACTS_SECONDS: Final = 300.0
"""How soon a changed delete.retention.ms is heard of."""

_log = structlog.get_logger()


class Cure(StrEnum):
    """Who begins the rebuild that a doubt asks for."""

    REBUILD = "rebuild"
    """The projector asks for it."""
    DEMAND = "demand"
    """An operator; the projector only says so."""


class End(NamedTuple):
    """Where the log ended at a moment of the database's clock."""

    offset: int
    heard_at: datetime


@dataclass
class Applying:
    """What the projector tells of itself."""

    partitions: Callable[[], Collection[int]]
    """Those that it applies now."""
    seek_again: Callable[[], None]
    """Has it look at all of them again before it goes on."""
    last: dict[int, "ConsumerRecord[bytes, bytes]"] = field(default_factory=dict)
    """The last record that was applied, by partition."""


class CacheGuard:
    """Keeps watch over the live generation for one projector.

    Args:
        pool: of the Query database
        evidence: of the topic's log
        topic: of file events
        cure: who begins a rebuild
    """

    def __init__(self, pool: asyncpg.Pool, evidence: LogEvidence, topic: str, cure: Cure) -> None:
        self._pool = pool
        self._evidence = evidence
        self._topic = topic
        self._cure = cure
        self._facts: Facts | None = None
        self._facts_at = 0.0
        self._renewed_at = 0.0
        self._ends: dict[int, End] = {}
        """Ends of the log that the rows had not reached when they were heard."""
        self._saying: str | None = None
        self._told = ""
        self.barred: str | None = None
        """Why the live generation cannot be written by this program; None when it can."""
        for reason in Reason:
            DOUBTS.labels(reason).set(0)

    async def check(self) -> None:
        """Raise NotReadyError with what speaks against the cache, and what becomes of it."""
        if self._saying is not None:
            raise NotReadyError(self._saying)

    async def admitted(self, stopping: asyncio.Event) -> bool:
        """Wait until the live generation is ours to write; False when told to stop before."""
        while not stopping.is_set():
            try:
                await generations.live(self._pool)
            except WrongShapeError as error:
                if self.barred is None:
                    _log.warning("not joining the group: the live cache is not ours to write", reason=str(error))
                self.barred = str(error)
                await pause(LOOK_SECONDS, stopping)
            except (*AWAY, OSError, asyncpg.PostgresError):
                return True  # the lanes say it, and keep their place in the group meanwhile
            else:
                if self.barred is not None:
                    _log.info("the live cache is ours to write")
                self.barred = None
                return True
        return False

    async def examine(
        self, standings: Mapping[int, Standing], bounds: Mapping[int, tuple[int, int]], began_anew: Collection[int]
    ) -> tuple[list[Doubt], set[int]]:
        """Look whether the rows are of this log.

        Args:
            standings: what is stored of partitions
            bounds: where the log of each wanted partition begins and ends
            began_anew: partitions whose log became shorter while it was read

        Returns:
            What is to be doubted, and the partitions that have to be applied from their beginning.

        Raises:
            aiokafka.errors.KafkaError: the broker is away.
        """
        facts = await self._ask_facts(fresh=True)
        known = {number: standings[number] for number in bounds if number in standings}
        witnesses = {number: one.witness for number, one in known.items() if one.witness is not None}
        _, sightings = await self._evidence.look(list(known), witnesses) if witnesses else ({}, {})
        logs = {
            number: Log(*bounds[number], facts.cluster_id, sightings.get(number, Sighting.ABSENT), number in began_anew)
            for number in known
        }
        mismatches = {number: guards.mismatch_of(number, one, logs[number]) for number, one in known.items()}
        found = [doubt for doubt in mismatches.values() if doubt is not None]
        if all(doubt.reason is not Reason.ANOTHER_LOG for doubt in found):
            return found, set()
        # One partition made anew is a topic made anew: the others are of it unless a record says otherwise.
        return found, {number for number in known if sightings.get(number) is not Sighting.SAME or mismatches[number]}

    def say(self, new: Collection[Doubt]) -> None:
        """Log doubts that were written down just now."""
        for doubt in new:
            _log.error("the cache may be wrong", reason=doubt.reason, detail=doubt.detail)

    async def run(self, applying: Applying) -> None:
        """Keep watch, until cancelled."""
        while True:
            for work in (self._renew, self._look):
                try:
                    await work(applying)
                except (*AWAY, OSError, asyncpg.PostgresError, KafkaError, QueryError) as error:
                    self._tell(error)
            await asyncio.sleep(LOOK_SECONDS)

    async def _renew(self, applying: Applying) -> None:
        """Store when the log's end was reached, unless the log is another one or that comes too late."""
        partitions = list(applying.partitions())
        if not partitions or _now() - self._renewed_at < guards.renew_seconds(await self._allowed()):
            return
        facts = await self._ask_facts()
        heard_at = await self._pool.fetchval(NOW)
        async with self._pool.acquire() as connection:
            generation = await connection.fetchval(generations.LIVE)
            standings = await positions.standings(connection, generation, self._topic)
        known = {number: standings[number] for number in partitions if number in standings}
        witnesses = {number: one.witness for number, one in known.items() if one.witness is not None}
        newer = {number: guards.witness_of(applying.last[number]) for number in known if number in applying.last}
        ends, sightings = await self._evidence.look(list(known), witnesses)
        for number, one in known.items():
            log = Log(0, ends[number], facts.cluster_id, sightings.get(number, Sighting.ABSENT))
            if guards.mismatch_of(number, one, log):
                applying.seek_again()
                return
        await self._store(generation, known, newer, {number: End(ends[number], heard_at) for number in known})
        self._renewed_at = _now()

    async def _store(
        self, generation: int, known: Mapping[int, Standing], newer: Mapping[int, Witness], heard: Mapping[int, End]
    ) -> None:
        facts = await self._ask_facts()
        allowed = guards.allowed_seconds(facts.retention_seconds)
        # Where there is always something new the end moves on; then it is an earlier end that was reached.
        earlier = {number: self._ends.get(number, end) for number, end in heard.items()}
        async with self._pool.acquire() as connection, connection.transaction():
            absences = (guards.absence_of(number, one, allowed) for number, one in known.items())
            new = await doubts.note(connection, generation, filter(None, absences))
            reached: set[int] = set()
            for ends in (heard,) if earlier == heard else (earlier, heard):
                seen = [Seen(number, *end, newer.get(number)) for number, end in ends.items()]
                reached |= await positions.renew(connection, generation, self._topic, facts.cluster_id, seen)
        self._ends = {number: (heard if number in reached else earlier)[number] for number in heard}
        self.say(new)

    async def _look(self, applying: Applying) -> None:
        """Say what is doubted, and see to its cure."""
        row = await self._pool.fetchrow(generations.LIVE)
        if row is None:
            return
        generation: int = row["live"]
        shape = guards.shape_of(row["shape"], row["analyzer"])
        if shape is not Shape.OURS:
            applying.seek_again()
        if shape is Shape.OLDER:
            detail = f"shape {row['shape']} and analyzer {row['analyzer']}, older than this program's"
            async with self._pool.acquire() as connection:
                self.say(await doubts.note(connection, generation, [Doubt(Reason.OTHER_SHAPE, detail)]))
        found = await doubts.of(self._pool, generation)
        for reason in Reason:
            DOUBTS.labels(reason).set(any(one.reason is reason for one in found))
        self._saying = f"{_summary(found)} {await self._see_to(generation, found)}" if found else None

    async def _see_to(self, generation: int, found: list[Noted]) -> str:
        """Ask for a rebuild once for each doubt, and say how it stands."""
        running = await rebuild_jobs.under_way(self._pool)
        if running is not None:
            return f"Rebuild {running.job_id} is under way ({running.phase})."
        asked = [one.rebuild for one in found if one.rebuild is not None]
        if self._cure is Cure.REBUILD and len(asked) < len(found):
            try:
                job = await rebuild_jobs.request(
                    self._pool, Kind.REBUILD, requested_by="projector", reason=_summary(found)
                )
            except RebuildRunsError:
                return "A rebuild is under way."
            await doubts.asked(self._pool, generation, job.job_id)
            _log.warning("rebuild asked for", job=str(job.job_id), reason=job.reason)
            return f"Rebuild {job.job_id} is asked for."
        if asked:
            job = await rebuild_jobs.get(self._pool, asked[-1])
            if job.phase in ENDS:
                return f"Rebuild {job.job_id} ended as {job.phase}: {job.trouble or 'no reason given'}. Up to you now."
        return "Run: artstore rebuild"

    async def _ask_facts(self, *, fresh: bool = False) -> Facts:
        if self._facts is None or fresh or _now() - self._facts_at > FACTS_SECONDS:
            self._facts = await self._evidence.facts()
            self._facts_at = _now()
        return self._facts

    async def _allowed(self) -> float:
        return guards.allowed_seconds((await self._ask_facts()).retention_seconds)

    def _tell(self, error: Exception) -> None:
        told = f"{type(error).__name__}: {error}"
        if told != self._told:
            _log.warning("no look at the cache's standing", error=told)
        self._told = told


def _summary(found: list[Noted]) -> str:
    return " ".join(f"{one.reason}: {one.detail}." for one in found)


def _now() -> float:
    return asyncio.get_running_loop().time()
