"""`artstore search "words"`: the hits, best first."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal import out, plain_table, size

if TYPE_CHECKING:
    import httpx


def search(
    words: Annotated[str, typer.Argument(help="What the name, the description or the tags should say.")],
    limit: Annotated[int, typer.Option(min=1, max=200, help="Hits to show at most.")] = 20,
) -> None:
    """Find files."""
    import httpx

    from cli.running import running

    with httpx.Client(base_url=running().query_url, trust_env=False, timeout=30) as client:
        show_hits(words, find(client, words, limit))


def find(client: "httpx.Client", words: str, limit: int) -> dict[str, Any]:
    """Ask the Query API.

    Raises:
        CliError: it refused; the message is its own.
    """
    from cli.running import refusal

    answer = client.get("/api/v1/files/search", params={"query": words, "limit": limit})
    if answer.status_code != 200:
        raise refusal(answer)
    found: dict[str, Any] = answer.json()
    return found


def show_hits(words: str, found: dict[str, Any]) -> None:
    """Print one answer as a table."""
    from rich.text import Text

    total = found["total"]
    took = f" in {found['took_ms']} ms" if "took_ms" in found else ""
    out.print(Text.assemble(("Search ", ""), (words, "bold"), (f": {total} found{took}", "")))
    table = plain_table("NAME", "PATH", "SIZE", "TYPE", "CREATED")
    table.columns[2].justify = "right"
    for hit in found["results"]:
        table.add_row(
            Text(hit["original_filename"], style="cyan"),
            Text(hit.get("description") or ""),
            size(hit["file_size"]),
            Text(hit.get("mime_type") or ""),
            Text(str(hit["created_at"])[:19].replace("T", " ")),
        )
    if found["results"]:
        out.print(table)
