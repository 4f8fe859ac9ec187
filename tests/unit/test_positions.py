"""Where an assignment starts: the lower of what the rows say and what the group says."""

import pytest

from consumer_query.positions import start_of


@pytest.mark.parametrize(
    ("stored", "committed", "beginning", "end", "position", "warned"),
    [
        pytest.param(None, None, 0, 10, 0, None, id="a new group and a new database read all"),
        pytest.param(None, 10, 0, 10, 0, None, id="a lost database is filled again whatever the group says"),
        pytest.param(7, None, 0, 10, 7, None, id="a group that never committed goes by the rows"),
        pytest.param(7, 7, 0, 10, 7, None, id="both agree"),
        pytest.param(7, 3, 0, 10, 3, "replaying", id="an operator's reset backwards is honoured"),
        pytest.param(7, 9, 0, 10, 7, "ahead of the rows", id="a reset forwards is refused"),
        pytest.param(2, 2, 5, 10, 5, None, id="records below the log's beginning are gone"),
        pytest.param(12, 12, 0, 10, 0, "beyond the log's end", id="a topic made anew is read from its beginning"),
    ],
)
def test_an_assignment_starts_where_nothing_can_be_missed(
    stored: int | None, committed: int | None, beginning: int, end: int, position: int, warned: str | None
) -> None:
    start = start_of(stored, committed, beginning, end)
    assert start.position == position
    assert (start.warning is None) if warned is None else (start.warning is not None and warned in start.warning)
