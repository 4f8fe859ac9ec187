"""Changes, batches, crashes, rebuilds, swaps and rollbacks in any order end in the model's rows, on whichever is live.

The log is simulated: it is compacted, and forgets deletions, even while a reader reads it. Loader, follower, lanes and
the steps of a rebuild are the real ones, over a real database.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiokafka import TopicPartition
from anyio import CapacityLimiter
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test
from pydantic import SecretStr

from consumer_query import catch_up, generations, positions, read_model, rebuild, rebuild_jobs, rebuild_loader
from consumer_query.breaker import Breaker
from consumer_query.buffers import Buffer, Record, take
from consumer_query.catch_up import BeyondLive, Follower
from consumer_query.errors import PositionMovedError
from consumer_query.lanes import Lane
from consumer_query.points import RebuildPoint, unwatched
from consumer_query.positions import start_of
from consumer_query.rebuild import PLAN, CannotRebuildError, Rebuilder
from consumer_query.rebuild_jobs import ENDS, Job, JobLostError, Kind, Phase, RebuildRunsError, Wish
from consumer_query.rebuild_loader import Orders
from consumer_query.records import BadRecordError, RecordReader
from consumer_query.settings import MaintenanceSettings
from runtime.postgres import Connection
from schemas.codec import encode
from schemas.events import FileEvent, record_headers
from tests.integration.test_projection_machine import FILES, PARTITIONS, TOPIC, CrashError, Log, Machine, World
from tests.samples import deleted, updated

AT_ONCE = 2
"""Records that one fetch brings."""
ABOUT_TWO = 800
"""Bytes: a partition of more files is read twice."""
FEW = 3
"""Offsets that are left to the time in which projectors wait."""
RESET = (
    "TRUNCATE projector_positions, rebuild_partitions, rebuild_jobs, generations, cache_generation CASCADE",
    "DROP VIEW IF EXISTS file_metadata_cache",
)
TABLES = "SELECT tablename FROM pg_tables WHERE tablename LIKE 'file\\_metadata\\_cache\\_g%'"


class Client:
    """A consumer of the simulated log, as far as a rebuild uses one."""

    def __init__(self, logs: Sequence[Log], fetched: Callable[[], None]) -> None:
        self._logs = logs
        self._fetched = fetched
        self._positions: dict[int, int] = {}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition.partition] = offset

    async def position(self, partition: TopicPartition) -> int:
        return self._positions[partition.partition]

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {one: self._logs[one.partition].end for one in partitions}

    async def getmany(self, *partitions: TopicPartition, **_: int) -> dict[TopicPartition, list[Record]]:
        await asyncio.sleep(0)
        self._fetched()
        found = {}
        for one in partitions:
            log = self._logs[one.partition]
            waiting = [record for record in log.records if record.offset >= self._positions[one.partition]]
            self._positions[one.partition] = waiting[AT_ONCE].offset if len(waiting) > AT_ONCE else log.end
            if waiting:
                found[one] = waiting[:AT_ONCE]
        return found


class Worker(Rebuilder):
    """The real one, but for where it reads."""

    machine: "RebuildMachine"

    async def _is_too_old(self, job: Job) -> bool:
        return job.generation in self.machine.blind

    async def _plan(self, job: Job) -> None:
        ends = [log.end for log in self.machine.logs]
        await self._pool.execute(PLAN, job.job_id, list(range(PARTITIONS)), [0] * PARTITIONS, ends)

    async def _read(self, orders: Orders, limit: CapacityLimiter) -> None:
        partition = TopicPartition(TOPIC, orders.partition)
        client: Any = self.machine.client()
        async with limit, self._pool.acquire() as connection:
            await rebuild_loader._Loader(
                self._settings, orders, connection, client, partition, self.machine.letters
            ).run()

    @asynccontextmanager
    async def _follower(self, generation: int) -> AsyncIterator[Follower]:
        async def into(_: Connection) -> int:
            return generation

        machine = self.machine
        lane = Lane(
            TOPIC,
            "group",
            RecordReader(None),
            BeyondLive(machine.letters, self._pool, TOPIC),
            Breaker(2.0),
            unwatched,
            generation=into,
        )
        stored = await positions.stored(self._pool, generation, TOPIC)
        buffers = {number: Buffer(TopicPartition(TOPIC, number), at, at, at) for number, at in stored.items()}
        client: Any = machine.client()
        for one in buffers.values():
            client.seek(one.partition, one.applied)
        yield Follower(self._pool, client, lane, buffers)


class RebuildMachine(Machine):
    """Two projectors, and workers that come one after another."""

    database: str

    def __init__(self) -> None:
        self.hooks: list[Callable[[], None]] = []
        """Each is called with one fetch of a rebuild, while there are any."""
        self.die_at: RebuildPoint | None = None
        self.blind: set[int] = set()
        """Generations that have not seen a deletion which the log has forgotten."""
        self.cleanable = [0] * PARTITIONS
        """Offsets up to which the log may be compacted."""
        self.job: Job | None = None
        self.token = uuid4()
        self.seen: dict[UUID, tuple[int, str | None]] = {}
        super().__init__()
        for partition in range(PARTITIONS):
            self.assign(0, partition, 0)

    # --- the log ---

    def event(self, event: FileEvent, gap: int) -> None:
        self.write(event.file_id, encode(event), gap, record_headers(event.revision, event.event_id))

    @rule(
        file_id=st.sampled_from(FILES),
        kind=st.sampled_from(["rubbish", "NUL", "time", "other key"]),
        tells=st.sampled_from([(), (("revision", b"1000000"),), (("revision", b"1"),)]),
    )
    def poisoned(self, file_id: UUID, kind: str, tells: tuple[tuple[str, bytes], ...] = ()) -> None:
        """A bad record with a revision that is greater than any, in its value or before it: it must change nothing."""
        values = {
            "rubbish": b"rubbish",
            "NUL": encode(updated(file_id, 10**6, description="\x00")),
            "time": encode(updated(file_id, 10**6, file_size=-5)),
            "other key": encode(updated(uuid4(), 10**6)),
        }
        offset = self.write(file_id, values[kind], 0, tells)
        self.poison.add((file_id.int % PARTITIONS, offset))

    def good(self, record: Record) -> bool:
        return (record.partition, record.offset) not in self.poison

    @precondition(lambda self: self.living())
    @rule(data=st.data(), tombstone=st.booleans())
    def delete(self, data: st.DataObject, *, tombstone: bool) -> None:
        """Of a file that exists."""
        file_id = data.draw(st.sampled_from(self.living()))
        self.gone.add(file_id)
        self.revisions[file_id] += 1
        self.event(deleted(file_id, self.revisions[file_id]), 0)
        if tombstone:
            self.write(file_id, None, 0, [("revision", str(self.revisions[file_id]).encode())])
        self.model[file_id] = self.revisions[file_id], None

    def living(self) -> list[UUID]:
        return [one for one in FILES if self.revisions[one] and one not in self.gone]

    @rule(partition=st.integers(0, PARTITIONS - 1))
    def compact(self, partition: int) -> None:
        """Of each key the last record stays, of those that the live generation has seen.

        The topic's card keeps the others for a while. Bad ones stay too, and hide no good one.
        """
        log = self.logs[partition]
        last = {one.key: one.offset for one in log.records if self.good(one) and one.offset < self.cleanable[partition]}
        log.records[:] = [one for one in log.records if not self.good(one) or one.offset >= last.get(one.key, 0)]

    @rule()
    def forget_deletions(self) -> None:
        """Compaction, and then tombstones that the live generation has seen are gone."""
        for partition in range(PARTITIONS):
            self.world.run(self.forget(partition))

    async def forget(self, partition: int) -> None:
        self.compact(partition)
        log = self.logs[partition]
        live = await generations.live(self.world.pool)
        rows = await self.world.pool.fetch(
            "SELECT generation, coalesce(next_offset, 0) FROM generations LEFT JOIN projector_positions AS stored "
            "USING (generation) WHERE partition IS NULL OR partition = $1",
            partition,
        )
        reached: dict[int, int] = {row[0]: row[1] for row in rows}
        forgotten = [
            one
            for one in log.records
            if self.good(one) and UUID(one.key.decode()) in self.gone and one.offset < reached.get(live, 0)
        ]
        log.records[:] = [one for one in log.records if one not in forgotten]
        for one in forgotten:
            self.blind |= {generation for generation, at in reached.items() if at <= one.offset}

    # --- projectors, which write into the live generation ---

    async def empty(self) -> None:
        async with self.world.pool.acquire() as connection:
            for statement in RESET:
                await connection.execute(statement)
            for row in await connection.fetch(TABLES):
                await connection.execute(f"DROP TABLE {row[0]}")
            await generations.ensure_first(connection)

    @precondition(lambda self: any(log.records for log in self.logs))
    @rule(data=st.data())
    def redrive(self, data: st.DataObject) -> None:
        """A record that was passed by is applied again."""
        self.world.run(self.apply_again(data.draw(st.sampled_from([one for log in self.logs for one in log.records]))))

    async def apply_again(self, old: Record) -> None:
        try:
            row = read_model.row_of(RecordReader(None).state_of(old.key, old.value, dict(old.headers)))
        except BadRecordError:
            return
        async with self.world.pool.acquire() as connection, connection.transaction():
            generation = await generations.hold_live(connection)
            stored = await positions.stored(connection, generation, TOPIC)
            if old.offset < stored.get(old.partition, 0):
                await read_model.apply(connection, generation, [row])

    @rule(projector=st.sampled_from((0, 1)), partition=st.integers(0, PARTITIONS - 1), back=st.integers(0, 5))
    def assign(self, projector: int, partition: int, back: int) -> None:
        log = self.logs[partition]
        committed = max(0, log.committed - back)

        async def seek() -> int:
            async with self.world.pool.acquire() as connection, connection.transaction():
                generation = await generations.hold_live(connection)
                stored = await positions.stored(connection, generation, TOPIC)
                start = start_of(stored.get(partition), committed, 0, log.end).position
                await positions.take(connection, generation, TOPIC, {partition: start})
            return start

        start = self.world.run(seek())
        self.views[projector][partition] = Buffer(TopicPartition(TOPIC, partition), start, start, log.end)

    async def batch(self, projector: int, most: int) -> None:
        """One batch while a rebuild's step goes on."""
        view = self.views[projector]
        for buffer in view.values():
            self.fetch(buffer)
        takes = [take(buffer, most) for buffer in view.values() if buffer.has_work]
        try:
            async with self.world.pool.acquire() as connection:
                await self.lanes[projector].apply(connection, takes)
        except PositionMovedError:
            view.clear()
        else:
            for one in takes:
                one.buffer.drop(len(one.records), one.upto)
                log = self.logs[one.buffer.partition.partition]
                log.committed = max(log.committed, one.upto)
        for buffer in view.values():
            buffer.in_hand = False

    # --- rebuilds ---

    def client(self) -> Client:
        return Client(self.logs, self.fetched)

    def fetched(self) -> None:
        if self.hooks:
            self.hooks.pop(0)()

    def came_to(self, point: RebuildPoint) -> None:
        if point is self.die_at:
            self.die_at = None
            raise CrashError

    def worker(self) -> Worker:
        made = Worker(
            MaintenanceSettings(
                query_database_url=SecretStr(self.database),
                kafka_bootstrap_servers="unused",
                file_events_topic=TOPIC,
                kafka_consumer_group="group",
                dead_letter_max_share=2.0,
            ),
            self.world.pool,
            self.letters,
            None,
            watch=self.came_to,
        )
        made.machine = self
        return made

    def ask(self, kind: Kind) -> None:
        async def request() -> Job | None:
            try:
                return await rebuild_jobs.request(self.world.pool, kind, requested_by="machine", reason="any")
            except RebuildRunsError:
                return None

        self.job = self.world.run(request()) or self.job

    @rule(
        kind=st.sampled_from(Kind),
        times=st.integers(1, 8),
        die_at=st.none() | st.sampled_from(RebuildPoint),
        meanwhile=st.lists(st.sampled_from(["nothing", "nothing", "compact", "die", "change"]), max_size=20),
        beside=st.none() | st.tuples(st.sampled_from((0, 1)), st.integers(1, 6)),
    )
    def go_on(
        self,
        kind: Kind,
        times: int,
        die_at: RebuildPoint | None,
        meanwhile: Sequence[str],
        beside: tuple[int, int] | None,
    ) -> None:
        """Workers find the job, or a new one, and do what comes next, one after another; one may die on the way."""
        if self.job is None:
            self.ask(kind)
        self.die_at = die_at
        self.hooks = [self.hook(what) for what in meanwhile]
        for _ in range(times):
            if self.job is not None:
                self.world.run(self.work(beside))
        self.die_at = None
        self.hooks = []

    def hook(self, what: str) -> Callable[[], None]:
        def die() -> None:
            raise CrashError

        def compact() -> None:
            for number in range(PARTITIONS):
                self.compact(number)

        def change() -> None:
            self.change(FILES[0], 1, "while it is read")

        def nothing() -> None:
            return

        return {"nothing": nothing, "compact": compact, "die": die, "change": change}[what]

    async def work(self, beside: tuple[int, int] | None = None) -> None:
        assert self.job is not None
        pool = self.world.pool
        await pool.execute("UPDATE rebuild_jobs SET leased_until = NULL")
        claimed = await rebuild_jobs.claim(pool)
        if claimed is None:
            return
        self.job, self.token = claimed
        live = await positions.reached(pool, await generations.live(pool), TOPIC)
        own = await self.places(self.job.generation)
        others = [self.batch(*beside)] if beside else []
        results = await asyncio.gather(self.do_next(self.job, self.token), *others, return_exceptions=True)
        for one in results:
            if isinstance(one, BaseException):
                raise one
        self.job = await rebuild_jobs.get(pool, self.job.job_id)
        if self.job.phase is Phase.INDEXING:
            await self.require_loaded_once(self.job)
        if self.job.phase is Phase.SWAPPED:
            self.blind.discard(self.job.generation or 0)
            if not beside:
                # Projectors go on where they were; where the new generation was ahead already, they seek.
                now = await self.places(self.job.generation)
                assert now == {partition: max(at, own[partition]) for partition, at in live.items()}
        if self.job.phase in ENDS:
            assert self.job.phase is not Phase.REFUSED, self.job.trouble
            self.job = None

    async def require_loaded_once(self, job: Job) -> None:
        """However often it was interrupted."""
        assert job.generation is not None
        rows = await self.world.pool.fetchrow(
            f"SELECT count(*), count(DISTINCT file_id) FROM {generations.table_name(job.generation)}"
        )
        loaded = await rebuild_jobs.loaded(self.world.pool, job.job_id)
        assert rows is not None
        assert rows[0] == rows[1] == loaded.rows

    async def do_next(self, job: Job, token: UUID) -> None:
        worker = self.worker()
        try:
            # It died, or projectors were too fast: either way another one goes on.
            with suppress(CrashError, rebuild._TooFarError):
                await worker.step(job, token)
        except CannotRebuildError as error:
            assert job.kind is Kind.ROLLBACK
            await worker.end(job, token, Phase.FAILED, str(error))

    async def places(self, generation: int | None) -> dict[int, int]:
        return {} if generation is None else dict(await positions.stored(self.world.pool, generation, TOPIC))

    @precondition(lambda self: self.job is not None)
    @rule(zombie=st.uuids())
    def one_that_has_lost_the_job_goes_on(self, zombie: UUID) -> None:
        """A worker that was frozen past its lease changes nothing any more."""
        assert self.job is not None
        job = self.job

        async def try_it() -> None:
            await self.world.pool.execute("UPDATE rebuild_jobs SET leased_until = NULL")
            await rebuild_jobs.claim(self.world.pool)
            before = await self.everything()
            with suppress(JobLostError, CannotRebuildError):
                await self.worker().step(job, zombie)
            assert await self.everything() == before

        if job.phase in (Phase.QUEUED, Phase.LOADING, Phase.VERIFYING, Phase.SWAPPING):
            self.world.run(try_it())

    async def everything(self) -> tuple[Any, ...]:
        """The jobs, how far they have loaded, and which generations there are."""
        pool = self.world.pool
        job = await pool.fetch("SELECT phase, generation, finished_at FROM rebuild_jobs ORDER BY requested_at")
        made = await pool.fetch("SELECT generation, retired_at FROM generations ORDER BY 1")
        # A plan is nobody's: who finds one goes by it, whoever made it.
        loaded = await pool.fetch(
            "SELECT job_id, partition, next_offset, loaded_at FROM rebuild_partitions "
            "WHERE next_offset > 0 OR loaded_at IS NOT NULL ORDER BY 1, 2"
        )
        return [tuple(one) for one in job], [tuple(one) for one in made], [tuple(one) for one in loaded]

    @precondition(lambda self: self.job is not None and self.job.phase is not Phase.QUEUED)
    @rule()
    def cancel(self) -> None:
        assert self.job is not None
        job = self.job

        async def end() -> None:
            pool = self.world.pool
            await rebuild_jobs.wish(pool, job.job_id, Wish.CANCEL)
            await pool.execute("UPDATE rebuild_jobs SET leased_until = NULL")
            claimed = await rebuild_jobs.claim(pool)
            assert claimed is not None
            await self.worker().end(*claimed, Phase.CANCELLED, None)
            left = {row[0] for row in await pool.fetch(TABLES)}
            kept = await pool.fetch("SELECT generation FROM generations")
            assert left == {generations.table_name(row[0]) for row in kept}
            if job.kind is Kind.REBUILD:
                assert claimed[0].generation not in {row[0] for row in kept}

        self.world.run(end())
        self.job = None

    # --- what holds always, and in the end ---

    @invariant()
    def nothing_goes_back(self) -> None:
        """A file is never at an older revision than before, and a deleted one is deleted, whatever was swapped."""
        rows = self.world.run(self.rows())
        places = self.world.run(self.places(self.world.run(generations.live(self.world.pool))))
        self.cleanable = [max(before, places.get(number, 0)) for number, before in enumerate(self.cleanable)]
        for file_id, (revision, _) in self.seen.items():
            assert rows[file_id][0] >= revision
        self.seen = rows

    async def rows(self) -> dict[UUID, tuple[int, str | None]]:
        table = generations.table_name(await generations.live(self.world.pool))
        found = await self.world.pool.fetch(
            f"SELECT file_id, revision, CASE WHEN deleted THEN NULL ELSE description END FROM {table}"
        )
        return {row[0]: (row[1], row[2]) for row in found}

    def teardown(self) -> None:
        for partition in range(PARTITIONS):
            self.assign(0, partition, 0)
        while any(buffer.applied < self.logs[number].end for number, buffer in self.views[0].items()):
            self.apply(0, 3, None)
        self.require_model()
        self.go_on(Kind.REBUILD, 20, None, (), None)
        assert self.job is None, f"it did not end: {self.job}"
        self.require_model()

    def require_model(self) -> None:
        assert self.world.run(self.rows()) == self.model
        assert self.letters.positions == self.poison


async def test_any_interleaving_of_rebuilds_and_changes_ends_in_the_models_rows(
    query_pool: asyncpg.Pool, query_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_loader, "CHUNK", 2)
    monkeypatch.setattr(rebuild_loader, "KEPT_BYTES", ABOUT_TWO)
    monkeypatch.setattr(rebuild, "UNDER_LOCK_OFFSETS", FEW)
    monkeypatch.setattr(catch_up, "BATCH", 3)

    class Here(RebuildMachine):
        world = World(asyncio.get_running_loop(), query_pool)
        database = query_database

    await asyncio.to_thread(
        run_state_machine_as_test,
        Here,
        settings=settings(
            max_examples=30, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
