"""`artstore topics`: topics are what their cards say, or it is said how they differ."""

import asyncio
from typing import Annotated

import typer

topics = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Make topics from their cards; report differences."
)


User = Annotated[str | None, typer.Option(metavar="USER", help="As Kafka names it, without User:.")]


@topics.command()
def ensure(
    replication_factor: Annotated[
        int | None, typer.Option(min=1, help="Copies of each partition.", show_default="3, or all brokers if fewer")
    ] = None,
    *,
    acls: Annotated[
        bool, typer.Option("--acls", help="Let these users do what their processes need, no more.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the ACLs, as options of kafka-acls.sh.")
    ] = False,
    relay_user: User = None,
    projector_user: User = None,
    maintenance_user: User = None,
    query_api_user: User = None,
    group: Annotated[
        str, typer.Option(envvar="KAFKA_CONSUMER_GROUP", help="Of the projectors.")
    ] = "query-module-consumers",
) -> None:
    """Make the topics that do not exist. Exit code 1 when one on the broker differs from its card."""
    from pydantic import ValidationError
    from rich.console import Console

    from runtime.acls import Process, ensure_acls
    from runtime.acls import acls as acls_for
    from runtime.settings import KafkaSettings, say_refused
    from runtime.topics import ensure_topics

    try:
        settings = KafkaSettings()
    except ValidationError as error:
        say_refused(error)
        raise typer.Exit(2) from None
    given: dict[Process, str | None] = {
        "relay": relay_user,
        "projector": projector_user,
        "maintenance": maintenance_user,
        "query-api": query_api_user,
    }
    users = {process: user for process, user in given.items() if user}
    if acls != bool(users) or (dry_run and not acls):
        raise typer.BadParameter("--acls and at least one of --relay-user, --projector-user, … go together.")
    wanted = acls_for(users, settings.file_events_topic, group)
    console = Console(highlight=False, soft_wrap=True)
    if dry_run:
        for acl in wanted:
            console.print(acl.arguments, markup=False)
        return
    found = asyncio.run(
        ensure_topics(settings.brokers, settings.file_events_topic, replication_factor=replication_factor)
    )
    for topic in found:
        console.print(f"{topic.name}: {'made' if topic.created else 'exists'}")
        for one in topic.drift:
            console.print(
                f"  [bold red]differs[/] {one.setting}: {one.found} on the broker, {one.expected} on the card"
            )
            console.print(f"          {one.why}")
    for acl, is_made in ensure_acls(settings.brokers, wanted) if wanted else ():
        console.print(f"{acl.arguments}: {'made' if is_made else 'exists'}", markup=False)
    if any(topic.drift for topic in found):
        raise typer.Exit(1)
