"""Where the projector process is put together."""

import socket
from functools import partial
from typing import Final

import asyncpg

from consumer_query import generations, read_model
from consumer_query.dead_letters import TopicDeadLetters
from consumer_query.points import Watch, unwatched
from consumer_query.projector import Limits, Projector
from consumer_query.records import RecordReader
from consumer_query.settings import ProjectorSettings
from runtime.health import Health
from runtime.kafka import group_consumer
from runtime.postgres import open_pool
from runtime.process import collect_seldom, run_process
from schemas.topics import DEAD_LETTERS, topic_name

TRANSACTION_SECONDS: Final = 10
"""A batch takes a tenth of a second. Longer than a put to the dead letters may take."""


async def run_projector(settings: ProjectorSettings, watch: Watch = unwatched) -> None:
    """Run the projector, topic to rows, until a signal.

    Args:
        settings: see there
        watch: called at each point; tests end the process there
    """
    url = settings.query_database_url.get_secret_value()
    # A projector that is frozen in a transaction would hold its successor up by the locks of its rows.
    bounded = {"transaction_timeout": f"{TRANSACTION_SECONDS}s"}
    # A connection for each lane and the express lane, one to seek with, one for the pending list, one for health.
    async with await open_pool(
        url, "query-projector", max_size=settings.cache_sync_lanes + 4, settings=bounded, init=read_model.teach
    ) as pool:
        await generations.live(pool)
        health = Health()
        tasks = []
        if settings.event_subscribe_enabled:
            projector = open_projector(settings, pool, watch)
            health.require("broker", projector.broker.check)
            health.require("database", projector.database.check)
            health.require("partitions", projector.partitions)
            tasks.append(projector.run)
            collect_seldom()
        health.require("postgres", partial(_answers, pool))
        await run_process(
            "query-projector", health, (settings.management_host, settings.query_projector_management_port), *tasks
        )


def open_projector(settings: ProjectorSettings, pool: asyncpg.Pool, watch: Watch) -> Projector:
    """A projector that is ready to run."""
    open_consumer = partial(
        group_consumer,
        settings.kafka_bootstrap_servers,
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
        TopicDeadLetters(settings.kafka_bootstrap_servers, topic_name(DEAD_LETTERS, settings.file_events_topic)),
        RecordReader(settings.schema_registry_url),
        Limits(settings.cache_sync_batch_size, settings.cache_sync_lanes, settings.dead_letter_max_share),
        watch,
    )


async def _answers(pool: asyncpg.Pool) -> None:
    await pool.fetchval("SELECT 1")
