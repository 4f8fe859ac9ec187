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
    """Make the topics that do not exist. Exit code 1 when one on the broker differs from its card."""
    from rich.console import Console

    from runtime.settings import KafkaSettings
    from runtime.topics import ensure_topics

    settings = KafkaSettings()
    found = asyncio.run(
        ensure_topics(
            settings.kafka_bootstrap_servers, settings.file_events_topic, replication_factor=replication_factor
        )
    )
    console = Console(highlight=False)
    for topic in found:
        console.print(f"{topic.name}: {'made' if topic.created else 'exists'}")
        for one in topic.drift:
            console.print(
                f"  [bold red]differs[/] {one.setting}: {one.found} on the broker, {one.expected} on the card"
            )
            console.print(f"          {one.why}")
    if any(topic.drift for topic in found):
        raise typer.Exit(1)
