"""`artstore secrets make FOLDER`: what each process of one host keeps to itself, in a folder of its own.

Passwords and the issuer's key are made once and stay. What follows from them, URLs and the services' own tokens, is
written anew each time. A process is given its folder as SECRETS_DIR, and none of the others.
"""

import os
import secrets as random
import time
from pathlib import Path
from typing import Annotated, Final

import typer

secrets = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Passwords, keys and tokens for one host, made once."
)

SUPERUSER: Final = "postgres"
DATABASE_URLS: Final = {
    "roles": {"admin_database_url": SUPERUSER, "query_database_url": SUPERUSER},
    "admin-migrate": {"admin_database_url": "admin_migrate"},
    "admin": {"admin_database_url": "admin_write"},
    "query-migrate": {"query_database_url": "query_migrate"},
    "maintenance": {"query_database_url": "query_maintain"},
    "projector": {"query_database_url": "query_write"},
    "query-api": {"query_database_url": "query_write", "query_search_database_url": "query_read"},
}
"""By folder the settings that stand in it, and as whom each logs in."""
VERIFIERS: Final = ("admin", "query-api")
CALLERS: Final = ("query-api", "maintenance")
"""They ask the Admin API."""
CALLERS_SCOPES: Final = ("files:read", "sync:admin")
CALLERS_SECONDS: Final = 366 * 24 * 3600


@secrets.command()
def make(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", file_okay=False)],
    issuer: Annotated[str, typer.Option(metavar="TEXT", help="As AUTH_ISSUER says.")],
    audience: Annotated[str, typer.Option(metavar="TEXT", help="As AUTH_AUDIENCE says.")],
    database: Annotated[str, typer.Option(metavar="HOST:PORT", help="Of Postgres.")] = "postgres:5432",
    owner: Annotated[
        int | None, typer.Option(metavar="UID", help="User and group that everything is given to.", show_default=False)
    ] = None,
) -> None:
    """Make what is missing, and write anew what follows from it. Readable by owner and group alone."""
    from runtime.dev_tokens import make_key, mint

    users = {user for urls in DATABASE_URLS.values() for user in urls.values()} - {SUPERUSER}
    passwords = {user: _once(folder / "roles" / user) for user in sorted(users)}
    passwords[SUPERUSER] = _once(folder / "postgres" / "password")
    _once(folder / "grafana" / "password")
    for process, urls in DATABASE_URLS.items():
        for setting, user in urls.items():
            name = f"artstore_{setting.partition('_')[0]}"
            _write(folder / process / setting, f"postgresql://{user}:{passwords[user]}@{database}/{name}")
    make_key(folder / "issuer")
    public = (folder / "issuer" / "public.pem").read_text()
    for process in VERIFIERS:
        _write(folder / process / "issuer.pem", public)
    key = (folder / "issuer" / "key.pem").read_bytes()
    for process in CALLERS:
        token = mint(key, issuer, audience, process, CALLERS_SCOPES, time.time(), CALLERS_SECONDS)
        _write(folder / process / "token", token)
    _close(folder, owner)
    typer.echo(f"Everything is in {folder}.")


def _once(path: Path) -> str:
    """A password that is there already, or is made now."""
    if not path.exists():
        _write(path, random.token_urlsafe(24))
    return path.read_text()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "w") as file:  # noqa: PTH123 - has no mode
        file.write(text)
    fresh.replace(path)


def _close(folder: Path, owner: int | None) -> None:
    for path in folder.rglob("*"):
        path.chmod(0o750 if path.is_dir() else 0o640)
        if owner is not None:
            os.chown(path, owner, owner)
