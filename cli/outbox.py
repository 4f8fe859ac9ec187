"""`artstore outbox`: what waits for the topic, what became of a file's changes, and sending events again.

Exit codes: 0 done; 1 a fault, or a file of which nothing is known here; 2 wrong usage.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import typer

from cli.errors import CliError
from cli.terminal import err, out, plain_table

if TYPE_CHECKING:
    from producer_admin.audit import AuditEntry
    from producer_admin.backlog import OutboxStats, ShardBacklog
    from runtime.postgres import Connection

Answer = TypeVar("Answer")
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]

outbox = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="What waits for the topic, what was announced, and sending it again. "
    "Asks the database in ADMIN_DATABASE_URL, or that of the running stack.",
)


@outbox.command()
def stats(*, as_json: AsJson = False) -> None:
    """Show what waits on each shard, who sends it, and how much was sent of late."""
    from producer_admin import backlog

    found = _ask(backlog.stats)
    if as_json:
        typer.echo(
            _json({**asdict(found), "waiting": found.waiting, "age": found.age, "publishing": _publishing(found)})
        )
        return
    table = plain_table("SHARD", "WAITING", "OLDEST", "OWNER", "LEASE")
    for one in found.shards:
        table.add_row(str(one.shard), str(one.waiting), _age(one), str(one.owner or "-"), _lease(one))
    out.print(table)
    waiting = f"{found.waiting} waiting, the oldest for {found.age:.0f} s" if found.waiting else "Nothing waits"
    out.print(f"{waiting}. Sent: {found.sent_last_minute} in the last minute, {found.sent_last_hour} in the last hour.")
    out.print(f"Publishing: {_publishing(found)}.")


@outbox.command()
def audit(file_id: UUID, *, as_json: AsJson = False) -> None:
    """Show every event of a file in order: when, who, what, and where on the topic. Exit code 1: there is none."""
    from functools import partial

    from producer_admin.audit import history

    entries = _ask(partial(history, file_id=file_id))
    if as_json:
        typer.echo(_json([asdict(one) for one in entries]))
    elif entries:
        table = plain_table("WHEN", "WHO", "WHAT", "REVISION", "CHANGED", "PARTITION", "OFFSET")
        for one in entries:
            table.add_row(
                f"{one.occurred_at.astimezone():%Y-%m-%d %H:%M:%S.%f}",
                *(one.actor, one.event_type, str(one.revision), ", ".join(one.changed or ()) or "-"),
                *(str(one.partition), _offset(one)),
            )
        out.print(table)
    if not entries:
        err.print(f"There is no event of {file_id} in the outbox or its audit log.")
        raise typer.Exit(1)


@outbox.command()
def requeue(
    file_ids: Annotated[list[UUID] | None, typer.Argument(metavar="FILE_ID...", show_default=False)] = None,
    *,
    since: Annotated[str | None, typer.Option(metavar="MOMENT", help="What was sent from here on; ISO 8601.")] = None,
    until: Annotated[
        str | None, typer.Option(metavar="MOMENT", help="And before this one.", show_default="now")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send events again: of some files, or all that were sent in some time. Only a file's newest event ever goes."""
    from producer_admin.actions import operator
    from producer_admin.requeue import END, Requeued, sent_between
    from producer_admin.requeue import requeue as put_back

    if bool(file_ids) == (since is not None):
        raise typer.BadParameter("Give either FILE_IDs or --since.")
    if until is not None and since is None:
        raise typer.BadParameter("--until goes with --since.")
    begin = _moment(since) if since is not None else None
    end = _moment(until) if until is not None else END

    async def work(connection: "Connection") -> Requeued:
        if begin is None:
            return await put_back(connection, file_ids or (), dry_run=dry_run, actor=operator())
        wanted = await sent_between(connection, begin, end)
        return await put_back(connection, wanted, begin, end, dry_run=dry_run, actor=operator())

    result = _ask(work)
    if as_json:
        typer.echo(_json({**asdict(result), "dry_run": dry_run}))
    elif result == Requeued():
        out.print("Nothing was sent in that time.")
    else:
        out.print(f"{result.requeued} events {'would be' if dry_run else 'were'} put back into the outbox.")
        if result.waiting:
            out.print(f"{result.waiting} wait there already.")
        if result.superseded:
            out.print(f"{result.superseded} are superseded by a newer revision of their file and were left alone.")
    if result.unknown:
        err.print(
            f"Of {result.unknown} files nothing is in the audit log. "
            "`artstore admin republish` announces those that exist."
        )
        raise typer.Exit(1)


def _ask(question: "Callable[[Connection], Awaitable[Answer]]") -> Answer:
    """One question to the Admin database.

    Raises:
        CliError: it does not answer, or has another shape.
    """

    async def ask() -> Answer:
        async with _connection() as connection:
            return await question(connection)

    return asyncio.run(ask())


@contextlib.asynccontextmanager
async def _connection() -> "AsyncIterator[Connection]":
    import asyncpg

    from cli.running import admin_database
    from runtime.postgres import AWAY, UrlError, checked, reason

    try:
        connection = await asyncpg.connect(checked(admin_database()), timeout=10)
    except (*AWAY, OSError, asyncpg.PostgresError, UrlError) as error:
        raise CliError(f"The Admin database does not answer: {reason(error)}") from error
    try:
        yield connection
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
        raise CliError("The Admin database has another shape. Run `artstore admin migrate`.") from error
    finally:
        await connection.close()


def _publishing(found: "OutboxStats") -> str:
    if found.relayed:
        return "on"
    return "held (EVENT_PUBLISH_ENABLED=false)" if found.held else "no relay runs"


def _age(one: "ShardBacklog") -> str:
    return f"{one.age:.1f} s" if one.waiting else "-"


def _lease(one: "ShardBacklog") -> str:
    if one.lease is None:
        return "free"
    return f"{one.lease:.0f} s" if one.lease > 0 else "run out"


def _offset(one: "AuditEntry") -> str:
    if one.record_offset is None:
        return "waiting"
    return str(one.record_offset) if one.record_offset >= 0 else "unknown"


def _moment(text: str) -> datetime:
    """A moment as typed; UTC unless it says otherwise."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no moment. Write it like 2026-01-13T10:00:00+03:00.") from error
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _json(value: Any) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False, indent=1)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
