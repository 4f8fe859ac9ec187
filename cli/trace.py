"""`artstore trace FILE_ID`: how far the newest change of a file has come, which station holds it up, what to do.

Exit codes: 0 search shows it (or no longer shows what was deleted); 1 not yet, or it cannot be told, or a fault.
"""

from collections.abc import Iterator
from typing import Any, Final
from uuid import UUID

import typer

from cli.query_api import AsJson, Url, body_of, query_client
from cli.terminal import out, plain, plain_table, print_json

TRACE: Final = "/api/v1/files/{file_id}/trace"
_MARKS: Final = {
    "done": ("✓", "green", "done"),
    "here": ("▶", "bold red", "here"),
    "not_yet": ("·", "dim", "not yet"),
    "unclear": ("?", "yellow", "unclear"),
}
_LEADS: Final = {"nothing": ("visible", "bold green"), "unclear": ("unclear", "bold yellow")}
_ANEW: Final = "Announce the file anew: artstore admin republish --ids {file_id}"


def trace(file_id: UUID, url: Url = None, *, as_json: AsJson = False) -> None:
    """Show how far the newest change of a file has come, station by station, and what to do about what holds it up.

    Exit code 0 when search shows it, else 1.
    """
    with query_client(url) as client:
        found = body_of(client.get(TRACE.format(file_id=file_id)))
    if as_json:
        print_json(found)
    else:
        _show(found)
    if found["held_up_by"] != "nothing":
        raise typer.Exit(1)


def _show(found: dict[str, Any]) -> None:
    from rich.text import Text

    lead, colour = _LEADS.get(found["held_up_by"], (f"held up: {found['held_up_by'].replace('_', ' ')}", "bold red"))
    out.print(Text.assemble((lead.upper(), colour), "  ", plain(found["told"])), soft_wrap=True)
    table = plain_table("", "STATION", "", "SEEN THERE")
    table.show_header = False
    for one in found["stations"]:
        sign, colour, word = _MARKS[one["mark"]]
        table.add_row(Text(sign, colour), one["name"].replace("_", " "), Text(word, colour), plain(one["told"]))
    out.print(table)
    for hint in next_steps(found):
        out.print(plain(f"  {hint}"), soft_wrap=True)


def next_steps(found: dict[str, Any]) -> Iterator[str]:
    """What to do about what holds the file up; nothing where search shows it."""
    match found["held_up_by"]:
        case "saga":
            yield from _about_saga(found)
        case "outbox":
            yield from _about_outbox(found)
        case "topic":
            yield from _about_topic(found)
        case "dead_letter":
            yield from _about_letter(found)
        case "cache":
            yield "Compare the cache with the Admin module, which repairs it: artstore sync full"
        case "unclear":
            yield "See which process is not well: artstore status"


def _about_saga(found: dict[str, Any]) -> Iterator[str]:
    sagas = found["admin"]["sagas"]
    saga = next((one for one in sagas if one["state"] == "running"), sagas[0])
    if saga["state"] in {"compensating", "compensated"}:
        yield "Upload it again: nothing of it is left."
    elif not saga["attended"]:
        yield "An Admin API takes it up once its lease has run out; see that one runs: artstore status"
    else:
        yield "It is being worked on: wait."


def _about_outbox(found: dict[str, Any]) -> Iterator[str]:
    relay = found["admin"]["relay"]
    if relay == "nobody":
        yield "Start a relay: python -m producer_admin relay (`artstore up` does)"
    elif relay == "held":
        yield "Publishing is held: start the relay with EVENT_PUBLISH_ENABLED=true"
    yield "See what waits, and who sends it: artstore outbox stats"


def _about_topic(found: dict[str, Any]) -> Iterator[str]:
    log = found["log"]
    if found["log_ends_before_it"]:
        yield _ANEW.format(file_id=found["file_id"])
        return
    if log is not None and not log["members"]:
        yield "Start a projector: python -m consumer_query projector (`artstore up` does)"
    yield "See whether it moves: artstore lag"
    yield "See why it does not, such as a schema that it does not know: artstore status"


def _about_letter(found: dict[str, Any]) -> Iterator[str]:
    letter = found["dead_letter"]
    yield f"See it whole: artstore dlq show {letter['position']}"
    if found["revision"] is None and found["admin"] is not None:
        yield f"The Admin module knows no such file: artstore dlq drop {letter['position']}"
        return
    if letter["status"] != "dropped":
        yield f"Try it again, once its cause is mended: artstore dlq redrive {letter['position']}"
    yield _ANEW.format(file_id=found["file_id"])
