"""Text that others wrote is shown, not obeyed: it moves no cursor, colours nothing and turns no line around.

Nor does what a driver says of its server give the password away that stands in the server's URL.
"""

import json
import re
from typing import Final

_PASSWORD: Final = re.compile(r"""(?<=://)([^\s/:@"']*):[^\s"']*@""")


def escaped(text: str, kept: str = "") -> str:
    """Text with an escape, as JSON has them, for all that is not plainly visible: controls, also of directions.

    Args:
        text: to which the escapes are legible, or JSON, which they do not change
        kept: characters that stay
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in kept else json.dumps(one)[1:-1] for one in text)


def masked(text: str) -> str:
    """Text without the passwords of URLs."""
    return _PASSWORD.sub(r"\1:***@", text) if "@" in text else text
