"""A swap is let through only if no file that the live generation has right becomes wrong by it."""

from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from consumer_query.parity import AGAINST, Class, Parity, State, judge

UNKNOWN = None


def there(revision: int, digest: int = 1) -> State:
    return State(revision, deleted=False, digest=digest)


def gone(revision: int) -> State:
    return State(revision, deleted=True, digest=None)


@pytest.mark.parametrize(
    ("live", "new", "expected"),
    [
        (there(1), UNKNOWN, Class.MISSING_IN_NEW),
        (there(2), gone(1), Class.MISSING_IN_NEW),
        (there(2), gone(2), Class.MISSING_IN_NEW),
        (there(1), gone(2), Class.GHOST_IN_LIVE),
        (UNKNOWN, there(1), Class.MISSING_IN_LIVE),
        (gone(1), there(2), Class.MISSING_IN_LIVE),
        (gone(2), there(2), Class.UNDECIDED),
        (gone(2), there(1), Class.GHOST_IN_NEW),
        (there(1), there(2), Class.STALE_IN_LIVE),
        (there(2), there(1), Class.STALE_IN_NEW),
        (there(2, 1), there(2, 2), Class.UNDECIDED),
    ],
)
def test_without_the_admin_module_the_greater_revision_decides_and_what_it_cannot_decide_speaks_against(
    live: State | None, new: State | None, expected: Class
) -> None:
    assert judge(live, new, None, asked=False) == expected


@pytest.mark.parametrize(
    ("live", "new", "truth", "expected"),
    [
        (there(1), UNKNOWN, gone(2), Class.GHOST_IN_LIVE),
        (there(1), UNKNOWN, UNKNOWN, Class.GHOST_IN_LIVE),
        (there(1), UNKNOWN, there(1), Class.MISSING_IN_NEW),
        (there(1), gone(2), there(1), Class.MISSING_IN_NEW),
        (there(1), gone(2), there(3), Class.GHOST_IN_LIVE),
        (gone(1), there(2), gone(3), Class.GHOST_IN_NEW),
        (UNKNOWN, there(1), UNKNOWN, Class.GHOST_IN_NEW),
        (gone(2), there(2), there(2), Class.MISSING_IN_LIVE),
        (gone(2), there(1), there(1), Class.MISSING_IN_LIVE),
        (gone(2), there(2), gone(2), Class.GHOST_IN_NEW),
        (there(1), there(2), there(1), Class.WRONG_IN_NEW),
        (there(1), there(2), there(2), Class.STALE_IN_LIVE),
        (there(3), there(2), there(2), Class.WRONG_IN_LIVE),
        (there(3), there(2), there(3), Class.STALE_IN_NEW),
        (there(3), there(2), there(4), Class.STALE_IN_NEW),
        (there(2, 1), there(2, 2), there(2, 2), Class.WRONG_IN_LIVE),
        (there(2, 1), there(2, 2), there(2, 1), Class.WRONG_IN_NEW),
        (there(2, 1), there(2, 2), there(2, 3), Class.UNDECIDED),
        (there(2, 1), there(2, 2), there(3, 2), Class.UNDECIDED),
    ],
)
def test_the_admin_module_decides_where_it_knows_one_side_to_be_right(
    live: State | None, new: State | None, truth: State | None, expected: Class
) -> None:
    assert judge(live, new, truth, asked=True) == expected


def right(side: State | None, truth: State | None) -> bool:
    """Whether search would answer of a file what is true."""
    shown, true = (None if one is None or one.deleted else one for one in (side, truth))
    return shown == true


def differ(live: State | None, new: State | None) -> bool:
    """What the comparison's statement takes for a difference."""
    return not right(live, new)


REVISIONS = st.integers(1, 3)
SIDES = st.none() | st.builds(gone, REVISIONS) | st.builds(there, REVISIONS, st.integers(1, 2))


@given(SIDES, SIDES, SIDES)
def test_what_is_let_through_never_makes_a_file_wrong_that_the_live_generation_has_right(
    live: State | None, new: State | None, truth: State | None
) -> None:
    assume(differ(live, new))
    found = judge(live, new, truth, asked=True)
    if right(live, truth):
        assert found in AGAINST
    if right(new, truth):
        assert found not in AGAINST


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[State], State | None, State | None]:
    """All states that a file went through, and two sides that each hold one of them or none yet."""
    count = draw(st.integers(1, 5))
    history = [there(revision, digest=revision) for revision in range(1, count + 1)]
    if count > 1 and draw(st.booleans()):
        history[-1] = gone(count)
    live, new = draw(st.none() | st.sampled_from(history)), draw(st.none() | st.sampled_from(history))
    return history, live, new


@given(histories())
def test_with_nobody_to_ask_the_same_holds_where_both_sides_hold_what_once_was_true(
    drawn: tuple[list[State], State | None, State | None],
) -> None:
    history, live, new = drawn
    assume(differ(live, new))
    found = judge(live, new, None, asked=False)
    if live is not None and right(live, history[-1]):
        assert found in AGAINST
    if new is not None and right(new, history[-1]):
        assert found not in AGAINST


@given(st.lists(st.sampled_from(Class)))
def test_a_comparison_counts_classes_keeps_some_examples_and_says_how_many_speak_against(found: list[Class]) -> None:
    parity = Parity(1, 2)
    for number, one in enumerate(found):
        parity.note(UUID(int=number), one)
    assert sum(parity.classes.values()) == len(found)
    assert parity.speaks_against == sum(one in AGAINST for one in found)
    assert all(len(examples) == min(parity.classes[name], 10) for name, examples in parity.examples.items())
    assert all(name.replace("_", " ") in parity.summary for name in parity.classes)
