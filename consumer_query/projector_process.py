"""Where the projector process is put together."""

import socket
from functools import partial
from pathlib import Path
from typing import Final

import asyncpg

from consumer_query import durable, metrics, pending_list
from consumer_query.batch_spans import spans_of_applying
from consumer_query.cache_guard import CacheGuard, Cure
from consumer_query.dead_letters import TopicDeadLetters
from consumer_query.log_evidence import LogEvidence
from consumer_query.points import Watch, unwatched
from consumer_query.projector import Limits, Projector
from consumer_query.records import RecordReader
from consumer_query.settings import ProjectorSettings
from runtime.health import Health
from runtime.kafka import group_consumer
from runtime.metrics import tell_only
from runtime.postgres import make_pool
from runtime.process import collect_seldom, run_process
from runtime.starting import require_database
from schemas.topics import DEAD_LETTERS, topic_name

TRANSACTION_SECONDS: Final = 10
"""A batch takes a tenth of a second. Longer than a put to the dead letters may take."""


async def run_projector(settings: ProjectorSettings, watch: Watch = unwatched) -> None:
    """Run the projector, topic to rows, until a signal.

    Args:
        settings: see there
        watch: called at each point; tests end the process there
    """
    tell_only(metrics, metrics.PROJECTOR)
    url = settings.query_database_url.get_secret_value()
    # A projector that is frozen in a transaction would hold its successor up by the locks of its rows.
    session = {"transaction_timeout": f"{TRANSACTION_SECONDS}s", **durable.UNHURRIED, **pending_list.LONG}
    # A connection for each lane and the express lane; to seek, for pending list, offsets, guard, freshness, health.
    async with make_pool(url, "query-projector", max_size=settings.cache_sync_lanes + 7, settings=session) as pool:
        health = Health()
        tasks = []
        if settings.event_subscribe_enabled:
            guard = open_guard(settings, pool)
            projector = open_projector(settings, pool, guard, watch)
            health.require("broker", projector.broker.check)
            health.require("database", projector.database.check)
            health.require("partitions", projector.partitions)
            metrics.OwnLag(projector.behind)
            health.mention("cache", guard.check)
            tasks.append(projector.run)
            collect_seldom()
        health.require("postgres", partial(_answers, pool))
        await run_process(
            "query-projector",
            health,
            (settings.management_host, settings.query_projector_management_port),
            *tasks,
            needs={"database": partial(require_database, pool, Path(__file__).with_name("migrations"))},
        )


def open_guard(settings: ProjectorSettings, pool: asyncpg.Pool) -> CacheGuard:
    """A guard over the cache, which the projector runs."""
    topic = settings.file_events_topic
    return CacheGuard(pool, LogEvidence(settings.brokers, topic), topic, Cure(settings.cache_guard))


def open_projector(settings: ProjectorSettings, pool: asyncpg.Pool, guard: CacheGuard, watch: Watch) -> Projector:
    """A projector that is ready to run."""
    open_consumer = partial(
        group_consumer,
        settings.brokers,
        settings.kafka_consumer_group,
        f"projector-{socket.gethostname()}",
        session_timeout_ms=settings.kafka_session_timeout_ms,
        instance_id=settings.kafka_group_instance_id,
    )
    return Projector(
        pool,
        open_consumer,
        settings.file_events_topic,
        settings.kafka_consumer_group,
        TopicDeadLetters(settings.brokers, topic_name(DEAD_LETTERS, settings.file_events_topic)),
        RecordReader(settings.schema_registry_url),
        Limits(settings.cache_sync_batch_size, settings.cache_sync_lanes, settings.dead_letter_max_share),
        guard,
        watch,
        spans_of_applying(settings.file_events_topic),
    )


async def _answers(pool: asyncpg.Pool) -> None:
    await pool.fetchval("SELECT 1")
