"""What a verb shows to the APIs: the token in ARTSTORE_TOKEN, or one of its own for the stack that runs here."""

import getpass
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    import httpx

VARIABLE: Final = "ARTSTORE_TOKEN"

Shown: TypeAlias = Callable[["httpx.Request"], "httpx.Request"]


def shown(*, here: bool = True) -> "Shown | None":
    """What a client of httpx shows, its `auth`; None when there is nothing to show.

    Args:
        here: whether the stack that runs here is asked, which trusts whoever can read its key
    """
    if token := os.environ.get(VARIABLE):
        return _bearer(lambda: token)
    from cli.running import running_or_none

    run = running_or_none() if here else None
    if run is None or not run.guarded:
        return None
    # Anew for each request: some verbs watch for hours.
    return _bearer(own_token)


def own_token(**wanted: Any) -> str:
    """A token for the stack that runs here, of whoever runs this program with all scopes, but for what is wanted."""
    from local.access import token_of
    from local.settings import StackSettings
    from local.state import Home

    return token_of(Home(StackSettings.read().artstore_home), **{"subject": me()} | wanted)


def me() -> str:
    """Who runs this program, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "artstore"


def _bearer(token: Callable[[], str]) -> "Shown":
    def show(request: "httpx.Request") -> "httpx.Request":
        request.headers["Authorization"] = f"Bearer {token()}"
        return request

    return show
