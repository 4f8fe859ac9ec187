"""Where the Query API process is put together."""

from functools import partial

import asyncpg
from fastapi import FastAPI

from consumer_query.api import files_router
from consumer_query.settings import QueryApiSettings
from runtime.health import Health
from runtime.http import answer_with_problems
from runtime.postgres import AWAY, open_pool
from runtime.process import http_server, run_process


async def run_api(settings: QueryApiSettings) -> None:
    """Run the search API until a signal."""
    async with await open_pool(settings.query_database_url.get_secret_value(), "query-api", max_size=10) as pool:
        health = Health()
        health.require("database", partial(_answers, pool))
        await run_process(
            "query-api",
            health,
            (settings.management_host, settings.query_api_management_port),
            http_server(query_app(pool), settings.query_api_host, settings.query_api_port),
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
