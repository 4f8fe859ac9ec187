"""The stack that runs in this home, and its answers in words."""

from typing import TYPE_CHECKING

from cli.errors import CliError, NotRunningError

if TYPE_CHECKING:
    import httpx

    from local.state import Run


def running() -> "Run":
    """The stack of this home.

    Raises:
        NotRunningError: there is none that is healthy.
    """
    run = running_or_none()
    if run is None:
        raise NotRunningError
    return run


def running_or_none() -> "Run | None":
    """The stack of this home, once it is healthy. Where the one-machine mode is not installed there is none."""
    from importlib.util import find_spec

    if find_spec("local") is None or find_spec("psutil") is None:
        return None
    from local.settings import StackSettings
    from local.state import Home

    run = Home(StackSettings.read().artstore_home).running()
    return run if run is not None and run.healthy else None


def admin_database() -> str:
    """URL of the Admin database: ADMIN_DATABASE_URL, or else the running stack's.

    Raises:
        NotRunningError: it is not set, and no stack runs here.
    """
    from pydantic import SecretStr

    from runtime.settings import Settings

    class Database(Settings):
        admin_database_url: SecretStr | None = None

    if (url := Database().admin_database_url) is not None:
        return url.get_secret_value()
    [postgres] = [one for one in running().processes if one.name == "postgres"]
    return f"{postgres.url}artstore_admin"


def refusal(answer: "httpx.Response") -> CliError:
    """The error that an API's problem+json answer stands for."""
    return CliError(f"{answer.request.url.path} answered {answer.status_code}: {reason(answer)}")


def reason(answer: "httpx.Response") -> str:
    """What a problem+json answer says went wrong."""
    try:
        problem = answer.json()
        return str(problem.get("detail") or problem.get("title") or answer.reason_phrase)
    except ValueError:
        return answer.reason_phrase
