"""Where the Query API process is put together."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import asyncpg
from fastapi import FastAPI

from consumer_query import read_model
from consumer_query.admin_client import AdminClient
from consumer_query.api import files_router
from consumer_query.dead_letter_log import DeadLetterLog
from consumer_query.dead_letters_api import Desk, dead_letters_router
from consumer_query.rebuild_api import rebuild_router
from consumer_query.records import RecordReader
from consumer_query.redrive import Redrive
from consumer_query.resolutions import Resolutions
from consumer_query.search_api import SearchDesk, search_router
from consumer_query.settings import QueryApiSettings
from consumer_query.sync_api import sync_router
from runtime.health import Health
from runtime.http import BoundedBodies, answer_with_problems
from runtime.postgres import AWAY, open_pool
from runtime.process import http_server, run_process
from schemas.topics import DEAD_LETTERS, RESOLUTIONS, topic_name

SHARED_SECONDS: Final = 30.0
"""For searches over a pool that is not theirs alone: what it allows any statement."""


async def run_api(settings: QueryApiSettings) -> None:
    """Run the search API until a signal."""
    url = settings.query_database_url.get_secret_value()
    async with (
        await open_pool(url, "query-api", max_size=10, init=read_model.teach) as pool,
        await search_pool(url, settings.search_timeout_seconds) as searching,
        dead_letters_desk(pool, settings) as desk,
    ):
        search = SearchDesk(
            pool,
            searching,
            settings.search_timeout_seconds,
            (settings.admin_public_url or settings.admin_api_url or "").rstrip("/"),
        )
        health = Health()
        health.require("database", partial(_answers, pool))
        await run_process(
            "query-api",
            health,
            (settings.management_host, settings.query_api_management_port),
            http_server(query_app(pool, desk, search), settings.query_api_host, settings.query_api_port),
        )


async def search_pool(url: str, seconds: float) -> asyncpg.Pool:
    """Connections for searches alone: they change nothing, and no statement takes longer than that.

    Ten at once: more only take the processors from each other.
    """
    return await open_pool(
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
    )


@asynccontextmanager
async def dead_letters_desk(pool: asyncpg.Pool, settings: QueryApiSettings) -> AsyncIterator[Desk | None]:
    """What the routes for dead letters work with; None where the settings do not say where Kafka is."""
    servers, events = settings.kafka_bootstrap_servers, settings.file_events_topic
    if servers is None:
        yield None
        return
    async with AsyncExitStack() as opened:
        resolutions = Resolutions(servers, topic_name(RESOLUTIONS, events))
        opened.push_async_callback(resolutions.close)
        admin = AdminClient(settings.admin_api_url) if settings.admin_api_url else None
        if admin is not None:
            opened.push_async_callback(admin.close)
        log = DeadLetterLog(servers, topic_name(DEAD_LETTERS, events), resolutions)
        yield Desk(log, Redrive(pool, log, RecordReader(settings.schema_registry_url), admin))


def query_app(pool: asyncpg.Pool, desk: Desk | None = None, search: SearchDesk | None = None) -> FastAPI:
    """The REST application over a pool, and over the dead letters where there is a desk for them.

    Searches share the pool unless `search` has another for them.
    """
    app = FastAPI(
        title="ArtStore Query",
        summary="Finds files by name, tags, description or uploader, in Russian and English.",
        version="1",
    )
    # First: its paths would be taken for ids of files.
    app.include_router(search_router(search or SearchDesk(pool, pool, SHARED_SECONDS, "")))
    app.include_router(files_router(pool))
    app.include_router(dead_letters_router(desk))
    app.include_router(rebuild_router(pool))
    app.include_router(sync_router(pool))
    app.add_middleware(BoundedBodies)
    answer_with_problems(app, unavailable=(*AWAY, OSError))
    return app


async def _answers(pool: asyncpg.Pool) -> None:
    await pool.fetchval("SELECT 1 FROM cache_generation")
