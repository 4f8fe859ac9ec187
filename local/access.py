"""`artstore up --auth`: the APIs want tokens, as a team's do, and the key to make them lies in the stack's home."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from local.state import Home
from runtime.dev_tokens import KEY, PUBLIC, SCOPES, make_key, mint

ISSUER: Final = "urn:artstore:this-machine"
AUDIENCE: Final = "artstore"
SERVICE: Final = "query-module"
SERVICE_SECONDS: Final = 365 * 24 * 3600.0
"""Made anew at each start; whoever can read it can read the key as well."""
PERSON_SECONDS: Final = 300.0
_TOKEN: Final = "service.token"  # noqa: S105 - the name of a file


def environment(home: Home) -> Mapping[str, str]:
    """What guarded processes find in their environment, besides the rest."""
    return {
        "AUTH_MODE": "jwt",
        "AUTH_ISSUER": ISSUER,
        "AUTH_AUDIENCE": AUDIENCE,
        "AUTH_KEY_FILE": str(_folder(home) / PUBLIC),
        "AUTH_TOKEN_FILE": str(_folder(home) / _TOKEN),
    }


def prepare(home: Home) -> None:
    """Make the key, once, and the Query module's own token."""
    make_key(_folder(home))
    token = token_of(home, SERVICE, ("files:read", "sync:admin"), SERVICE_SECONDS)
    path = _folder(home) / _TOKEN
    path.touch(0o600)
    path.write_text(token)


def token_of(home: Home, subject: str, scopes: Sequence[str] = SCOPES, seconds: float = PERSON_SECONDS) -> str:
    """A token for the stack of this home."""
    key = (_folder(home) / KEY).read_bytes()
    return mint(key, ISSUER, AUDIENCE, subject, scopes, time.time(), seconds)


def _folder(home: Home) -> Path:
    return home.folder / "auth"
