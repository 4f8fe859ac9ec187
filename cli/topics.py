"""`artstore topics`: topics are what their cards say, or it is said how they differ."""

import asyncio
from typing import Annotated

import typer

topics = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Make topics from their cards; report differences."
)


@topics.command()
def ensure(
    replication_factor: Annotated[
        int | None, typer.Option(min=1, help="Copies of each partition. [default: 3, or all brokers if fewer]")
    ] = None,
) -> None:
    """Make the topic unless it exists. Exit code 1 when the broker's topic differs from its card."""
    from rich.console import Console

    from runtime.settings import KafkaSettings
    from runtime.topics import ensure_topic
    from schemas.topics import FILE_EVENTS, cards

    settings = KafkaSettings()
    result = asyncio.run(
        ensure_topic(
            settings.kafka_bootstrap_servers,
            cards()[FILE_EVENTS],
            name=settings.file_events_topic,
            replication_factor=replication_factor,
        )
    )
    console = Console(highlight=False)
    console.print(f"{result.name}: {'made' if result.created else 'exists'}")
    for one in result.drift:
        console.print(f"  [bold red]differs[/] {one.setting}: {one.found} on the broker, {one.expected} on the card")
        console.print(f"          {one.why}")
    if result.drift:
        raise typer.Exit(1)
