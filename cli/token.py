"""`artstore token`: a token for development on standard output, and nothing else there."""

import re
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cli.access import me, own_token
from cli.errors import CliError
from cli.terminal import err

_LIFETIME: Final = re.compile(r"([0-9]{1,6}) *([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _lifetime(text: str) -> int:
    """Seconds."""
    match = _LIFETIME.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise typer.BadParameter(f"{text!r} is not a time such as 30s, 15m, 8h or 30d.")
    return int(match[1]) * _SECONDS[match[2]]


def _text(option: str, what: str) -> Any:
    return typer.Option(option, metavar="TEXT", help=what, show_default=False)


def token(
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="KEY.pem",
            exists=True,
            dir_okay=False,
            help="That signs it. Default: the running stack's.",
            show_default=False,
        ),
    ] = None,
    issuer: Annotated[str | None, _text("--issuer", "As AUTH_ISSUER says.")] = None,
    audience: Annotated[str | None, _text("--audience", "As AUTH_AUDIENCE says.")] = None,
    scopes: Annotated[
        list[str] | None, _text("--scope", "Repeat. Default: files:read, files:write and sync:admin.")
    ] = None,
    subject: Annotated[str | None, _text("--subject", "Whom it speaks for. Default: you.")] = None,
    lifetime: Annotated[int, typer.Option(parser=_lifetime, metavar="TIME", help="30s, 15m, 8h, 30d.")] = "8h",  # type: ignore[assignment]
    folder: Annotated[
        Path | None,
        typer.Option(
            "--make-key",
            metavar="FOLDER",
            file_okay=False,
            help="Make key.pem there, and public.pem for AUTH_KEY_FILE, unless they are there already; and no token.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make a token for development: for the stack of `artstore up --auth`, or for any whose key you have."""
    if folder is not None:
        _make_key(folder)
        return
    from runtime.dev_tokens import SCOPES, mint

    wanted = tuple(scopes or SCOPES)
    try:
        if key is None:
            typer.echo(_for_the_running_stack(issuer or audience, subject or me(), wanted, lifetime))
            return
        if issuer is None or audience is None:
            raise typer.BadParameter("A token by a key of yours needs --issuer and --audience.")
        typer.echo(mint(key.read_bytes(), issuer, audience, subject or me(), wanted, time.time(), lifetime))
    except ValueError as error:
        raise CliError(f"The key cannot be used: {error}.") from error


def _make_key(folder: Path) -> None:
    from runtime.dev_tokens import make_key

    try:
        made = make_key(folder)
    except OSError as error:
        raise CliError(f"{folder} cannot be written: {error.strerror}.") from error
    err.print(f"{'Made a key' if made else 'There is a key already'} in {folder}.", markup=False)


def _for_the_running_stack(named: str | None, subject: str, scopes: tuple[str, ...], lifetime: int) -> str:
    from cli.running import running

    if named is not None:
        raise typer.BadParameter("--issuer and --audience go with --key.")
    if not running().guarded:
        raise CliError("The running stack needs no token. To try some, start it with ./artstore up --auth.")
    return own_token(subject=subject, scopes=scopes, seconds=lifetime)
