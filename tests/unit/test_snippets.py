"""What is marked in a hit, and that nothing else of its texts changes."""

import time
from html import unescape
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer_query import snippets
from consumer_query.analysis import lexeme, lower_words
from consumer_query.snippets import FRAGMENT_CHARACTERS, FRAGMENT_WORDS, LOOKED_AT, Highlights, Marker

LEXEMES = ["договор", "report", "naive", "2", "x", "й"]
ODD = st.one_of(
    st.text(max_size=80),
    st.text(
        alphabet=st.sampled_from(
            "aZя Яё\u0308\u0301\u00ad\u200d\ufe0f½ﬁ№…㏂<&>\"'\n.,-_0９ЙИ\u0306한\u1112\u1161\u11ab"
            "\u0338=ẞİσΣǅ\U0001f469\u20e3ﷺ\x00"
        ),
        max_size=120,
    ),
    st.lists(st.sampled_from(["договоры", "Naïve", "reports", "xX2x", "и\u0306", "<b>", "&amp;", "</mark>"])).map(
        " ".join
    ),
)


def of_text(text: str, *lexemes: str, prefixes: tuple[str, ...] = ()) -> str:
    """What a short description looks like."""
    found = marked("", text, (), lexemes, prefixes).description
    assert found is not None
    return found


def of_name(name: str, *lexemes: str, prefixes: tuple[str, ...] = ()) -> str:
    return marked(name, None, (), lexemes, prefixes).original_filename


def marked(
    name: str, description: str | None, tags: tuple[str, ...], lexemes: tuple[str, ...], prefixes: tuple[str, ...] = ()
) -> Highlights:
    columns: dict[str, Any] = {"original_filename": name, "description": description, "tags": list(tags)}
    return Marker(lexemes, prefixes).highlighted(columns)


def bare(html: str) -> str:
    """The text behind an answer, without our marks."""
    return unescape(html.replace("<mark>", "").replace("</mark>", ""))


@pytest.mark.parametrize(
    ("text", "lexemes", "expected"),
    [
        ("Договоры поставки", ["договор"], "<mark>Договоры</mark> поставки"),
        ("the Contracts, signed", ["contract"], "the <mark>Contracts</mark>, signed"),
        ("Отчёт, отчет и Отче\u0308т", ["отчет"], "<mark>Отчёт</mark>, <mark>отчет</mark> и <mark>Отче\u0308т</mark>"),
        ("Café Zoë\u0301", ["zoe", "cafe"], "<mark>Café</mark> <mark>Zoë\u0301</mark>"),
        ("дого\u00adвор", ["договор"], "<mark>дого\u00adвор</mark>"),
        ("ﬁle №1 ½", ["file", "2"], "<mark>ﬁle</mark> №1 <mark>½</mark>"),
        ("<b>contract</b> & \"'", ["contract"], "&lt;b&gt;<mark>contract</mark>&lt;/b&gt; &amp; &quot;&#x27;"),
        ("the only", ["the"], "the only"),
        ("annualReports", ["report"], "annualReports"),
    ],
)
def test_words_are_marked_by_what_they_are_in_the_index_and_shown_as_they_were_written(
    text: str, lexemes: list[str], expected: str
) -> None:
    assert of_text(text, *lexemes) == expected
    assert marked("", None, (text, "other"), tuple(lexemes)).tags == [expected, "other"]


@pytest.mark.parametrize(
    ("name", "lexemes", "expected"),
    [
        ("ДоговорПоставки-2026.docx", ["поставк"], "Договор<mark>Поставки</mark>-2026.docx"),
        (
            "ДоговорПоставки-2026.docx",
            ["договор", "поставк", "2026"],
            "<mark>ДоговорПоставки</mark>-<mark>2026</mark>.docx",
        ),
        ("ДоговорПоставки.docx", ["договорпоставк"], "<mark>ДоговорПоставки</mark>.docx"),
        ("HTMLPage2.txt", ["page"], "HTML<mark>Page</mark>2.txt"),
        ("clip.mp4", ["mp4"], "clip.<mark>mp4</mark>"),
        ("clip.mp4", ["4"], "clip.mp<mark>4</mark>"),
        ("Сче\u0308тЗа2024год.pdf", ["2024", "счет"], "<mark>Сче\u0308т</mark>За<mark>2024</mark>год.pdf"),
        ("мои\u0306Фаи\u0306л.txt", ["файл"], "мои\u0306<mark>Фаи\u0306л</mark>.txt"),
        ("ﬁrstPage½.txt", ["page"], "<mark>ﬁrstPage½</mark>.txt"),
        ("xPage\u1112\u1161\u11ab.txt", ["page한"], "<mark>xPage\u1112\u1161\u11ab</mark>.txt"),
        ("the.txt", ["the"], "<mark>the</mark>.txt"),
        ("a&b.txt", ["b"], "a&amp;<mark>b</mark>.txt"),
    ],
)
def test_in_names_the_parts_that_camel_case_and_digits_join_are_marked_too(
    name: str, lexemes: list[str], expected: str
) -> None:
    assert of_name(name, *lexemes) == expected


@pytest.mark.parametrize(
    ("name", "prefix", "expected"),
    [
        ("договоры.pdf", "догов", "<mark>договоры</mark>.pdf"),
        ("ДоговорПоставки.pdf", "пост", "Договор<mark>Поставки</mark>.pdf"),
        ("ДоговорПоставки.pdf", "договорпо", "<mark>ДоговорПоставки</mark>.pdf"),
        ("happy.txt", "happi", "<mark>happy</mark>.txt"),
        ("report.txt", "port", "report.txt"),
        ("report.txt", "", "report.txt"),
    ],
)
def test_what_begins_as_typed_is_marked(name: str, prefix: str, expected: str) -> None:
    assert of_name(name, prefixes=(prefix,)) == expected


def test_a_stop_word_is_no_match_of_a_prefix_in_a_text() -> None:
    assert of_text("the theory", prefixes=("th",)) == "the <mark>theory</mark>"


def test_of_a_long_description_the_piece_with_most_of_what_was_asked_is_shown() -> None:
    filler = " ".join(f"filler{number}" for number in range(100))
    text = f"alpha alpha alpha {filler} alpha, then beta. {filler}"
    found = of_text(text, "alpha", "beta")
    assert found.startswith("…")
    assert found.endswith("…")
    assert "<mark>alpha</mark>, then <mark>beta</mark>." in found
    assert len(lower_words(bare(found))) == FRAGMENT_WORDS
    middle = bare(found).split().index("alpha,")
    assert 10 <= middle <= 20


def test_of_equal_pieces_the_first_is_shown() -> None:
    filler = " ".join(f"filler{number}" for number in range(100))
    found = of_text(f"alpha {filler} beta {filler} alpha", "alpha", "beta")
    assert found.startswith("<mark>alpha</mark>")


def test_long_words_are_not_cut_where_fewer_of_them_do() -> None:
    words = [f"{number:020}" for number in range(60)]
    for asked in (words[0], words[30], words[59]):
        shown = bare(of_text(" ".join(words), asked)).strip("…").split()
        assert asked in shown
        assert set(shown) <= set(words)
        assert len(shown) > FRAGMENT_CHARACTERS // 21 // 2


def test_a_description_without_a_match_is_shown_from_its_beginning() -> None:
    text = " ".join(f"word{number}" for number in range(100))
    assert of_text(text, "absent") == " ".join(f"word{number}" for number in range(FRAGMENT_WORDS)) + "…"
    assert of_text("short", "absent") == "short"
    assert marked("", None, (), ("absent",)).description is None


def test_a_match_at_the_very_end_is_shown_with_what_stands_before_it() -> None:
    text = " ".join(f"word{number}" for number in range(100)) + " договор!"
    found = of_text(text, "договор")
    assert found.endswith(" <mark>договор</mark>!")
    assert len(lower_words(bare(found))) == FRAGMENT_WORDS


def test_the_match_is_in_the_piece_however_long_the_words_about_it_are() -> None:
    long = "ы" * 5 * FRAGMENT_CHARACTERS
    dots = "." * 5 * FRAGMENT_CHARACTERS
    for text in (
        f"{long} договор {long}",
        f"{dots}договор{dots}",
        f"{long} {long} a {long} договор",
        f"договор {long}",
    ):
        found = of_text(text, "договор")
        assert "<mark>договор</mark>" in found
        assert len(bare(found)) <= FRAGMENT_CHARACTERS + 2


@given(name=ODD, description=st.none() | ODD, tags=st.lists(ODD, max_size=3), prefix=st.text(max_size=2))
@example(name="x½", description="\u0308е", tags=["и\u0306И"], prefix="x")
def test_nothing_is_lost_or_changed_but_for_marks(
    name: str, description: str | None, tags: list[str], prefix: str
) -> None:
    asked = {lexeme(word) for text in (name, description or "", *tags) for word in lower_words(text)[::2]}
    found = Marker(asked | set(LEXEMES), {prefix}).highlighted(
        {"original_filename": name, "description": description, "tags": tags}
    )
    assert bare(found.original_filename) == name
    assert list(map(bare, found.tags)) == tags
    if description is None:
        assert found.description is None
    else:
        assert found.description is not None
        assert is_piece(bare(found.description), description)
    for html in (found.original_filename, found.description or "", *found.tags):
        assert not set(html.replace("<mark>", "").replace("</mark>", "")) & set("<>\"'")
        assert html.count("<mark>") == html.count("</mark>")
        assert "</mark><mark>" not in html
        assert "<mark></mark>" not in html


@given(st.text(alphabet="abЯё.\u0301 ½…", min_size=300, max_size=1500), st.integers(0, 3))
def test_a_piece_of_a_long_description_is_contiguous_and_bounded(text: str, step: int) -> None:
    words = lower_words(text)
    found = of_text(text, *map(lexeme, words[step :: step + 1]))
    assert is_piece(bare(found), text)
    assert len(bare(found)) <= FRAGMENT_CHARACTERS + 2


def is_piece(shown: str, text: str) -> bool:
    """Whether it is the text, or what stands somewhere in it between …s of ours."""
    return shown == text or (
        (shown.startswith("…") and shown[1:] and text.endswith(shown[1:]))
        or (shown.endswith("…") and shown[:-1] and text.startswith(shown[:-1]))
        or (shown.startswith("…") and shown.endswith("…") and bool(shown[1:-1]) and shown[1:-1] in text)
    )


@given(st.lists(st.from_regex(r"[a-zа-яё]{1,12}", fullmatch=True), min_size=1, max_size=60))
def test_every_word_that_matches_is_marked_in_names_and_tags(words: list[str]) -> None:
    asked = lexeme(lower_words(words[0])[0])
    expected = " ".join(f"<mark>{one}</mark>" if lexeme(lower_words(one)[0]) == asked else one for one in words)
    assert of_name(" ".join(words), asked) == expected


def test_a_huge_description_costs_no_more_than_what_is_looked_at() -> None:
    text = "договор report " * 700_000
    begun = time.process_time()
    for _ in range(5):
        assert "<mark>договор</mark>" in of_text(text, "договор")
    assert time.process_time() - begun < 5 * 0.2
    assert "<mark>" not in of_text("word " * LOOKED_AT + "договор", "договор")


def test_what_is_plain_is_split_as_everything_else_is() -> None:
    plain = [chr(code) for code in range(0x10000) if snippets._is_plain(chr(code))]
    assert len(plain) > 190
    for character in plain:
        text = f"x{character}x"
        masked = text.translate(snippets._MASK)
        assert snippets._words(text) == [one.span() for one in snippets._masked_words(masked)], character
