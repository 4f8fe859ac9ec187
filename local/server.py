"""What a broker and a database have in common: either it answers when `start` returns, or nothing of it runs."""

from abc import ABC, abstractmethod
from typing import Self

from local.process import Child


class Server(ABC):
    """A server whose data survive a restart. A context manager: started on entry, stopped on exit."""

    def __init__(self) -> None:
        self.child: Child | None = None

    @abstractmethod
    def launch(self) -> Child:
        """Begin to start; the server does not answer yet.

        Raises:
            LocalError: what it needs is neither there nor to be had.
        """

    @abstractmethod
    def wait_ready(self, child: Child) -> None:
        """Wait until the launched server answers.

        Raises:
            ProcessError: it ended, or did not answer in time.
        """

    @abstractmethod
    def stop(self) -> None:
        """Ask it to end in order, and wait. Does nothing when it does not run."""

    def start(self) -> None:
        """Launch it and wait until it answers.

        Raises:
            LocalError: it could not be launched, ended, or did not answer in time.
        """
        child = self.launch()
        try:
            self.wait_ready(child)
        except BaseException:
            child.kill()
            raise

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self.child is not None:
            self.child.kill()
            self.child = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
