"""One process a verb: `python -m producer_admin api`, `relay`, `migrate` or `roles`."""

from pathlib import Path
from typing import Annotated

import typer

from runtime.role_options import DryRun, Logins, Passwords

verbs = typer.Typer(no_args_is_help=True, help="The Admin module: the truth about files, and its announcement.")


@verbs.command()
def api() -> None:
    """Serve the Admin REST API."""
    from producer_admin.api_process import run_api
    from producer_admin.settings import AdminApiSettings
    from runtime.process import run_to_exit

    run_to_exit("admin-api", AdminApiSettings, run_api)


@verbs.command()
def relay() -> None:
    """Move events from the outbox to the topic."""
    from producer_admin.relay_process import run_relay
    from producer_admin.settings import RelaySettings
    from runtime.process import run_to_exit

    run_to_exit("admin-relay", RelaySettings, run_relay)


@verbs.command()
def migrate() -> None:
    """Bring the Admin database to its newest shape. Safe to run twice, and twice at once."""
    from producer_admin.migrations import run_migrate
    from producer_admin.settings import AdminDatabaseSettings
    from runtime.process import run_to_exit

    run_to_exit("admin-migrate", AdminDatabaseSettings, run_migrate)


@verbs.command()
def roles(*, login: Logins = None, passwords: Passwords = None, dry_run: DryRun = False) -> None:
    """Make the roles that the processes need in Postgres, and grant each what it needs. Safe to run again.

    The database's URL is to be a superuser's, or that of its owner who can make roles. See docs/postgres-access.md.
    """
    from producer_admin.roles import ACCESS
    from producer_admin.settings import AdminDatabaseSettings
    from runtime.process import run_to_exit
    from runtime.roles import run_roles

    run_to_exit(
        "admin-roles",
        AdminDatabaseSettings,
        lambda settings: run_roles(
            settings.admin_database_url.get_secret_value(), ACCESS, login or [], passwords, typer.echo, dry_run=dry_run
        ),
    )


@verbs.command()
def backfill(
    *,
    source: Annotated[
        str, typer.Option("--from", metavar="URL", help="postgresql://… of the older system; only read.")
    ],
    mapping: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="TOML: which column is which field; see docs/backfill.md."),
    ] = None,
    storage_element: Annotated[
        str | None, typer.Option(metavar="ID", help="The registered storage element that holds all of these files.")
    ] = None,
    table: Annotated[str | None, typer.Option(help="The older system's table.", show_default="file_metadata")] = None,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Rows in one transaction.")] = 1_000,
    outbox_limit: Annotated[
        int, typer.Option(min=0, help="Wait for the relay while more events than this are unsent; 0 never waits.")
    ] = 50_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check all rows, write nothing.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Look at all rows again; known files stay.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Totals as JSON on standard output.")] = False,
) -> None:
    """Take over the files of an older system's table, and announce each once. Goes on where it was stopped."""
    from producer_admin.backfill import Options
    from producer_admin.backfill_process import run_backfill

    options = Options(batch=batch, outbox_limit=outbox_limit, restart=restart, dry_run=dry_run)
    raise typer.Exit(run_backfill(source, mapping, table, storage_element, options, as_json=as_json))


@verbs.command()
def republish(
    *,
    everything: Annotated[bool, typer.Option("--all", help="All files, deleted ones too.")] = False,
    ids: Annotated[str | None, typer.Option(metavar="ID,…", help="These files.")] = None,
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The files whose ids are in this text file.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="MOMENT", help="Files changed at this moment or later: ISO 8601, or UTC.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="ID", help="Only ids behind this one: where a run stopped.")
    ] = None,
    at_least: Annotated[
        int, typer.Option(min=0, max=2**53, help="Raise revisions above this one too, which some consumer has seen.")
    ] = 0,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Files in one transaction.")] = 500,
    outbox_limit: Annotated[
        int, typer.Option(min=0, help="Wait for the relay while more events than this are unsent; 0 never waits.")
    ] = 50_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Totals as JSON on standard output.")] = False,
) -> None:
    """Announce the state of files again under raised revisions, so that consumers are mended. Deleted files too."""
    from uuid import UUID

    from producer_admin.republish import Options
    from producer_admin.republish_process import read_ids, read_ids_of, read_moment, run_republish

    if sum((everything, ids is not None, file is not None, since is not None)) != 1:
        raise typer.BadParameter("Say one of --all, --ids, --file and --since.")
    try:
        wanted = read_ids(ids) if ids is not None else read_ids_of(file) if file else since and read_moment(since)
        place = UUID(after) if after else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    options = Options(at_least=at_least, batch=batch, outbox_limit=outbox_limit, dry_run=dry_run)
    raise typer.Exit(run_republish(wanted or None, place, options, as_json=as_json))


@verbs.command()
def scrub(
    *,
    element: Annotated[
        str | None,
        typer.Option(metavar="ID", help="This storage element alone.", show_default="all that are not offline"),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every object and compare its SHA-256.")] = False,
    reclaim: Annotated[
        bool, typer.Option("--reclaim", help="Remove what nothing refers to. Not after the database was restored.")
    ] = False,
    grace_hours: Annotated[
        float, typer.Option(min=0, max=24 * 365, help="Younger objects are left alone: their saga may be under way.")
    ] = 24,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line on standard output.")] = False,
) -> None:
    """Compare the files table with what the storage elements hold. Exit code 1 when they differ."""
    from datetime import timedelta

    from producer_admin.scrub import Options
    from producer_admin.scrub_process import run_scrub

    options = Options(verify=verify, reclaim=reclaim, grace=timedelta(hours=grace_hours))
    raise typer.Exit(run_scrub(element, options, as_json=as_json))


if __name__ == "__main__":
    verbs()
