"""The next generation is filled beside the live one and takes its place in one short transaction, or leaves no trace.

    queued  →  loading  →  indexing  →  catching up  →  verifying  →  swapping  →  swapped

Each phase begins from what the database says, so a worker that finds a job goes on where another one was killed. Search
and projectors stay with the live generation until the swap; then both are at the same positions.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog
from aiokafka.errors import UnknownTopicOrPartitionError
from anyio import CapacityLimiter
from anyio.to_process import run_sync as run_in_process

from consumer_query import catch_up, generations, parity, positions, previous_generation, rebuild_jobs
from consumer_query.catch_up import Follower, distance, goal
from consumer_query.dead_letters import DeadLetterWriter
from consumer_query.errors import QueryError
from consumer_query.generations import table_name
from consumer_query.guards import allowed_seconds
from consumer_query.log_evidence import LogEvidence
from consumer_query.parity import Arbiter, Parity
from consumer_query.points import RebuildPoint, RebuildWatch, unwatched
from consumer_query.previous_generation import NoPreviousGenerationError, PreviousOfAnotherShapeError
from consumer_query.rebuild_jobs import Job, Kind, Phase
from consumer_query.rebuild_loader import Orders, load_partition
from consumer_query.records import RecordReader
from consumer_query.settings import MaintenanceSettings
from runtime.kafka import all_partitions, plain_consumer
from runtime.postgres import NOW, Connection, open_pool
from runtime.whole_topic import STALL_SECONDS

INDEX_SECONDS: Final = 24 * 3600.0
UNDER_LOCK_OFFSETS: Final = 2_000
"""What may be left to apply while projectors wait: a fraction of a second."""
UNDER_LOCK_SECONDS: Final = 3.0
SWAP_TRIES: Final = 20
"""Before what is in the way is told."""
# A worker that is stopped in the middle loses its locks after that long of silence.
WAIT_FOR_WRITERS: Final = "SET LOCAL lock_timeout = '2s'; SET LOCAL idle_in_transaction_session_timeout = '4s'"
# New searches queue behind the swap, so it does not wait long for old ones: it lets all pass and tries again.
WAIT_FOR_SEARCHES: Final = "SET LOCAL lock_timeout = '200ms'; SET LOCAL idle_in_transaction_session_timeout = '500ms'"

# By primary keys; a job has a row for each partition.
PLAN: Final = """
INSERT INTO rebuild_partitions (job_id, partition, first_offset, next_offset, target_offset)
SELECT $1, partition, first, first, target
FROM unnest($2::int[], $3::bigint[], $4::bigint[]) AS log (partition, first, target)
"""
UNLOADED: Final = """
SELECT partition FROM rebuild_partitions WHERE job_id = $1 AND loaded_at IS NULL
ORDER BY target_offset - next_offset DESC
"""
PLANNED: Final = "SELECT count(*) FROM rebuild_partitions WHERE job_id = $1"
ARRIVE: Final = """
INSERT INTO projector_positions (generation, topic, partition, next_offset, caught_up_at)
SELECT $2, $3, partition, target_offset, begun_at FROM rebuild_partitions WHERE job_id = $1
"""
UNPLAN: Final = "DELETE FROM rebuild_partitions WHERE job_id = $1"
# What was compacted away since then has not been seen by this generation.
OLDEST_VIEW: Final = """
SELECT clock_timestamp() - least(
    (SELECT min(begun_at) FROM rebuild_partitions WHERE job_id = $1 AND $2::integer NOT IN
        (SELECT generation FROM projector_positions)),
    (SELECT min(caught_up_at) FROM projector_positions WHERE generation = $2 AND topic = $3)
)
"""
CAUGHT_UP: Final = """
UPDATE projector_positions SET caught_up_at = greatest(caught_up_at, $3::timestamptz)
WHERE generation = $1 AND topic = $2 AND partition = ANY($4::int[])
"""
INDEXED: Final = "SELECT to_regclass($1) IS NOT NULL"
# Only where the topic holds a key in two partitions, so that each brought a row.
DROP_DOUBLES: Final = """
DELETE FROM {table} WHERE ctid IN (
    SELECT ctid FROM (
        SELECT ctid, row_number() OVER (PARTITION BY file_id ORDER BY revision DESC) AS place FROM {table}
    ) AS ranked WHERE place > 1
)
"""

_log = structlog.get_logger()


class CannotRebuildError(QueryError):
    """It will not go better next time; the job ends."""


class _TooFarError(QueryError):
    """More is left to apply than projectors should wait for."""


class Rebuilder:
    """Takes a job from one phase to the next; `rebuild_worker` says when.

    Args:
        settings: of the maintenance process
        pool: of the Query database, its connections taught; two are needed at once
        letters: where refused records go
        arbiter: asked which side is right where generations differ; None when there is nobody to ask
        watch: called at each point
    """

    def __init__(
        self,
        settings: MaintenanceSettings,
        pool: asyncpg.Pool,
        letters: DeadLetterWriter,
        arbiter: Arbiter | None,
        watch: RebuildWatch = unwatched,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._letters = letters
        self._arbiter = arbiter
        self._watch = watch
        self._topic = settings.file_events_topic
        self._evidence = LogEvidence(settings.brokers, self._topic)
        self._steps: dict[Phase, Callable[[Job, UUID], Awaitable[None]]] = {
            Phase.QUEUED: self._begin,
            Phase.LOADING: self._load,
            Phase.INDEXING: self._index,
            Phase.CATCHING_UP: self._catch_up,
            Phase.VERIFYING: self._verify,
            Phase.SWAPPING: self._swap,
        }

    async def step(self, job: Job, token: UUID) -> None:
        """Do what a job's phase asks for, and note in its row what comes next.

        Raises:
            JobLostError: another worker has it.
            CannotRebuildError: it will not go better next time.
            SystemicFaultError: too much of the topic is bad.
            Exception: whatever else passes, or may; the same step may be tried again.
        """
        await self._steps[job.phase](job, token)

    async def end(
        self, job: Job, token: UUID, phase: Phase, trouble: str | None, found: dict[str, Any] | None = None
    ) -> None:
        """End a job without a swap, and leave nothing of it behind."""
        job = await rebuild_jobs.get(self._pool, job.job_id)
        async with self._pool.acquire() as connection, connection.transaction():
            # First, so that one who has lost the job, or has ended it already, touches no table.
            await rebuild_jobs.advance(connection, job, token, phase, trouble=trouble, parity=found)
            if job.kind is Kind.REBUILD and job.generation is not None:
                await generations.drop(connection, job.generation)

    async def _begin(self, job: Job, token: UUID) -> None:
        if job.kind is Kind.ROLLBACK:
            await self._begin_rollback(job, token)
            return
        async with self._pool.acquire() as connection, connection.transaction():
            generation = await generations.make(connection)
            await rebuild_jobs.advance(connection, job, token, Phase.LOADING, generation=generation)

    async def _begin_rollback(self, job: Job, token: UUID) -> None:
        try:
            found = await previous_generation.require(self._pool)
        except (NoPreviousGenerationError, PreviousOfAnotherShapeError) as error:
            raise CannotRebuildError(str(error)) from error
        await self._advance(job, token, Phase.CATCHING_UP, generation=found.generation)

    async def _advance(
        self,
        job: Job,
        token: UUID,
        phase: Phase,
        *,
        generation: int | None = None,
        parity: dict[str, Any] | None = None,
    ) -> None:
        """Note that a job has come to a phase, in a transaction of its own; raises as `rebuild_jobs.advance` does."""
        async with self._pool.acquire() as connection:
            await rebuild_jobs.advance(connection, job, token, phase, generation=generation, parity=parity)

    async def _load(self, job: Job, token: UUID) -> None:
        """Have every partition loaded by readers."""
        if await self._is_too_old(job):
            await self._start_over(job, token)
            return
        if not await self._pool.fetchval(PLANNED, job.job_id):
            await self._plan(job)
            self._watch(RebuildPoint.PLANNED)
        partitions = [row["partition"] for row in await self._pool.fetch(UNLOADED, job.job_id)]
        generation = job.made
        limit = CapacityLimiter(self._settings.rebuild_readers)
        try:
            async with asyncio.TaskGroup() as readers:
                for one in partitions:
                    readers.create_task(self._read(Orders(job.job_id, token, generation, one), limit))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        async with self._pool.acquire() as connection, connection.transaction():
            if await connection.fetch(UNLOADED, job.job_id):
                return  # told to stop
            self._watch(RebuildPoint.LOADED)
            await connection.execute(ARRIVE, job.job_id, generation, self._topic)
            await rebuild_jobs.advance(connection, job, token, Phase.INDEXING)

    async def _read(self, orders: Orders, limit: CapacityLimiter) -> None:
        """Have a process load a partition; killed when this is cancelled, so no reader works on without its worker."""
        aside = await run_in_process(load_partition, self._settings, orders, cancellable=True, limiter=limit)
        if aside:
            _log.warning("records put aside", count=aside, partition=orders.partition)

    async def _plan(self, job: Job) -> None:
        """Note where each partition begins and where it ends now."""
        servers = self._settings.brokers
        async with asyncio.timeout(STALL_SECONDS):
            try:
                partitions = await all_partitions(servers, self._topic)
            except UnknownTopicOrPartitionError as error:
                raise CannotRebuildError(f"There is no topic {self._topic}.") from error
            async with plain_consumer(servers) as consumer:
                consumer.assign(partitions)
                begins = await consumer.beginning_offsets(partitions)
                ends = await consumer.end_offsets(partitions)
        numbers = [one.partition for one in partitions]
        firsts = [min(begins[one], ends[one]) for one in partitions]
        await self._pool.execute(PLAN, job.job_id, numbers, firsts, [ends[one] for one in partitions])

    async def _index(self, job: Job, token: UUID) -> None:
        """Make what indexes are missing, and statistics."""
        generation = job.made
        url = self._settings.query_database_url.get_secret_value()
        settings = {"maintenance_work_mem": self._settings.rebuild_index_memory}
        table = table_name(generation)
        async with (
            await open_pool(url, "query-rebuild", max_size=1, command_timeout=INDEX_SECONDS, settings=settings) as pool,
            pool.acquire() as connection,
        ):
            for name, statement in generations.INDEXES.items():
                if await connection.fetchval(INDEXED, f"{table}_{name}"):
                    continue
                try:
                    await connection.execute(statement.format(table=table))
                except asyncpg.UniqueViolationError as error:
                    status = await connection.execute(DROP_DOUBLES.format(table=table))
                    _log.warning("files in two partitions", rows=status, error=str(error))
                    await connection.execute(statement.format(table=table))
                self._watch(RebuildPoint.INDEXED)
            await connection.execute(f"ANALYZE {table}")
        await self._advance(job, token, Phase.CATCHING_UP)

    async def _catch_up(self, job: Job, token: UUID) -> None:
        """Take over the deletions that the topic has forgotten, and apply what came since."""
        generation = job.made
        if await self._is_too_old(job):
            if job.kind is Kind.REBUILD:
                await self._start_over(job, token)
                return
            if not job.force:
                raise CannotRebuildError(
                    "The previous generation was caught up longer ago than the topic keeps deletions, so deleted files "
                    "may be in it. Rebuild instead; or force it, and compare with the Admin module then."
                )
        live: int = await self._pool.fetchval(generations.LIVE)
        async with self._pool.acquire() as connection:
            await connection.execute(
                generations.DELETIONS.format(table=table_name(generation), live=table_name(live)), timeout=INDEX_SECONDS
            )
        self._watch(RebuildPoint.DELETIONS_TAKEN)
        async with self._follower(generation) as follower:
            while await self._approach(generation, follower) > UNDER_LOCK_OFFSETS:
                pass
        self._watch(RebuildPoint.CAUGHT_UP)
        await self._advance(job, token, Phase.VERIFYING)

    async def _verify(self, job: Job, token: UUID) -> None:
        """Compare with the live generation at equal positions, and decide."""
        generation = job.made
        async with self._follower(generation) as follower:
            found = await self._compare(generation, follower)
            if found.speaks_against:
                # Rows of the live one may be ahead of its position, after a rebalance or a reset of the group; and of
                # what lies before its position the topic may have kept only what lies behind.
                await follower.follow(await follower.ends())
                found = await self._compare(generation, follower)
        self._watch(RebuildPoint.COMPARED)
        report = asdict(found)
        if found.speaks_against and not job.force:
            _log.error("rebuild refused by parity", job=str(job.job_id), **report)
            await self.end(job, token, Phase.REFUSED, found.summary, report)
            return
        _log.info("parity", job=str(job.job_id), forced=bool(found.speaks_against), **report)
        await self._advance(job, token, Phase.SWAPPING, parity=report)

    async def _compare(self, generation: int, follower: Follower) -> Parity:
        async with self._pool.acquire() as looking:
            snapshot = looking.transaction(isolation="repeatable_read", readonly=True)

            async def look() -> None:
                await snapshot.start()
                await looking.execute("SELECT 1")  # BEGIN alone takes no snapshot; the first statement does

            live = await self._at_equal_positions(follower, look)
            try:
                return await parity.compare(looking, live, generation, self._arbiter)
            finally:
                await snapshot.rollback()

    async def _swap(self, job: Job, token: UUID) -> None:
        """Bring the generation to where the live one is and let everybody go to it, while writers wait a moment."""
        generation = job.made
        if await self._is_too_old(job):
            await self._advance(job, token, Phase.CATCHING_UP)
            return
        for left in reversed(range(SWAP_TRIES)):
            try:
                # Another one for each try: what a time limit has cut off leaves a follower nobody knows where.
                async with self._follower(generation) as follower:
                    await self._approach(generation, follower)
                    live = await self._try_to_swap(job, token, follower)
            except (asyncpg.LockNotAvailableError, TimeoutError, _TooFarError):
                if not left:
                    raise
                await asyncio.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - jitter; searches pass meanwhile
            else:
                self._watch(RebuildPoint.SWAPPED)
                _log.info("generation swapped", live=generation, previous=live)
                return

    async def _try_to_swap(self, job: Job, token: UUID, follower: Follower) -> int:
        """One transaction: the generation that was live until then."""
        async with self._pool.acquire() as connection, connection.transaction():
            live = await self._take_over(connection, follower)
            await connection.execute(WAIT_FOR_SEARCHES)
            await generations.swap(connection, live, job.made)
            await rebuild_jobs.advance(connection, job, token, Phase.SWAPPED)
            self._watch(RebuildPoint.SWAPPING)
        return live

    async def _take_over(self, connection: Connection, follower: Follower) -> int:
        """Within a transaction, keep writers out and bring the generation to the live one's positions: the live one.

        Raises:
            _TooFarError: too much came meanwhile.
        """
        await connection.execute(WAIT_FOR_WRITERS)
        live = await generations.take_over(connection)
        async with asyncio.timeout(UNDER_LOCK_SECONDS):
            targets = await self._goal(follower)
            if (left := distance(follower.positions, targets)) > UNDER_LOCK_OFFSETS:
                raise _TooFarError(f"{left} offsets are left to apply")
            await follower.follow(targets)
        self._watch(RebuildPoint.EQUAL)
        return live

    async def _at_equal_positions(self, follower: Follower, then: Callable[[], Awaitable[None]]) -> int:
        """Do something while both generations stand at the same positions: the live one's number."""
        await follower.follow(await self._goal(follower))
        async with self._pool.acquire() as connection, connection.transaction():
            live = await self._take_over(connection, follower)
            await then()
        return live

    async def _goal(self, follower: Follower) -> dict[int, int]:
        return goal(follower.positions, await self._live_positions(), await follower.ends())

    async def _live_positions(self) -> Mapping[int, int]:
        live: int = await self._pool.fetchval(generations.LIVE)
        return await positions.reached(self._pool, live, self._topic)

    async def _approach(self, generation: int, follower: Follower) -> int:
        """Apply what there is by now, and note which partitions have seen all of it: how many offsets it was."""
        at = await self._pool.fetchval(NOW)
        ends = await follower.ends()
        targets = goal(follower.positions, await self._live_positions(), ends)
        far = distance(follower.positions, targets)
        await follower.follow(targets)
        reached = [number for number, own in follower.positions.items() if own >= ends[number]]
        await self._pool.execute(CAUGHT_UP, generation, self._topic, at, reached)
        return far

    async def _is_too_old(self, job: Job) -> bool:
        """Whether deletions may have been compacted away before this generation has seen them.

        The broker keeps one for `delete.retention.ms` from the first compaction that it meets.
        """
        age: timedelta | None = await self._pool.fetchval(OLDEST_VIEW, job.job_id, job.generation, self._topic)
        if age is None:
            return False
        async with asyncio.timeout(STALL_SECONDS):
            facts = await self._evidence.facts()
        return age.total_seconds() > allowed_seconds(facts.retention_seconds)

    async def _start_over(self, job: Job, token: UUID) -> None:
        _log.warning("rebuild starts over: the topic may have forgotten deletions meanwhile", job=str(job.job_id))
        async with self._pool.acquire() as connection, connection.transaction():
            generation = await generations.make(connection)
            await rebuild_jobs.advance(connection, job, token, Phase.LOADING, generation=generation)
            await generations.drop(connection, job.made)
            await connection.execute(UNPLAN, job.job_id)

    def _follower(self, generation: int) -> AbstractAsyncContextManager[Follower]:
        settings = self._settings
        return catch_up.follower(
            self._pool,
            settings.brokers,
            self._topic,
            settings.kafka_consumer_group,
            generation,
            RecordReader(settings.schema_registry_url),
            self._letters,
            settings.dead_letter_max_share,
        )
