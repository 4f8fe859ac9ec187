"""What proves that rows are fresh, and what callers may ask of it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer_query.errors import BadSearchError
from consumer_query.freshness import StaleIndexError, Token, parse_max_lag, parse_wait, require_fresh
from consumer_query.freshness_beat import LogEnd, Progress

FILE_ID = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")


@dataclass
class World:
    """A log, a client that asks for it, a process that can be frozen, and rows that follow."""

    now: float = 0.0
    end: int = 0
    ends: tuple[tuple[float, int], ...] = ((0.0, 0),)
    """Since when the log has ended there."""
    on_its_way: int | None = None
    """What the broker has answered; the client asks again when it has taken that in."""
    answers: int = 0
    told: int | None = None
    applied: int = 0

    def append(self) -> None:
        self.end += 1
        self.ends += ((self.now, self.end),)

    def answer(self) -> None:
        if self.on_its_way is None:
            self.on_its_way = self.end

    def take_in(self) -> None:
        if self.on_its_way is not None:
            self.told, self.on_its_way = self.on_its_way, None
            self.answers += 1

    def apply(self) -> None:
        self.applied = self.told or 0

    def look(self, progress: Progress) -> None:
        progress.look(self.now, self.answers or None, self.told, self.applied)

    def held_at(self, moment: float) -> int:
        return max(end for since, end in self.ends if since <= moment)


STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "answer", "take_in", "apply", "look"]), st.sampled_from([0.0, 0.1, 5.0])),
    max_size=60,
)


@given(STEPS)
@example([(step, 1.0) for step in ["answer", "take_in", "look", "append", "answer", "append", "take_in", "apply"] * 3])
def test_whatever_comes_late_rows_are_never_said_to_hold_what_they_do_not(steps: list[tuple[str, float]]) -> None:
    world, progress = World(), Progress()
    for step, seconds in steps:
        world.now += seconds
        if step == "look":
            world.look(progress)
        else:
            getattr(world, step)()
        if progress.reached is not None:
            assert world.held_at(progress.reached.at) <= progress.reached.offset <= world.applied


def test_an_answer_that_waited_in_a_frozen_process_does_not_prove_anything_of_its_wake() -> None:
    world, progress = World(), Progress()
    for _ in range(3):
        cycle(world, progress)
    world.now += 0.2
    world.answer()
    world.now += 0.01
    world.append()
    world.now += 60
    world.take_in()
    for _ in range(2):
        world.look(progress)
        world.now += 0.001
    assert progress.reached is not None
    assert world.now - progress.reached.at > 60


def cycle(world: World, progress: Progress, *, apply: bool = True) -> None:
    """A fifth of a second in which the client hears of the end."""
    for step in (world.answer, world.take_in, *((world.apply,) if apply else ())):
        world.now += 0.05
        step()
    world.now += 0.05
    world.look(progress)


def test_at_rest_the_moment_follows_the_clock() -> None:
    world, progress = World(), Progress()
    for _ in range(3):
        cycle(world, progress)
    for _ in range(50):
        cycle(world, progress)
        assert progress.reached is not None
        assert world.now - progress.reached.at < 0.61


def test_it_follows_though_there_is_always_something_new() -> None:
    """Each time one looks, the client has just heard of an end that the rows have not reached."""
    progress = Progress()
    for number in range(4, 100):
        now = number / 5
        progress.look(now, number, 10 * number, 10 * (number - 3))
        if number > 16:
            assert progress.reached is not None
            assert now - progress.reached.at < 2.5


@pytest.mark.parametrize("broken", ["answers", "rows"])
def test_the_moment_stands_while_nothing_is_answered_or_applied(broken: str) -> None:
    world, progress = World(), Progress()
    for _ in range(5):
        cycle(world, progress)
    world.append()
    for _ in range(3):
        cycle(world, progress, apply=broken != "rows")
    stood = progress.reached
    for _ in range(50):
        world.now += 0.2
        if broken == "rows":
            cycle(world, progress, apply=False)
        world.look(progress)
    assert progress.reached == stood
    for _ in range(4):
        cycle(world, progress)
    assert progress.reached is not None
    assert world.now - progress.reached.at < 1


def test_an_end_before_what_was_applied_is_of_another_log_and_proves_nothing() -> None:
    progress = Progress()
    for number in range(5):
        progress.look(float(number), number + 1, 3, 7)
    assert progress.reached is None
    progress.look(5.0, 6, 7, 7)
    assert progress.reached == LogEnd(7, 3.0)


def test_a_token_is_a_file_and_a_revision() -> None:
    assert Token.parse(f"{FILE_ID}@12") == Token(FILE_ID, 12)
    assert Token.parse(f"{str(FILE_ID).upper()}@9223372036854775807") == Token(FILE_ID, 2**63 - 1)


@given(st.uuids(), st.integers(1, 2**63 - 1))
def test_every_token_is_read_as_it_was_written(file_id: UUID, revision: int) -> None:
    assert Token.parse(f"{file_id}@{revision}") == Token(file_id, revision)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        f"{FILE_ID}",
        f"{FILE_ID}@",
        f"{FILE_ID}@0",
        f"{FILE_ID}@-1",
        f"{FILE_ID}@1.0",
        f"{FILE_ID}@1_0",
        f"{FILE_ID}@١",
        f"{FILE_ID}@9223372036854775808",
        f"{FILE_ID}@1\n",
        f" {FILE_ID}@1",
        f"{FILE_ID.hex}@1",
        f"{FILE_ID}@1@1",
        "ſ" + str(FILE_ID)[1:] + "@1",
    ],
)
def test_what_is_no_token_is_refused_by_its_name(text: str) -> None:
    refused_by("at_least", Token.parse, text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2s", 2), ("500ms", 0.5), ("0s", 0), ("0.25s", 0.25), ("30s", 30), ("30000ms", 30)],
)
def test_times_are_seconds_or_milliseconds(text: str, seconds: float) -> None:
    assert parse_wait(text) == seconds
    assert parse_max_lag(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "s", "2 s", "-1s", "2m", "1e3s", "infs", "nans", "٣s", "2s\n", "2S", ".5s"])
def test_what_is_no_time_is_refused_by_its_name(text: str) -> None:
    refused_by("wait", parse_wait, text)
    refused_by("max_lag", parse_max_lag, text)


def test_nobody_waits_longer_than_half_a_minute_and_a_lag_is_a_day_at_most() -> None:
    refused_by("wait", parse_wait, "30.1s")
    refused_by("wait", parse_wait, "999999999s")
    assert parse_max_lag("86400s") == 86_400
    refused_by("max_lag", parse_max_lag, "86401s")


@given(st.text())
def test_any_text_is_understood_or_refused(text: str) -> None:
    for parse in (Token.parse, parse_wait, parse_max_lag):
        with suppress(BadSearchError):
            parse(text)


def test_an_index_that_is_too_far_behind_or_of_which_nobody_knows_is_refused() -> None:
    require_fresh(2.0, 2.0)
    with pytest.raises(StaleIndexError, match=r"2\.5 s behind; a lag of 2 s") as refused:
        require_fresh(2.5, 2.0)
    assert (refused.value.status, refused.value.retryable) == (503, True)
    with pytest.raises(StaleIndexError, match="not been filled"):
        require_fresh(None, 2.0)


def refused_by(parameter: str, parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(BadSearchError) as refused:
        parse(text)
    assert [one.field for one in refused.value.errors] == [parameter]
