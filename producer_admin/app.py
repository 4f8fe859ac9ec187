"""Where the Admin processes are put together. Each function is one process, from settings to exit."""

from functools import partial
from pathlib import Path

import sqlalchemy.exc
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin.api import files_router
from producer_admin.relay import Relay
from producer_admin.saga import Means
from producer_admin.settings import AdminApiSettings, AdminDatabaseSettings, RelaySettings
from producer_admin.storage import open_storage
from producer_admin.tables import METADATA
from runtime.health import Health
from runtime.http import answer_with_problems
from runtime.migrations import migrate
from runtime.postgres import AWAY, open_engine, open_pool
from runtime.process import http_server, run_process


async def run_migrate(settings: AdminDatabaseSettings) -> None:
    """Bring the Admin database to its newest shape."""
    url = settings.admin_database_url.get_secret_value()
    await migrate(url, Path(__file__).parent / "migrations", METADATA)


async def run_api(settings: AdminApiSettings) -> None:
    """The REST API."""
    engine = open_engine(settings.admin_database_url.get_secret_value(), "admin-api", pool_size=20)
    try:
        means = Means(engine, open_storage(settings.storage_element_url), settings.storage_element_id)
        health = Health()
        health.require("database", partial(_answers, engine))
        await run_process(
            "admin-api",
            health,
            (settings.management_host, settings.admin_api_management_port),
            http_server(admin_app(means, settings.max_upload_bytes), settings.admin_api_host, settings.admin_api_port),
        )
    finally:
        await engine.dispose()


async def run_relay(settings: RelaySettings) -> None:
    """The relay, outbox to topic."""
    pool = await open_pool(settings.admin_database_url.get_secret_value(), "admin-relay", max_size=16)
    try:
        relay = Relay(pool, settings.kafka_bootstrap_servers, settings.file_events_topic, settings.relay_batch_size)
        health = Health()
        tasks = []
        if settings.event_publish_enabled:
            health.require("database", relay.database.check)
            health.require("broker", relay.broker.check)
            tasks.append(relay.run)
        await run_process(
            "admin-relay", health, (settings.management_host, settings.admin_relay_management_port), *tasks
        )
    finally:
        await pool.close()


def admin_app(means: Means, max_upload_bytes: int) -> FastAPI:
    """The REST application over the given means."""
    app = FastAPI(
        title="ArtStore Admin",
        summary="Owns the truth: which files exist. What this answers with 2xx will be found by search.",
        version="1",
    )
    app.include_router(files_router(means, max_upload_bytes))
    answer_with_problems(
        app, unavailable=(*AWAY, sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, OSError)
    )
    return app


async def _answers(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
