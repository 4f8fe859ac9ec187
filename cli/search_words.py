"""What a search found, for people: a table with marks on what matched, and what there is to say about it."""

import html
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from cli.terminal import err, out, plain, plain_table, size

if TYPE_CHECKING:
    from rich.text import Text

MARK: Final = "bold yellow"
TELL_LAG_SECONDS: Final = 2.0
"""An index that is less far behind is not worth a word."""
MOST_FACET_VALUES: Final = 10


def show_hits(words: str, found: dict[str, Any], *, header: bool = True) -> None:
    """Print one page as a table."""
    table = plain_table("NAME", "SIZE", "TYPE", "CREATED", "ABOUT")
    table.columns[1].justify = "right"
    table.show_header = header
    if header:
        show_count(words, found)
    for hit in found["results"]:
        table.add_row(
            _name(hit),
            size(hit["file_size"]),
            plain(hit["mime_type"]),
            _when(hit["created_at"]),
            _about(hit),
        )
    if found["results"]:
        out.print(table)


def show_count(words: str, found: dict[str, Any]) -> None:
    """Print how many there are."""
    from rich.text import Text

    least = "" if found["total_is"] == "exact" else "at least "
    asked = plain(words.strip() or "everything")
    asked.stylize("bold")
    out.print(Text.assemble("Search ", asked, f": {least}{found['total']:,} found in {found['took_ms']:.0f} ms"))


def show_facets(facets: dict[str, Any]) -> None:
    """Print how many hits there are of each type, tag, uploader, month and size."""
    table = plain_table("", "")
    table.show_header = False
    for name, values in facets.items():
        if isinstance(values, list) and values:
            shown = ", ".join(f"{one['value']} ({one['count']:,})" for one in values[:MOST_FACET_VALUES])
            table.add_row(f"[bold]{name}[/]", plain(shown))
    if not facets["counted_all"]:
        table.add_row("[bold]counted[/]", f"the newest {facets['counted']:,} hits")
    out.print(table)


def tell(found: dict[str, Any], page: int | None) -> None:
    """Say on standard error what else is to know: another spelling, an index that is behind, a next page."""
    if found["corrected_to"]:
        err.print(_told("Nothing was found as it was spelled; this was searched for: ", found["corrected_to"]))
    if found["did_you_mean"] and found["did_you_mean"] != found["corrected_to"]:
        err.print(_told("Did you mean: ", found["did_you_mean"]))
    lag = found["lag_seconds"]
    if lag is None:
        err.print("How far the index is behind is not known: does a projector run?", style="yellow")
    elif lag >= TELL_LAG_SECONDS:
        err.print(f"The index is {lag:,.0f} s behind: what was uploaded since may be missing.", style="yellow")
    if not found["ranked_all"] and found["ranked"]:
        err.print(f"The newest {found['ranked']:,} hits are ranked; older ones follow by date.", style="dim")
    if page is not None and found["next_cursor"]:
        err.print(f"There are more: --page {page + 1}, or --all.", style="dim")


def marked(markup: str) -> "Text":
    """A highlight of the API, which is HTML with <mark>, as text for a terminal."""
    from rich.text import Text

    shown, style = Text(), ""
    for piece in re.split(r"(</?mark>)", markup):
        if piece == "<mark>":
            style = MARK
        elif piece == "</mark>":
            style = ""
        else:
            shown.append(plain(html.unescape(piece)).plain, style=style)
    return shown


def _name(hit: dict[str, Any]) -> "Text":
    name = marked(hit["highlights"]["original_filename"])
    name.stylize_before("cyan")
    if hit["content_url"].startswith(("http://", "https://")):
        name.stylize(f"link {hit['content_url']}")
    return name


def _about(hit: dict[str, Any]) -> "Text":
    from rich.text import Text

    highlights = hit["highlights"]
    description = re.sub(r"\s+", " ", highlights["description"] or "").strip()
    about = marked(description)
    for tag in highlights["tags"]:
        about.append(" #" if about else "#", style="dim")
        about.append_text(marked(tag))
    return about if about else Text("")


def _told(sentence: str, words: str) -> "Text":
    from rich.text import Text

    said = plain(words)
    said.stylize("bold")
    return Text.assemble((sentence, "yellow"), said)


def _when(moment: str) -> str:
    return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M}"
