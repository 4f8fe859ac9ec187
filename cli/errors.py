"""One base for what a verb cannot do. The message is one sentence that says what to do next."""


class CliError(Exception):
    """A foreseen fault of a verb."""


class NotRunningError(CliError):
    """The verb needs a running stack."""

    def __init__(self) -> None:
        super().__init__("ArtStore is not running here. Start it with ./artstore up.")
