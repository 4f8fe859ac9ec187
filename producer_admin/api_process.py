"""Where the Admin API process is put together."""

from functools import partial

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin import elements
from producer_admin.api import files_router, streams
from producer_admin.api_models import Limits
from producer_admin.elements import Elements
from producer_admin.elements_api import elements_router
from producer_admin.errors import AdminError
from producer_admin.republish_api import republish_router
from producer_admin.saga_recovery import recover_until, renew_until
from producer_admin.saga_steps import Means
from producer_admin.sagas_api import sagas_router
from producer_admin.settings import AdminApiSettings
from producer_admin.sweeper import Keeping, sweep_until
from producer_admin.sync_api import sync_router
from runtime.engine import AWAY, is_away, open_engine
from runtime.errors import StartError
from runtime.health import Health
from runtime.http import BoundedBodies, answer_with_problems
from runtime.process import http_server, run_process


async def run_api(settings: AdminApiSettings) -> None:
    """Run the Admin REST API, with what keeps sagas and storage elements in order, until a signal."""
    engine = open_engine(settings.admin_database_url.get_secret_value(), "admin-api", pool_size=20)
    try:
        try:
            await elements.ensure(engine, settings.storage_element_id, settings.storage_element_url)
        except (ValueError, AdminError) as error:
            raise StartError(f"STORAGE_ELEMENT_URL: {error}") from error
        means = Means(engine, Elements(engine, check_seconds=settings.storage_check_seconds))
        await means.elements.refresh()
        health = Health()
        health.require("database", partial(_answers, engine))
        app = admin_app(means, engine, _limits(settings), settings.admin_public_url)
        await run_process(
            "admin-api",
            health,
            (settings.management_host, settings.admin_api_management_port),
            http_server(app, settings.admin_api_host, settings.admin_api_port),
            means.elements.watch,
            partial(recover_until, means),
            partial(renew_until, means),
            partial(sweep_until, means, _keeping(settings)),
        )
    finally:
        await engine.dispose()


def admin_app(means: Means, engine: AsyncEngine, limits: Limits, public_url: str | None = None) -> FastAPI:
    """The REST application over the given means."""
    app = FastAPI(
        title="ArtStore Admin",
        summary="Owns the truth: which files exist. What this answers with 2xx will be found by search.",
        version="1",
    )
    app.include_router(files_router(means, limits))
    app.include_router(sagas_router(means))
    app.include_router(elements_router(means.elements, engine, public_url))
    app.include_router(republish_router(engine))
    app.include_router(sync_router(engine))
    app.add_middleware(BoundedBodies, streamed=streams)
    answer_with_problems(app, unavailable=AWAY, is_away=is_away)
    return app


def _limits(settings: AdminApiSettings) -> Limits:
    return Limits(
        upload_bytes=settings.max_upload_bytes,
        name=settings.max_name_characters,
        description=settings.max_description_characters,
        tags=settings.max_tags,
        tag=settings.max_tag_characters,
    )


def _keeping(settings: AdminApiSettings) -> Keeping:
    return Keeping(settings.retention_sweep_seconds, settings.idempotency_keep_hours, settings.saga_keep_days)


async def _answers(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
