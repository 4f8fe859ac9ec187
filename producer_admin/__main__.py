"""One process a verb: `python -m producer_admin api`, `relay` or `migrate`."""

import typer

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


if __name__ == "__main__":
    verbs()
