"""Where the maintenance process is put together: rebuilds, comparisons with the Admin module, counts of lexemes."""

from datetime import timedelta
from functools import partial
from pathlib import Path

import asyncpg

from consumer_query import metrics
from consumer_query.admin_client import AdminClient, open_admin_client
from consumer_query.arbiter import AdminArbiter
from consumer_query.dead_letters import TopicDeadLetters
from consumer_query.metrics import note_rebuild
from consumer_query.points import RebuildWatch, unwatched
from consumer_query.rebuild import Rebuilder
from consumer_query.rebuild_worker import RebuildWorker
from consumer_query.settings import MaintenanceSettings
from consumer_query.sync_worker import SyncWorker
from consumer_query.topic_side import TopicReader
from consumer_query.vocabulary_worker import VocabularyWorker
from runtime.health import Health
from runtime.metrics import tell_only
from runtime.postgres import make_pool
from runtime.process import run_process
from runtime.starting import require_database
from schemas.topics import DEAD_LETTERS, topic_name


async def run_maintenance(settings: MaintenanceSettings, watch: RebuildWatch = unwatched) -> None:
    """Take up rebuilds that are asked for, until a signal.

    Args:
        settings: of this process
        watch: called at each point of a rebuild
    """
    tell_only(metrics, metrics.MAINTENANCE)
    url = settings.query_database_url.get_secret_value()
    letters = TopicDeadLetters(settings.brokers, topic_name(DEAD_LETTERS, settings.file_events_topic))
    # A follower, the transaction of a swap or a snapshot, the lease, positions, health; three for a comparison;
    # one to count lexemes.
    async with make_pool(url, "query-maintenance", max_size=10) as pool:
        admin = open_admin_client(settings.admin_api_url, settings)
        arbiter = AdminArbiter(admin, pool) if admin is not None else None
        keep = timedelta(hours=settings.rebuild_keep_hours)
        health = Health()
        health.require("postgres", partial(_answers, pool))
        try:
            await run_process(
                "query-maintenance",
                health,
                (settings.management_host, settings.query_maintenance_management_port),
                RebuildWorker(Rebuilder(settings, pool, letters, arbiter, watch), pool, keep, note_rebuild).run,
                _sync_worker(settings, pool, admin).run,
                VocabularyWorker(pool, _interval(settings.lexemes_interval_seconds)).run,
                needs={"database": partial(require_database, pool, Path(__file__).with_name("migrations"))},
            )
        finally:
            await letters.close()
            if admin is not None:
                await admin.close()


def _sync_worker(settings: MaintenanceSettings, pool: asyncpg.Pool, admin: AdminClient | None) -> SyncWorker:
    reader = TopicReader(settings.brokers, settings.file_events_topic, settings.schema_registry_url)
    return SyncWorker(pool, admin, reader, _interval(settings.sync_interval_seconds))


def _interval(seconds: int) -> timedelta | None:
    return timedelta(seconds=seconds) if seconds else None


async def _answers(pool: asyncpg.Pool) -> None:
    await pool.fetchval("SELECT 1")
