"""The operators' routes of the Query API: who asks is told with each call, and a refusal is the API's own sentence."""

from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    import httpx

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Url = Annotated[str | None, typer.Option(metavar="URL", help="Of the Query API.", show_default="the running stack's")]

TIMEOUT_SECONDS: Final = 300
"""A redrive reads all letters from its cursor on, and each may ask the Admin API."""


def query_client(url: str | None, actor: str | None = None) -> "httpx.Client":
    """A client of the Query API at `url`, or of the running stack's.

    Raises:
        NotRunningError: no URL, and no stack runs here.
    """
    import httpx

    from cli.access import me, shown
    from cli.running import running

    return httpx.Client(
        base_url=url or running().query_url,
        trust_env=False,
        timeout=TIMEOUT_SECONDS,
        headers={"X-Actor": quote(actor or me(), safe=" ")},
        auth=shown(here=url is None),
    )


def body_of(answer: "httpx.Response") -> dict[str, Any]:
    """The body of an answer.

    Raises:
        CliError: it is a refusal; the message is the API's own.
    """
    from cli.running import refusal

    if not answer.is_success:
        raise refusal(answer)
    body: dict[str, Any] = answer.json()
    return body
