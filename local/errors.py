"""One base for what can go wrong on one machine. The message is one clear sentence that says what to do next."""


class LocalError(Exception):
    """A foreseen fault of the one-machine mode."""


class DownloadError(LocalError):
    """Something that has to be downloaded could not be."""


class PortInUseError(LocalError):
    """A port that is needed belongs to another process."""


class ProcessError(LocalError):
    """A child process did not start, or ended by itself."""


class AlreadyRunningError(LocalError):
    """The home belongs to a running stack."""
