"""`artstore lag`: how far search is behind the topic, in one look, or in a table that stays up to date.

Exit codes: 0 ok or warn, 1 a fault, or nobody has told the lag yet, 4 rewind, stall or stop.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.query_api import AsJson, Url, body_of, query_client
from cli.rebuild_words import duration
from cli.terminal import err, out, plain, plain_table, print_json

if TYPE_CHECKING:
    import httpx
    from rich.console import RenderableType

LOOK_SECONDS: Final = 1.0
TROUBLED_EXIT: Final = 4
LAG: Final = "/api/v1/admin/lag"
WIDEST: Final = 60
"""Looks in a sparkline."""
OLD_SECONDS: Final = 10.0
"""What was seen longer ago is not how it is."""
_BARS: Final = "▁▂▃▄▅▆▇█"
_COLOURS: Final = {"ok": "green", "warn": "yellow", "rewind": "yellow", "stall": "red", "stop": "red"}
_MEANINGS: Final = {
    "ok": "it keeps up, or gains on the log",
    "warn": "it moves, and falls further behind",
    "rewind": "its position went back, or is none of this log",
    "stall": "it commits, and does not move",
    "stop": "it does not commit, or has no members",
}


def lag(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and draw it anew each second, until Ctrl-C.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show how far the projectors are behind the topic, and whether that gets better.

    Seen from outside their group by the Query API: a projector that is dead shows as one that stops. Exit code 4 when
    the group stalls, stops or went back.
    """
    with query_client(url) as client:
        if watch:
            found = _watch(client, as_json=as_json)
        else:
            found = body_of(client.get(LAG))
            print_json(found) if as_json else out.print(picture(found))
    if found is not None and found["status"] not in ("ok", "warn"):
        raise typer.Exit(TROUBLED_EXIT)


def _watch(client: "httpx.Client", *, as_json: bool) -> dict[str, Any] | None:
    """Draw until interrupted, which is how it ends well; what was seen last. In a pipe, an object a line."""
    import json
    from contextlib import nullcontext

    from rich.live import Live

    found: dict[str, Any] | None = None
    drawn = out.is_terminal and not as_json
    try:
        with Live(console=out, auto_refresh=False, transient=False) if drawn else nullcontext() as live:
            while True:
                found = _asked(client, found)
                if found is not None and live is not None:
                    live.update(picture(found), refresh=True)
                elif found is not None:
                    typer.echo(json.dumps({key: found[key] for key in found if key != "history"}, ensure_ascii=False))
                time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        return found


def _asked(client: "httpx.Client", before: dict[str, Any] | None) -> dict[str, Any] | None:
    """How it is now; as it was, with the reason, while the API does not answer."""
    import httpx

    from cli.running import refusal

    try:
        answer = client.get(LAG)
        if answer.status_code != 503:
            return body_of(answer)
        trouble = str(refusal(answer))
    except httpx.TransportError as error:
        trouble = f"the Query API does not answer: {error}"
    if before is None:
        err.print(trouble, markup=False)
        return None
    return {**before, "trouble": trouble, "looked_seconds_ago": before["looked_seconds_ago"] + LOOK_SECONDS}


def picture(found: dict[str, Any]) -> "RenderableType":
    """What a person sees of an answer: the group, its course, its partitions."""
    from rich.console import Group
    from rich.text import Text

    status = found["status"]
    first = Text.assemble(
        (status.upper(), f"bold {_COLOURS[status]}"),
        f"  {_MEANINGS[status]}\n",
        f"{found['group']}: {found['members']} member{'s' * (found['members'] != 1)}, {found['state']}; "
        f"{found['events']:,} behind, {_seconds(found['seconds'])}",
    )
    if found["history"]:
        course = [one["events"] for one in found["history"]][-WIDEST:]
        first.append(f"\n{sparkline(course)}  {max(course):,} at most in {_span(found['history'][-WIDEST:])}")
    table = plain_table("PARTITION", "STATUS", "BEHIND", "OLDEST", "COMMITTED", "END")
    for one in found["partitions"]:
        table.add_row(
            str(one["partition"]),
            Text(one["status"], _COLOURS[one["status"]]),
            f"{one['events']:,}",
            _seconds(one["seconds"]),
            "never" if one["committed"] is None else f"{one['committed']:,}",
            f"{one['end']:,}",
        )
    parts: list[Any] = [first, table]
    if found["trouble"] is not None or found["looked_seconds_ago"] > OLD_SECONDS:
        told = plain(f"Seen {duration(found['looked_seconds_ago'])} ago. {found['trouble'] or ''}".strip())
        told.stylize("red")
        parts.append(told)
    return Group(*parts)


def sparkline(values: Sequence[float]) -> str:
    """The course of some values, 0 or more, as a line of bars: nothing is the lowest, the most the highest."""
    most = max(values, default=0)
    return "".join(_BARS[0 if not most else round(one / most * (len(_BARS) - 1))] for one in values)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def _span(history: Sequence[dict[str, Any]]) -> str:
    from datetime import datetime

    first, last = (datetime.fromisoformat(history[place]["at"]) for place in (0, -1))
    return duration((last - first).total_seconds())
