"""One process a verb: `python -m consumer_query api`, `projector`, `maintenance`, `migrate` or `roles`."""

import typer

from runtime.role_options import DryRun, Logins, Passwords

verbs = typer.Typer(no_args_is_help=True, help="The Query module: search, and the cache behind it.")


@verbs.command()
def api() -> None:
    """Serve the Query REST API."""
    from consumer_query.api_process import run_api
    from consumer_query.settings import QueryApiSettings
    from runtime.process import run_to_exit

    run_to_exit("query-api", QueryApiSettings, run_api)


@verbs.command()
def projector() -> None:
    """Apply the topic to the cache."""
    from consumer_query.projector_process import run_projector
    from consumer_query.settings import ProjectorSettings
    from runtime.process import run_to_exit

    run_to_exit("query-projector", ProjectorSettings, run_projector)


@verbs.command()
def maintenance() -> None:
    """Rebuild the cache when asked to, and compare it with the Admin module."""
    from consumer_query.maintenance_process import run_maintenance
    from consumer_query.settings import MaintenanceSettings
    from runtime.process import run_to_exit

    run_to_exit("query-maintenance", MaintenanceSettings, run_maintenance)


@verbs.command()
def migrate() -> None:
    """Bring the Query database and its cache to its newest shape. Safe to run twice, and twice at once."""
    from consumer_query.migrations import run_migrate
    from consumer_query.settings import QueryDatabaseSettings
    from runtime.process import run_to_exit

    run_to_exit("query-migrate", QueryDatabaseSettings, run_migrate)


@verbs.command()
def roles(*, login: Logins = None, passwords: Passwords = None, dry_run: DryRun = False) -> None:
    """Make the roles that the processes need in Postgres, and grant each what it needs. Safe to run again.

    The database's URL is to be a superuser's, or that of its owner who can make roles. See docs/postgres-access.md.
    """
    from consumer_query.roles import ACCESS
    from consumer_query.settings import QueryDatabaseSettings
    from runtime.process import run_to_exit
    from runtime.roles import run_roles

    run_to_exit(
        "query-roles",
        QueryDatabaseSettings,
        lambda settings: run_roles(
            settings.query_database_url.get_secret_value(), ACCESS, login or [], passwords, typer.echo, dry_run=dry_run
        ),
    )


if __name__ == "__main__":
    verbs()
