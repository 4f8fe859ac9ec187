"""One base for what a verb cannot do. The message is one sentence that says what to do next."""

from typing import ClassVar


class CliError(Exception):
    """A foreseen fault of a verb."""

    exit_code: ClassVar[int] = 1


class NotRunningError(CliError):
    """The verb needs a running stack."""

    def __init__(self) -> None:
        super().__init__("ArtStore is not running here. Start it with ./artstore up.")
