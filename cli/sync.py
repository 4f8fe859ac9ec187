"""`artstore sync`: the cache, or the topic, compared with the truth; what is wrong in the cache is announced anew.

Exit codes: 0 nothing is wrong (any more); 1 a fault, or some files could not be told; 2 differences remain, or wrong
usage; 130 interrupted, and the comparison goes on.
"""

import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.errors import CliError
from cli.query_api import AsJson, Url, body_of, query_client
from cli.terminal import Waiting, err, out, plain, plain_table, print_json, when

if TYPE_CHECKING:
    import httpx
    from rich.table import Table

PREFIX: Final = "/api/v1/admin/sync"
LOOK_SECONDS: Final = 0.25
HINT_SECONDS: Final = 10.0
UNATTENDED_SECONDS: Final = 60.0
"""Without a maintenance process, before this gives up. A worker that died is replaced sooner."""
MOST_EXAMPLES: Final = 3
DIFFERENCES_EXIT: Final = 2
MEANINGS: Final = {
    "missing": "exists, and is not there",
    "ghost": "is there, and does not exist",
    "stale": "an older revision is there",
    "ahead": "a greater revision is there than there ever was",
    "differs": "the revision is right, the content is not",
}
NO_WORKER: Final = "Nobody runs comparisons. Start one: python -m consumer_query maintenance (`artstore up` does)."
COME_BACK: Final = "The comparison goes on; `artstore sync reports` shows how it ended."

Actor = Annotated[str | None, typer.Option(help="Who asks, for the record.", show_default="you")]

sync = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Compare with the Admin module, which knows what is true. Asks the Query API of the running stack, or --url.",
)


@sync.command()
def full(
    url: Url = None,
    actor: Actor = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Find differences, and repair none.")] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Delete even a great many files that the Admin module does not know. For good."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the cache with the Admin module, and have announced anew what is wrong.

    Exit codes: 0 nothing is wrong (any more); 1 a fault, or some files could not be told; 2 differences remain.
    """
    if dry_run and force:
        raise typer.BadParameter("--force repairs, --dry-run does not.")
    with query_client(url, actor) as client:
        report = _watched(client, "/full", {"dry_run": dry_run, "force": force})
    _end(report, as_json=as_json)


@sync.command()
def topic(url: Url = None, actor: Actor = None, *, as_json: AsJson = False) -> None:
    """Read the whole topic, and tell where it differs from the Admin module. About a minute a million records.

    Exit codes: 0 no differences; 1 a fault, or some files could not be told; 2 differences.
    """
    with query_client(url, actor) as client:
        report = _watched(client, "/topic", None)
    _end(report, as_json=as_json)


@sync.command()
def reports(
    limit: Annotated[int, typer.Option(min=1, max=100, help="Reports to show at most.")] = 20,
    url: Url = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show the newest comparisons and what they found."""
    with query_client(url) as client:
        found = body_of(client.get(f"{PREFIX}/reports", params={"limit": limit}))
    if as_json:
        print_json(found)
        return
    if not found["reports"]:
        out.print("There are none yet.")
        return
    table = plain_table("ASKED FOR", "BY", "SIDE", "OUTCOME", "FOUND", "LEFT", "TOLD")
    for one in found["reports"]:
        findings = one["findings"] or {"found": {}, "left": {}, "held_back": None}
        side = f"{one['side']}, dry run" if one["dry_run"] and one["side"] == "cache" else one["side"]
        table.add_row(
            when(one["requested_at"]),
            plain(one["requested_by"]),
            side,
            one["outcome"] or one["stage"],
            f"{sum(findings['found'].values()):,}",
            f"{sum(findings['left'].values()):,}",
            plain(one["trouble"] or findings["held_back"] or ""),
        )
    out.print(table)


def _watched(client: "httpx.Client", path: str, order: dict[str, Any] | None) -> dict[str, Any]:
    """Ask for a comparison and look at it until it has ended.

    Raises:
        CliError: another one is under way, or nobody takes it up.
    """
    accepted = client.post(f"{PREFIX}{path}", json=order)
    report = body_of(accepted)
    place = accepted.headers["Location"]
    unattended_since = time.monotonic()
    hinted = False
    try:
        with Waiting("Waiting for a maintenance process") as waiting:
            while report["outcome"] is None:
                time.sleep(LOOK_SECONDS)
                report = body_of(client.get(place))
                if report["attended"]:
                    unattended_since = time.monotonic()
                    waiting.tell(report["stage"][:1].upper() + report["stage"][1:])
                waited = time.monotonic() - unattended_since
                if waited > UNATTENDED_SECONDS:
                    raise CliError(f"{NO_WORKER} It will take up this comparison then: see `artstore sync reports`.")
                if waited > HINT_SECONDS and not hinted:
                    err.print(NO_WORKER, markup=False)
                    hinted = True
    except KeyboardInterrupt:
        err.print(COME_BACK)
        raise
    return report


def _end(report: dict[str, Any], *, as_json: bool) -> None:
    """Say what was found, and exit accordingly."""
    if as_json:
        print_json(report)
    else:
        _show(report)
    if report["outcome"] == "different":
        raise typer.Exit(DIFFERENCES_EXIT)
    if report["outcome"] in ("failed", "unconfirmed"):
        raise typer.Exit(1)


def _show(report: dict[str, Any]) -> None:
    found = report["findings"]
    if report["outcome"] == "failed":
        err.print(f"The comparison failed: {report['trouble']}", style="bold red", markup=False, soft_wrap=True)
        if not found["found"]:
            return
    what = "The cache" if report["side"] == "cache" else "The topic"
    out.print(
        f"{what} has {found['query_files']:,} files, the Admin module {found['admin_files']:,}. Compared in "
        f"{found['compared_in_seconds']:.1f} s with {found['requests']} requests.",
        markup=False,
    )
    if found["unreadable"]:
        out.print(f"{found['unreadable']:,} records of the topic cannot be applied.")
    if found["found"]:
        out.print(_classes(found))
    for text in _sentences(report):
        out.print(text, markup=False, soft_wrap=True)


def _classes(found: dict[str, Any]) -> "Table":
    table = plain_table("CLASS", "FOUND", "LEFT", "EXAMPLES (REVISION HERE, IN ADMIN)", "MEANING")
    for kind, meaning in MEANINGS.items():
        if kind not in found["found"]:
            continue
        examples = found["left_examples"].get(kind) or found["examples"][kind]
        table.add_row(
            kind,
            f"{found['found'][kind]:,}",
            f"{found['left'].get(kind, 0):,}",
            "\n".join(_example(one) for one in examples[:MOST_EXAMPLES]),
            meaning,
        )
    return table


def _example(one: dict[str, Any]) -> str:
    here, there = (
        f"{'deleted at ' if deleted else ''}{'-' if revision is None else revision}"
        for revision, deleted in (
            (one["query_revision"], one["query_deleted"]),
            (one["admin_revision"], one["admin_deleted"]),
        )
    )
    return f"{one['file_id']} ({here}, {there})"


def _sentences(report: dict[str, Any]) -> list[str]:
    found = report["findings"]
    told = []
    if report["outcome"] == "equal":
        told.append("Both are equal.")
    if found["asked"]:
        told.append(f"{found['asked']:,} files were announced anew, {sum(found['left'].values()):,} are still wrong.")
    if found["held_back"]:
        told.append(f"Not repaired: {found['held_back']}")
    if found["unconfirmed"]:
        told.append(f"Of {found['unconfirmed']:,} files it could not be told whether they are wrong:")
        told += [f"  {one['file_id']}: {one['why']}" for one in found["unconfirmed_examples"][:MOST_EXAMPLES]]
    if not found["complete"]:
        told.append("More files differ than were looked at. When so much is wrong, `artstore rebuild` is quicker.")
    return told
