"""`artstore search "words"`: the hits, best first, for people or for programs.

Exit codes, as grep's: 0 something was found, 1 nothing was, 2 a fault or wrong usage.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

import typer

from cli.asked import byte_count, moment
from cli.errors import CliError, NotRunningError
from cli.query_api import Url

if TYPE_CHECKING:
    import httpx

PATH: Final = "/api/v1/files/search"
PAGE: Final = 200
"""Hits of one request when all are wanted."""
NOTHING_FOUND: Final = 1
ORDERS: Final = ("relevance", "newest", "oldest", "largest", "smallest", "name")


def _size(help_: str) -> Any:
    return typer.Option(parser=byte_count, metavar="SIZE", help=help_, show_default=False)


def _moment(help_: str) -> Any:
    return typer.Option(parser=moment, metavar="MOMENT", help=help_, show_default=False)


class SearchError(CliError):
    """No answer: the service refused, or is away."""

    exit_code: ClassVar[int] = 2


def search(
    words: Annotated[
        str,
        typer.Argument(help='Words, "phrases", -excluded, OR; or a name. None: all files.', show_default=False),
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=PAGE, metavar="N", help="Hits on a page, 200 at most.")] = 20,
    page: Annotated[int, typer.Option(min=1, metavar="N", help="Which page.")] = 1,
    sort: Annotated[
        Literal["relevance", "newest", "oldest", "largest", "smallest", "name"] | None,
        typer.Option(metavar="ORDER", help=f"{', '.join(ORDERS)}. Without words: newest.", show_default=False),
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="image/png or image/*. Repeat: any of them.")
    ] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="Repeat: all of them.")] = None,
    any_tags: Annotated[list[str] | None, typer.Option("--any-tag", metavar="TAG", help="Repeat: any of them.")] = None,
    min_size: Annotated[int | None, _size("Not smaller: 500, 10M, 1.5GiB.")] = None,
    max_size: Annotated[int | None, _size("Not larger.")] = None,
    created_from: Annotated[str | None, _moment("Not before: 2026-01-31, 2026-01-31T12:00, 12h or 7d ago.")] = None,
    created_before: Annotated[str | None, _moment("Before.")] = None,
    updated_from: Annotated[str | None, _moment("Not changed last before.")] = None,
    updated_before: Annotated[str | None, _moment("Changed last before.")] = None,
    uploaders: Annotated[
        list[str] | None, typer.Option("--uploader", metavar="USER", help="Repeat: any of them.")
    ] = None,
    elements: Annotated[
        list[str] | None, typer.Option("--storage-element", metavar="ID", help="Repeat: any of them.")
    ] = None,
    retention: Annotated[
        Literal["none", "active", "expired"] | None,
        typer.Option(metavar="STATE", help="none, active or expired.", show_default=False),
    ] = None,
    checksum: Annotated[str | None, typer.Option(metavar="SHA256", help="Of the content.", show_default=False)] = None,
    at_least: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE_ID@REVISION", help="Once this change can be found, as an upload told it."),
    ] = None,
    wait: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long for --at-least: 2s, 500ms.", show_default=False)
    ] = None,
    max_lag: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Fail if the index is further behind: 5s.", show_default=False),
    ] = None,
    url: Url = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All pages, one after another.")] = False,
    typing: Annotated[bool, typer.Option("--typing", help="The last word is the beginning of one.")] = False,
    exactly: Annotated[bool, typer.Option("--exactly", help="No words but these.")] = False,
    facets: Annotated[bool, typer.Option("--facets", help="Also count by type, tag, uploader, month, size.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a JSON object a line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
) -> None:
    """Find files. Asks the Query API of the running stack, or --url.

    Exit codes, as grep's: 0 something was found, 1 nothing was, 2 a fault or wrong usage.
    """
    if as_json + as_csv + facets > 1:
        raise typer.BadParameter("--json, --csv and --facets exclude each other.")
    if everything and page > 1:
        raise typer.BadParameter("--all shows all pages, --page one.")
    body = {
        "query": words,
        "limit": PAGE if everything else limit,
        "sort": sort,
        "type": types,
        "tag": tags,
        "any_tag": any_tags,
        "min_size": min_size,
        "max_size": max_size,
        "created_from": created_from,
        "created_before": created_before,
        "updated_from": updated_from,
        "updated_before": updated_before,
        "uploader": uploaders,
        "storage_element": elements,
        "retention": retention,
        "checksum": checksum,
        "at_least": at_least,
        "wait": wait,
        "max_lag": max_lag,
        "typing": typing,
        "correct": not exactly,
        "facets": facets,
    }
    found = _asked(url, body, None if everything else page)
    shown = _write(found, as_csv=as_csv) if as_json or as_csv else _show(words, found, None if everything else page)
    if not shown:
        raise typer.Exit(NOTHING_FOUND)


def find(client: "httpx.Client", body: dict[str, Any]) -> dict[str, Any]:
    """Ask the Query API for one page.

    Args:
        client: of the Query API
        body: parameters of the search; those that are None or empty are left out

    Raises:
        SearchError: it refused, and the message is its own; or it is away.
    """
    import httpx

    from cli.running import refusal

    given = {name: value for name, value in body.items() if value not in (None, [])}
    try:
        # As ASCII: an argument that is no UTF-8 is for the service to refuse.
        answer = client.post(PATH, content=json.dumps(given), headers={"Content-Type": "application/json"})
    except httpx.HTTPError as error:
        raise SearchError(f"The Query API does not answer: {error}") from error
    if answer.status_code != 200:
        raise SearchError(str(refusal(answer)))
    found: dict[str, Any] = answer.json()
    return found


def _asked(url: str | None, body: dict[str, Any], page: int | None) -> Iterator[dict[str, Any]]:
    """The page of that number, or all pages one after another."""
    from cli.query_api import query_client

    try:
        opened = query_client(url)
    except NotRunningError as error:
        raise SearchError(str(error)) from error
    with opened as client:
        found = find(client, body)
        number = 1
        while found["next_cursor"] and (page is None or number < page):
            if page is None:
                yield found
            # Facets are of all hits, and a corrected query stays corrected: the cursor knows.
            found = find(client, body | {"cursor": found["next_cursor"], "facets": False})
            number += 1
        if page is None or number == page:
            yield found


def _show(words: str, pages: Iterator[dict[str, Any]], page: int | None) -> bool:
    from cli.search_words import show_facets, show_hits, tell

    shown = False
    for found in pages:
        show_hits(words, found, header=not shown)
        if found["facets"]:
            show_facets(found["facets"])
        if not shown:
            tell(found, page)
        shown = shown or bool(found["results"])
    return shown


def _write(pages: Iterator[dict[str, Any]], *, as_csv: bool) -> bool:
    from cli.search_words import tell
    from consumer_query.export import CSV_HEADER, csv_lines

    written = False
    for found in pages:
        if not written:
            tell(found, None)
        if as_csv:
            typer.echo(("" if written else CSV_HEADER) + csv_lines(found["results"]), nl=False)
        else:
            typer.echo("".join(json.dumps(hit, ensure_ascii=False) + "\n" for hit in found["results"]), nl=False)
        written = written or bool(found["results"])
    return written
