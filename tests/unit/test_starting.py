"""What waiting mends is waited for and said; what it does not ends the waiting at once."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import structlog.testing
from alembic.config import Config
from alembic.script import ScriptDirectory

from runtime.errors import StartError
from runtime.health import Check, Condition, NotReadyError
from runtime.starting import versions, wait_for
from tests.waiting import eventually


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


class Need:
    """There after some tries, which fail with these reasons in turn."""

    def __init__(self, *reasons: str, error: type[Exception] = NotReadyError) -> None:
        self._reasons = list(reasons)
        self._error = error
        self.tries = 0

    async def __call__(self) -> None:
        self.tries += 1
        if self._reasons:
            raise self._error(self._reasons.pop(0))


async def hangs() -> None:
    await asyncio.Event().wait()


async def test_each_need_is_waited_for_in_turn_and_a_reason_is_told_once(logged: list[Any]) -> None:
    condition = Condition()
    first, second = Need("away", "starting", "away", "starting"), Need()
    assert await wait_for({"database": first, "broker": second}, condition, asyncio.Event())
    assert (first.tries, second.tries) == (5, 1)
    assert [(one["event"], one.get("error")) for one in logged] == [
        ("waiting for the database", "away"),
        ("waiting for the database", "starting"),
        ("the database is there", None),
    ]
    await condition.check()


async def test_what_is_there_at_once_needs_no_words(logged: list[Any]) -> None:
    assert await wait_for({"database": Need()}, Condition(), asyncio.Event())
    assert logged == []


@pytest.mark.parametrize("need", [hangs, Need(*["away"] * 1000)])
async def test_a_stop_ends_the_waiting_also_in_the_middle_of_a_try(need: Check) -> None:
    stopping, condition = asyncio.Event(), Condition()
    waiting = asyncio.create_task(wait_for({"database": need}, condition, stopping))
    await asyncio.sleep(0)
    stopping.set()
    async with asyncio.timeout(1):
        assert await waiting is False


async def test_a_need_that_does_not_answer_is_one_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.starting.TRY_SECONDS", 0.01)
    stopping, condition = asyncio.Event(), Condition()
    waiting = asyncio.create_task(wait_for({"database": hangs}, condition, stopping))
    said = await eventually(reason_of(condition, "no answer"))
    assert said == "waiting for the database: no answer within 0.01 s"
    stopping.set()
    await waiting


async def test_what_waiting_does_not_mend_comes_out_at_once() -> None:
    need = Need("another locale", error=StartError)
    with pytest.raises(StartError, match="another locale"):
        await wait_for({"database": need}, Condition(), asyncio.Event())
    assert need.tries == 1


def reason_of(condition: Condition, part: str) -> Callable[[], Any]:
    async def look() -> str:
        try:
            await condition.check()
        except NotReadyError as error:
            return str(error) if part in str(error) else ""
        return ""

    return look


@pytest.mark.parametrize("module", ["producer_admin", "consumer_query"])
def test_the_newest_version_of_a_database_is_what_alembic_takes_it_to(module: str) -> None:
    folder = Path(module) / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder))
    scripts = ScriptDirectory.from_config(config)
    assert versions(folder) == [one.revision for one in reversed(list(scripts.walk_revisions()))]
