"""Where the Query API process is put together."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import asyncpg
from fastapi import FastAPI

from consumer_query import metrics
from consumer_query.admin_client import open_admin_client
from consumer_query.api import files_router
from consumer_query.dead_letter_log import DeadLetterLog
from consumer_query.dead_letters_api import Desk, dead_letters_router
from consumer_query.lag_api import lag_router
from consumer_query.lag_watch import LagWatch
from consumer_query.rebuild_api import rebuild_router
from consumer_query.records import RecordReader
from consumer_query.redrive import Redrive
from consumer_query.resolutions import Resolutions
from consumer_query.search_api import SearchDesk, search_router
from consumer_query.settings import QueryApiSettings
from consumer_query.sync_api import sync_router
from consumer_query.trace_api import trace_router
from consumer_query.trace_facts import Tracer
from runtime.auth import Guard, documents, open_guard, protect
from runtime.front import put_front
from runtime.health import Health
from runtime.http import answer_with_problems, identify_requests
from runtime.metrics import tell_only
from runtime.postgres import AWAY, make_pool
from runtime.process import collect_seldom, http_server, run_process
from runtime.settings import HttpSettings
from runtime.starting import require_database
from runtime.tracing import of_requests
from schemas.topics import DEAD_LETTERS, FILE_EVENTS, RESOLUTIONS, topic_name

SHARED_SECONDS: Final = 30.0
"""For searches over a pool that is not theirs alone: what it allows any statement."""


async def run_api(settings: QueryApiSettings) -> None:
    """Run the search API until a signal."""
    tell_only(metrics, metrics.API)
    collect_seldom()
    url = settings.query_database_url.get_secret_value()
    watch = lag_watch(settings)
    async with (
        make_pool(url, "query-api", max_size=10) as pool,
        search_pool(
            (settings.query_search_database_url or settings.query_database_url).get_secret_value(),
            settings.search_timeout_seconds,
        ) as searching,
        dead_letters_desk(pool, settings) as desk,
        tracer(pool, settings, desk, watch) as trace,
    ):
        search = SearchDesk(
            pool,
            searching,
            settings.search_timeout_seconds,
            (settings.admin_public_url or settings.admin_api_url or "").rstrip("/"),
        )
        health = Health()
        health.require("database", partial(_answers, pool))
        health.require("searches", partial(_finds, searching))
        guard = open_guard(settings)
        if guard is not None:
            guard.tell(health)
        await run_process(
            "query-api",
            health,
            (settings.management_host, settings.query_api_management_port),
            http_server(
                query_app(pool, desk, search, watch, trace, guard, settings),
                settings.query_api_host,
                settings.query_api_port,
                max_connections=settings.http_max_connections,
                trusted_proxies=settings.trusted_proxies,
            ),
            *([] if watch is None else [watch.run]),
            *([] if guard is None else [guard.run]),
            needs={
                "database": partial(require_database, pool, Path(__file__).with_name("migrations")),
                "database of searches": partial(require_database, searching, Path(__file__).with_name("migrations")),
            },
        )


def search_pool(url: str, seconds: float) -> asyncpg.Pool:
    """Connections for searches alone: they change nothing, and no statement takes longer than that.

    Ten at once: more only take the processors from each other.
    """
    return make_pool(
        url,
        "query-search",
        max_size=10,
        settings={
            "default_transaction_read_only": "on",
            "statement_timeout": f"{max(1, round(seconds * 1000))}ms",
            # Compiling a statement takes longer than any of these may.
            "jit": "off",
            # Its estimates know little of words; whatever they are, reading all of the table is never the way.
            "enable_seqscan": "off",
        },
        reset=_as_it_was,
    )


async def _as_it_was(_: object) -> None:
    """Searches change nothing of their session but within a transaction, and one that is left open the driver ends."""


def lag_watch(settings: QueryApiSettings) -> LagWatch | None:
    """What looks after the projectors' lag; None where the settings do not say where Kafka is."""
    servers = settings.brokers
    return None if servers is None else LagWatch(servers, settings.file_events_topic, settings.kafka_consumer_group)


@asynccontextmanager
async def dead_letters_desk(pool: asyncpg.Pool, settings: QueryApiSettings) -> AsyncIterator[Desk | None]:
    """What the routes for dead letters work with; None where the settings do not say where Kafka is."""
    servers, events = settings.brokers, settings.file_events_topic
    if servers is None:
        yield None
        return
    async with AsyncExitStack() as opened:
        resolutions = Resolutions(servers, topic_name(RESOLUTIONS, events))
        opened.push_async_callback(resolutions.close)
        admin = open_admin_client(settings.admin_api_url, settings)
        if admin is not None:
            opened.push_async_callback(admin.close)
        log = DeadLetterLog(servers, topic_name(DEAD_LETTERS, events), resolutions)
        yield Desk(log, Redrive(pool, log, RecordReader(settings.schema_registry_url), admin))


@asynccontextmanager
async def tracer(
    pool: asyncpg.Pool, settings: QueryApiSettings, desk: Desk | None, watch: LagWatch | None
) -> AsyncIterator[Tracer]:
    """What finds out how far a change of a file has come, as far as the settings say where to ask."""
    admin = open_admin_client(settings.admin_api_url, settings)
    letters = None if desk is None else desk.log
    made = Tracer(pool, settings.file_events_topic, settings.brokers, admin, letters, watch)
    try:
        yield made
    finally:
        await made.close()
        if admin is not None:
            await admin.close()


def query_app(
    pool: asyncpg.Pool,
    desk: Desk | None = None,
    search: SearchDesk | None = None,
    watch: LagWatch | None = None,
    trace: Tracer | None = None,
    guard: Guard | None = None,
    http: HttpSettings | None = None,
) -> FastAPI:
    """The REST application over a pool, and over the dead letters and the lag where someone knows of them.

    Searches share the pool unless `search` has another for them. A trace without `trace` is told from the pool alone.
    Without `guard` everybody is let in.
    """
    app = FastAPI(
        title="ArtStore Query",
        summary="Finds files by name, tags, description or uploader, in Russian and English.",
        version="1",
        telemetry=of_requests(),
        **documents(guard),
    )
    # First: its paths would be taken for ids of files.
    app.include_router(search_router(search or SearchDesk(pool, pool, SHARED_SECONDS, "")))
    app.include_router(files_router(pool))
    app.include_router(dead_letters_router(desk))
    app.include_router(rebuild_router(pool))
    app.include_router(sync_router(pool))
    app.include_router(lag_router(watch))
    app.include_router(trace_router(trace or Tracer(pool, FILE_EVENTS)))
    put_front(app, http, guarded=guard is not None)
    protect(app, guard)
    answer_with_problems(app, unavailable=(*AWAY, OSError))
    identify_requests(app)
    return app


async def _answers(pool: asyncpg.Pool) -> None:
    await pool.fetchval("SELECT 1 FROM cache_generation")


async def _finds(pool: asyncpg.Pool) -> None:
    await pool.fetchval("SELECT 1 FROM file_metadata_cache LIMIT 1")
