"""Where the Admin API process is put together."""

from functools import partial

import sqlalchemy.exc
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin.api import files_router
from producer_admin.saga import Means
from producer_admin.settings import AdminApiSettings
from producer_admin.storage import open_storage
from runtime.engine import open_engine
from runtime.health import Health
from runtime.http import answer_with_problems
from runtime.postgres import AWAY
from runtime.process import http_server, run_process


async def run_api(settings: AdminApiSettings) -> None:
    """Run the Admin REST API until a signal."""
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
