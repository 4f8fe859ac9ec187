"""`artstore dlq`: records that could not be applied, in groups and one by one, and what to do about them.

Exit codes: 0 done; 1 a fault, or letters that failed or were left; 2 wrong usage; 130 interrupted. A redrive that was
interrupted has marked what it did: the same command goes on from there.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from cli.query_api import AsJson, Url, body_of, query_client
from cli.terminal import err, out, plain, plain_table, print_json, size, when

if TYPE_CHECKING:
    import httpx

PREFIX = "/api/v1/admin/dlq"
PAGE = 100
"""Letters in one call: what Ctrl-C waits for."""
MOST_SHOWN = 20

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would become of them.")]
Position = Annotated[
    str | None,
    typer.Argument(metavar="[POSITION]", help="topic/partition/offset of the record.", show_default=False),
]
Reason = Annotated[str | None, typer.Option(help="Letters with this reason.", show_default=False)]
Error = Annotated[str | None, typer.Option(help="Letters with this class of exception.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="All letters that are open.")]
Actor = Annotated[str | None, typer.Option(help="Who does it, for the audit log.", show_default="you")]

dlq = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Dead letters: records that could not be applied. Asks the Query API of the running stack, or --url.",
)


@dlq.command("list")
def list_letters(
    reason: Reason = None,
    error: Error = None,
    status: Annotated[
        list[str] | None,
        typer.Option(help="open, failed, redriven, superseded, republished or dropped; may be repeated."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Letters to show at most.")] = 50,
    url: Url = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show groups with counts and examples; with a reason, an error or a status the letters themselves."""
    with query_client(url) as client:
        if reason is None and error is None and not status:
            found = body_of(client.get(PREFIX))
            if as_json:
                print_json(found)
            else:
                _show_groups(found)
            return
        asked: dict[str, Any] = {"reason": reason, "error": error, "status": status}
        letters: list[dict[str, Any]] = []
        cursor: int | None = 0
        while cursor is not None and len(letters) < limit:
            room = min(500, limit - len(letters))
            given = {name: value for name, value in asked.items() if value}
            page = body_of(client.get(f"{PREFIX}/letters", params={**given, "limit": room, "cursor": cursor}))
            letters += page["letters"]
            cursor = page["next_cursor"]
    if as_json:
        print_json({"letters": letters, "next_cursor": cursor})
        return
    _show_letters(letters)
    if cursor is not None:
        out.print("There are more; raise --limit.")


@dlq.command()
def show(
    position: Annotated[str, typer.Argument(metavar="POSITION", help="topic/partition/offset of the record.")],
    url: Url = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show one letter whole: the record, the error, and what was done about it."""
    with query_client(url) as client:
        found = body_of(client.get(f"{PREFIX}/letters/{_path(position)}"))
    if as_json:
        print_json(found)
        return
    table = plain_table("", "")
    table.show_header = False
    for name in (
        "position",
        "status",
        "reason",
        "error",
        "at",
        "group",
        "attempt",
        "file_id",
        "revision",
        "name",
        "key",
    ):
        table.add_row(name, plain(found[name]))
    table.add_row("value", f"{size(found['size'])}, in base64 with --json" if found["value_base64"] else "null")
    for header in found["headers"]:
        table.add_row("header", plain(f"{header['name']}: {header['value']}"))
    if found["record"] is not None:
        table.add_row("record", plain(json.dumps(found["record"], ensure_ascii=False, indent=1)))
    out.print(table)
    if found["history"]:
        history = plain_table("WHEN", "WHO", "WHAT", "OUTCOME", "NOTE")
        for one in found["history"]:
            history.add_row(when(one["at"]), *(plain(one[name]) for name in ("actor", "action", "outcome", "note")))
        out.print(history)


@dlq.command()
def redrive(
    position: Position = None,
    reason: Reason = None,
    error: Error = None,
    url: Url = None,
    actor: Actor = None,
    *,
    everything: All = False,
    republish: Annotated[
        bool, typer.Option("--republish", help="Have the Admin module announce the files anew instead.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Also letters whose redrive failed five times.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Try letters again: one by its POSITION, those of a reason or an error, or all. What is superseded is skipped."""
    which = _which(position, reason, error, everything=everything)
    more = {"how": "republish" if republish else "apply", "force": force}
    _act("redrive", {**which, **more, "dry_run": dry_run}, url, actor, as_json=as_json)


@dlq.command()
def drop(
    position: Position = None,
    reason: Reason = None,
    error: Error = None,
    url: Url = None,
    actor: Actor = None,
    note: Annotated[str, typer.Option(help="Why, for the audit log.")] = "",
    *,
    everything: All = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Mark letters as not worth another try. They stay on the topic."""
    which = _which(position, reason, error, everything=everything)
    _act("drop", {**which, "note": note, "dry_run": dry_run}, url, actor, as_json=as_json)


def _which(position: str | None, reason: str | None, error: str | None, *, everything: bool) -> dict[str, Any]:
    given = {
        name: value
        for name, value in (("position", position), ("reason", reason), ("error", error))
        if value is not None
    }
    if bool(given) == everything:
        raise typer.BadParameter("Give a POSITION, --reason, --error, or else --all.")
    return given or {"all": True}


def _act(verb: str, order: dict[str, Any], url: str | None, actor: str | None, *, as_json: bool) -> None:
    """Call after call until nothing is left; says at the end, also of an interruption, what was done."""
    from runtime.progress import bar

    totals: Counter[str] = Counter()
    failed: list[dict[str, Any]] = []
    exhausted = left = 0
    finished = False
    try:
        with query_client(url, actor) as client, bar(err, drawn=not as_json) as progress:
            task = progress.add_task("Dry run" if order["dry_run"] else verb.capitalize(), total=None)
            for answer in _calls(client, verb, order):
                totals.update(answer["outcomes"])
                failed += [one for one in answer["letters"] if one["outcome"] == "failed"]
                exhausted += answer["exhausted"]
                left = answer["left"]
                progress.update(task, completed=totals.total(), total=totals.total() + left)
        finished = True
    finally:
        if totals or finished:
            _report(totals, failed, exhausted, left, dry_run=order["dry_run"], as_json=as_json)
    if "position" in order and not totals and not exhausted:
        err.print(f"No open dead letter was read at {order['position']}.", markup=False)
        raise typer.Exit(1)
    if failed or exhausted:
        raise typer.Exit(1)


def _calls(client: "httpx.Client", verb: str, order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cursor: int | None = 0
    while cursor is not None:
        answer = body_of(client.post(f"{PREFIX}/{verb}", json={**order, "cursor": cursor, "limit": PAGE}))
        cursor = answer["next_cursor"]
        yield answer


def _report(
    totals: Counter[str],
    failed: list[dict[str, Any]],
    exhausted: int,
    left: int,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    if as_json:
        print_json({"outcomes": totals, "failed": failed, "exhausted": exhausted, "left": left, "dry_run": dry_run})
        return
    if not totals:
        out.print("No letter was there to act on.")
    for outcome, count in totals.most_common():
        out.print(f"{count:,} {'would be ' if dry_run else ''}{outcome}", markup=False)
    table = plain_table("POSITION", "NOTE")
    for one in failed[:MOST_SHOWN]:
        table.add_row(plain(one["letter"]["position"]), plain(one["note"]))
    if failed:
        out.print(table)
    if len(failed) > MOST_SHOWN:
        out.print(f"  and {len(failed) - MOST_SHOWN:,} more; --json lists all")
    if exhausted:
        out.print(f"{exhausted:,} failed too often and were left alone; --force tries them again.")
    if left:
        out.print(f"{left:,} are left; the same command goes on with them.")


def _show_groups(found: dict[str, Any]) -> None:
    if not found["groups"]:
        out.print("There are no dead letters.")
        return
    table = plain_table("REASON", "ERROR", "OPEN", "RESOLVED", "FIRST", "LAST", "EXAMPLE")
    for group in found["groups"]:
        example = next(iter(group["examples"]), None)
        table.add_row(
            *(plain(group[name]) for name in ("reason", "error", "open", "resolved")),
            *(when(group[name]) for name in ("first_at", "last_at")),
            plain(example and " ".join(filter(None, (example["position"], example["name"])))),
        )
    out.print(table)
    out.print(f"{found['open']:,} open, {found['resolved']:,} resolved.")


def _show_letters(letters: list[dict[str, Any]]) -> None:
    if not letters:
        out.print("There are none.")
        return
    table = plain_table("POSITION", "STATUS", "PUT ASIDE", "FILE", "REVISION", "NAME", "ERROR")
    for one in letters:
        table.add_row(
            *(plain(one[name]) for name in ("position", "status")),
            when(one["at"]),
            *(plain(one[name]) for name in ("file_id", "revision", "name")),
            plain(one["error"][:120]),
        )
    out.print(table)


def _path(position: str) -> str:
    topic, _, rest = position.partition("/")
    partition, _, offset = rest.partition("/")
    if not (topic and partition.isdigit() and offset.isdigit()):
        raise typer.BadParameter("A position is topic/partition/offset, as `artstore dlq list` shows it.")
    return f"{quote(topic, safe='')}/{partition}/{offset}"
