"""Where the projector process is put together."""

import socket

from consumer_query import generations
from consumer_query.projector import Projector
from consumer_query.settings import ProjectorSettings
from runtime.health import Health
from runtime.kafka import group_consumer
from runtime.postgres import open_pool
from runtime.process import run_process


async def run_projector(settings: ProjectorSettings) -> None:
    """Run the projector, topic to rows, until a signal."""
    url = settings.query_database_url.get_secret_value()
    async with await open_pool(url, "query-projector", max_size=2) as pool:
        await generations.check_shape(pool)
        health = Health()
        tasks = []
        if settings.event_subscribe_enabled:
            consumer = group_consumer(
                settings.kafka_bootstrap_servers, settings.kafka_consumer_group, f"projector-{socket.gethostname()}"
            )
            projector = Projector(
                pool,
                consumer,
                settings.file_events_topic,
                settings.cache_sync_batch_size,
                settings.schema_registry_url,
            )
            health.require("projector", projector.condition.check)
            tasks.append(projector.run)
        await run_process(
            "query-projector", health, (settings.management_host, settings.query_projector_management_port), *tasks
        )
