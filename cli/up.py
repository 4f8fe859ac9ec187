"""`artstore up`: everything runs until it is told to stop, and then nothing does."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from cli.terminal import Waiting, err, interrupted_once, out, plain_table, since

if TYPE_CHECKING:
    from local.stack import Stack

_LOG_POLL_SECONDS = 0.2


def up(
    *,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete all files, events and databases first.")] = False,
    auth: Annotated[
        bool, typer.Option("--auth", help="APIs want a token; artstore token and all verbs make it.")
    ] = False,
) -> None:
    """Start Kafka, Postgres and all services; stream their logs; stop them on Ctrl-C."""
    from local.settings import StackSettings
    from local.stack import Stack

    begin = time.monotonic()
    with interrupted_once():
        try:
            with Waiting("Starting") as waiting:
                stack = Stack(StackSettings.read(), waiting.tell, guarded=auth)
                stack.start(fresh=fresh)
            _run(stack, begin)
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def _greet(stack: "Stack", begin: float) -> None:
    if stack.orphans:
        out.print(f"Stopped what a killed run had left behind: {', '.join(stack.orphans)}.")
    table = plain_table("", "")
    table.show_header = False
    page = "" if stack.guarded else "/docs"
    for name, url in (
        ("Admin API", f"{stack.admin_url}{page}"),
        ("Query API", f"{stack.query_url}{page}"),
        *([("Token", "./artstore token; the other verbs make their own")] if stack.guarded else []),
        ("Kafka", stack.kafka.bootstrap_servers),
        ("Postgres", stack.postgres.url("artstore_admin")),
        ("", stack.postgres.url("artstore_query")),
        ("Files", str(stack.home.files)),
        ("Logs", str(stack.home.logs)),
    ):
        table.add_row(f"[bold]{name}[/]", url)
    out.print(f"[bold green]All healthy[/] after {since(begin)}. Ctrl-C stops everything.")
    out.print(table)


def _run(stack: "Stack", begin: float) -> None:
    from cli.logs import LogFollower

    names = ("postgres", "kafka", *stack.services)
    logs = LogFollower(stack.home.logs, names)
    stopped_at: float | None = None
    try:
        _greet(stack, begin)
        while True:
            logs.show()
            stack.require_alive()
            time.sleep(_LOG_POLL_SECONDS)
    except KeyboardInterrupt:
        stopped_at = time.monotonic()
        raise
    finally:
        with Waiting("Stopping") as waiting:
            stack.tell = waiting.tell
            stack.stop()
        if stopped_at is not None:
            err.print(f"Stopped after {since(stopped_at)}; nothing runs, the data are kept.")
