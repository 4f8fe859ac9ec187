"""What a request for content gets (RFC 9110, sections 13 and 14)."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from producer_admin.errors import AdminError, RefusedError
from producer_admin.ranges import answer, not_modified, parse_if_match, parse_range, range_applies

ETAG = '"sha256:abc"'
headers = st.text(st.characters(min_codepoint=9, max_codepoint=255), max_size=60)
near_ranges = st.from_regex(r"(bytes|BYTES|lines)? ?= ?[0-9]{0,25}-[0-9]{0,25}(,[0-9]*-[0-9]*)?", fullmatch=True)
near_tags = st.lists(st.sampled_from(['"7"', 'W/"7"', '"07"', '"a,b"', ",", " ", "*", '"', "W/", "x", ""]), max_size=6)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-9", (0, 10)),
        ("bytes=2-5", (2, 6)),
        ("bytes=2-", (2, 10)),
        ("bytes=9-", (9, 10)),
        ("bytes=5-999", (5, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-10", (0, 10)),
        ("bytes=-999", (0, 10)),
        ("Bytes= 2-5 ", (2, 6)),
        ("bytes=2-" + "9" * 5000, (2, 10)),
        ("bytes=" + "0" * 5000 + "2-5", (2, 6)),
    ],
)
def test_one_range_is_served(header: str, wanted: tuple[int, int]) -> None:
    assert parse_range(header, 10) == wanted
    start, end = wanted
    found = answer(10, ETAG, range_=header)
    assert (found.status, found.start, found.end) == (206, start, end)
    assert found.headers == {"Content-Range": f"bytes {start}-{end - 1}/10"}


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=99-", "bytes=-0", "bytes=" + "9" * 5000 + "-"])
def test_a_range_outside_the_content_cannot_be_satisfied(header: str) -> None:
    found = answer(10, ETAG, range_=header)
    assert (found.status, found.start, found.end) == (416, 0, 0)
    assert found.headers == {"Content-Range": "bytes */10"}


@pytest.mark.parametrize(
    "header",
    [
        "",
        "0-1",
        "lines=0-1",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-2",
        "bytes=0-1,3-4",
        "bytes=0-1,",
        "bytes=1-2-3",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=１-２",
        "bytes=0x1-2",
        "bytes=1 -2",
    ],
)
def test_what_is_not_one_range_of_bytes_gets_the_whole(header: str) -> None:
    assert parse_range(header, 10) is None
    found = answer(10, ETAG, range_=header)
    assert (found.status, found.start, found.end, found.headers) == (200, 0, 10, {})


@pytest.mark.parametrize(
    ("header", "status"), [("bytes=0-", 416), ("bytes=0-0", 416), ("bytes=-0", 416), ("bytes=-5", 200)]
)
def test_of_an_empty_file_no_byte_can_be_had(header: str, status: int) -> None:
    found = answer(0, ETAG, range_=header)
    assert (found.status, found.start, found.end) == (status, 0, 0)


@pytest.mark.parametrize(
    ("header", "applies"),
    [
        (None, True),
        (ETAG, True),
        (f" {ETAG} ", True),
        (f"W/{ETAG}", False),
        ('"sha256:other"', False),
        ("sha256:abc", False),
        ("Tue, 15 Nov 1994 12:45:26 GMT", False),
        ("*", False),
        ("", False),
    ],
)
def test_if_range_holds_for_this_very_content_alone(header: str | None, *, applies: bool) -> None:
    assert range_applies(header, ETAG) is applies
    assert answer(10, ETAG, range_="bytes=0-1", if_range=header).status == (206 if applies else 200)


@pytest.mark.parametrize(
    ("header", "same"),
    [
        (None, False),
        ("*", True),
        (ETAG, True),
        (f"W/{ETAG}", True),
        (f'"x", W/"y" ,{ETAG}', True),
        (f'"a,b",{ETAG}', True),
        (f",, {ETAG},", True),
        ('"x"', False),
        ("sha256:abc", False),
        (f"{ETAG} {ETAG}", False),
        ('"unclosed', False),
        ("", False),
    ],
)
def test_if_none_match_spares_what_the_client_has(header: str | None, *, same: bool) -> None:
    assert not_modified(header, ETAG) is same
    found = answer(10, ETAG, range_="bytes=99-", if_none_match=header)
    # It is asked before the range is looked at (RFC 9110, section 13.2.2).
    assert found.status == (304 if same else 416)


@pytest.mark.parametrize(
    ("header", "revisions"),
    [
        (None, None),
        ("*", None),
        (" * ", None),
        ('"7"', {7}),
        ('"7", "12"', {7, 12}),
        ('W/"7"', set()),
        ('W/"7", "8"', {8}),
        ('"07"', set()),
        ('"+7"', set()),
        ('"seven"', set()),
        ('"0"', set()),
        ('""', set()),
        ('"' + "9" * 5000 + '"', set()),
    ],
)
def test_if_match_names_revisions(header: str | None, revisions: set[int] | None) -> None:
    assert parse_if_match(header) == revisions


@pytest.mark.parametrize("header", ["", " ", "7", ",", '"7', '"7" "8"', '"7"x', '*, "7"', 'w/"7"', '"a"b"'])
def test_an_if_match_that_cannot_be_read_is_refused_by_name(header: str) -> None:
    with pytest.raises(RefusedError) as refused:
        parse_if_match(header)
    assert [error.field for error in refused.value.errors] == ["If-Match"]


@given(size=st.integers(0, 40), first=st.integers(0, 50), last=st.integers(0, 50))
def test_a_part_is_what_a_slice_is(size: int, first: int, last: int) -> None:
    content = bytes(range(size))
    for header, part in (
        (f"bytes={first}-{last}", content[first : last + 1] if first <= last else None),
        (f"bytes={first}-", content[first:]),
        (f"bytes=-{last}", content[-last:] if last else b""),
    ):
        found = answer(size, ETAG, range_=header)
        if found.status == 200:
            assert part is None or (part == content == b"")
        else:
            assert content[found.start : found.end] == part
            assert (found.status == 416) is (part == b"")


@given(size=st.integers(0, 10**15), range_=headers | near_ranges, if_range=st.none() | headers, tag=st.none() | headers)
@example(size=0, range_="bytes=-1", if_range=None, tag=None)
def test_no_header_breaks_the_answer(size: int, range_: str, if_range: str | None, tag: str | None) -> None:
    found = answer(size, ETAG, range_=range_, if_range=if_range, if_none_match=tag)
    assert found.status in {200, 206, 304, 416}
    assert 0 <= found.start <= found.end <= size
    assert (found.status == 206) <= (found.start < found.end)
    assert (found.status == 200) <= ((found.start, found.end) == (0, size))


@given(header=headers | near_tags.map("".join))
def test_if_match_is_read_or_refused(header: str) -> None:
    try:
        revisions = parse_if_match(header)
    except AdminError:
        return
    assert revisions is None or all(one > 0 for one in revisions)
