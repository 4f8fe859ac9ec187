"""Where the Query processes are put together. Each function is one process, from settings to exit."""

import socket
from functools import partial
from pathlib import Path

import asyncpg
from fastapi import FastAPI

from consumer_query import generations
from consumer_query.api import files_router
from consumer_query.projector import Projector
from consumer_query.settings import ProjectorSettings, QueryApiSettings, QueryDatabaseSettings
from consumer_query.tables import METADATA
from runtime.health import Health
from runtime.http import answer_with_problems
from runtime.kafka import group_consumer
from runtime.migrations import migrate
from runtime.postgres import AWAY, open_pool
from runtime.process import http_server, run_process


async def run_migrate(settings: QueryDatabaseSettings) -> None:
    """Bring the Query database to its newest shape and make the first generation of the cache."""
    url = settings.query_database_url.get_secret_value()
    await migrate(url, Path(__file__).parent / "migrations", METADATA)
    connection = await asyncpg.connect(url)
    try:
        await generations.ensure_first(connection)
    finally:
        await connection.close()


async def run_api(settings: QueryApiSettings) -> None:
    """The search API."""
    async with await open_pool(settings.query_database_url.get_secret_value(), "query-api", max_size=10) as pool:
        health = Health()
        health.require("database", partial(_answers, pool))
        await run_process(
            "query-api",
            health,
            (settings.management_host, settings.query_api_management_port),
            http_server(query_app(pool), settings.query_api_host, settings.query_api_port),
        )


async def run_projector(settings: ProjectorSettings) -> None:
    """The projector, topic to rows."""
    url = settings.query_database_url.get_secret_value()
    async with await open_pool(url, "query-projector", max_size=2) as pool:
        await generations.check_shape(pool)
        health = Health()
        tasks = []
        if settings.event_subscribe_enabled:
            consumer = group_consumer(
                settings.kafka_bootstrap_servers,
                settings.kafka_consumer_group,
                f"projector-{socket.gethostname()}",
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
            "query-projector",
            health,
            (settings.management_host, settings.query_projector_management_port),
            *tasks,
        )


def query_app(pool: asyncpg.Pool) -> FastAPI:
    """The REST application over a pool."""
    app = FastAPI(
        title="ArtStore Query",
        summary="Finds files by name, tags, description or uploader, in Russian and English.",
        version="1",
    )
    app.include_router(files_router(pool))
    answer_with_problems(app, unavailable=(*AWAY, OSError))
    return app


async def _answers(pool: asyncpg.Pool) -> None:
    await pool.fetchval("SELECT 1 FROM cache_generation")
