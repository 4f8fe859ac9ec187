"""Where the maintenance process is put together: it rebuilds the cache, and compares it with the Admin module."""

from functools import partial

import asyncpg

from consumer_query import read_model
from consumer_query.dead_letters import TopicDeadLetters
from consumer_query.rebuild import Rebuilder
from consumer_query.settings import MaintenanceSettings
from runtime.health import Health
from runtime.postgres import open_pool
from runtime.process import run_process
from schemas.topics import DEAD_LETTERS, topic_name


async def run_maintenance(settings: MaintenanceSettings) -> None:
    """Take up rebuilds that are asked for, until a signal."""
    url = settings.query_database_url.get_secret_value()
    letters = TopicDeadLetters(settings.kafka_bootstrap_servers, topic_name(DEAD_LETTERS, settings.file_events_topic))
    # A follower, the transaction of a swap or a snapshot, the lease, positions, health.
    async with await open_pool(url, "query-maintenance", max_size=6, init=read_model.teach) as pool:
        health = Health()
        health.require("postgres", partial(_answers, pool))
        try:
            await run_process(
                "query-maintenance",
                health,
                (settings.management_host, settings.query_maintenance_management_port),
                Rebuilder(settings, pool, letters, None).run,
            )
        finally:
            await letters.close()


async def _answers(pool: asyncpg.Pool) -> None:
    await pool.fetchval("SELECT 1")
