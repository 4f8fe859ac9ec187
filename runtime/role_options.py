"""How the verb `roles` of either service is told what to make: see `roles`."""

from pathlib import Path
from typing import Annotated

import typer

Logins = Annotated[
    list[str] | None, typer.Option("--login", metavar="ROLE=USER", help="Make this user too, a member of that role.")
]
Passwords = Annotated[
    Path | None,
    typer.Option(
        "--passwords",
        exists=True,
        file_okay=False,
        help="Has a file named like each user.",
        show_default="USER_PASSWORD",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the statements, run none.")]
