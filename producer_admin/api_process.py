"""Where the Admin API process is put together."""

from functools import partial
from pathlib import Path

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin import elements, metrics
from producer_admin.actions_api import actions_router
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
from producer_admin.trace_api import trace_router
from runtime.auth import Guard, documents, open_guard, protect
from runtime.engine import AWAY, is_away, of_driver, open_engine
from runtime.errors import StartError
from runtime.front import put_front
from runtime.health import Health
from runtime.http import answer_with_problems, identify_requests
from runtime.metrics import tell_only
from runtime.process import http_server, run_process
from runtime.settings import HttpSettings
from runtime.starting import check_database, unusable
from runtime.tracing import of_requests


async def run_api(settings: AdminApiSettings) -> None:
    """Run the Admin REST API, with what keeps sagas and storage elements in order, until a signal."""
    tell_only(metrics, metrics.API)
    engine = open_engine(settings.admin_database_url.get_secret_value(), "admin-api", pool_size=20)
    try:
        means = Means(engine, Elements(engine, check_seconds=settings.storage_check_seconds))
        health = Health()
        health.require("database", partial(_answers, engine))
        guard = open_guard(settings)
        if guard is not None:
            guard.tell(health)
        app = admin_app(means, engine, _limits(settings), settings.admin_public_url, guard, settings)
        await run_process(
            "admin-api",
            health,
            (settings.management_host, settings.admin_api_management_port),
            http_server(
                app,
                settings.admin_api_host,
                settings.admin_api_port,
                max_connections=settings.http_max_connections,
                trusted_proxies=settings.trusted_proxies,
            ),
            means.elements.watch,
            partial(recover_until, means),
            partial(renew_until, means),
            partial(sweep_until, means, _keeping(settings)),
            *([] if guard is None else [guard.run]),
            needs={"database": partial(_prepare, engine, means, settings)},
        )
    finally:
        await engine.dispose()


def admin_app(
    means: Means,
    engine: AsyncEngine,
    limits: Limits,
    public_url: str | None = None,
    guard: Guard | None = None,
    http: HttpSettings | None = None,
) -> FastAPI:
    """The REST application over the given means. Without `guard` everybody is let in."""
    app = FastAPI(
        title="ArtStore Admin",
        summary="Owns the truth: which files exist. What this answers with 2xx will be found by search.",
        version="1",
        telemetry=of_requests(),
        **documents(guard),
    )
    app.include_router(files_router(means, limits))
    app.include_router(sagas_router(means))
    app.include_router(elements_router(means.elements, engine, public_url))
    app.include_router(actions_router(engine))
    app.include_router(republish_router(engine))
    app.include_router(sync_router(engine))
    app.include_router(trace_router(engine))
    put_front(app, http, streams, guarded=guard is not None)
    protect(app, guard)
    answer_with_problems(app, unavailable=AWAY, is_away=is_away)
    identify_requests(app)
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


async def _prepare(engine: AsyncEngine, means: Means, settings: AdminApiSettings) -> None:
    """Look at the database, and see that the settings' storage element is known.

    Raises:
        NotReadyError: the database is away.
        StartError: it is not ours to work with, or the element is not.
    """
    try:
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            await check_database(raw.driver_connection, Path(__file__).with_name("migrations"))  # type: ignore[arg-type]
        await elements.ensure(engine, settings.storage_element_id, settings.storage_element_url)
        await means.elements.refresh()
    except AWAY as error:
        raise unusable(of_driver(error), passes=is_away(error)) from error
    except (ValueError, AdminError) as error:
        raise StartError(f"STORAGE_ELEMENT_URL: {error}") from error


async def _answers(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
