"""One broker and one Postgres a module for the tests of the Query side's processes, and a scene a test."""

from collections.abc import AsyncIterator

import pytest

from tests.e2e.query_side import QuerySide, Scene, prepare, query_side


@pytest.fixture(scope="module")
async def query_servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[QuerySide]:
    with query_side(tmp_path_factory.mktemp("query-side")) as side:
        await prepare(side)
        yield side


@pytest.fixture
async def scene(query_servers: QuerySide) -> AsyncIterator[Scene]:
    async with query_servers.scene() as made:
        yield made
