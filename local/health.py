"""Whether a process is ready, asked where it answers, and if not, why not."""

import json
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

_SECONDS = 3.0


def unreadiness(url: str) -> str | None:
    """Ask a readiness URL.

    Returns:
        None when it answers 200, else the reason in a few words.
    """
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=_SECONDS)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, HTTPException):
        return "no answer"
    finally:
        connection.close()
    if answer.status == 200:
        return None
    try:
        reasons = json.loads(body)["reasons"]
        return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    except (ValueError, KeyError, AttributeError, TypeError):
        return f"HTTP {answer.status}"
