"""Of all records of a file, the one with the greatest revision is its state. Values in, values out; no I/O."""

from typing import Any, Generic, NamedTuple, Protocol, TypeVar


class Revised(Protocol):
    """A file at a revision."""

    @property
    def file_id(self) -> str:
        """Canonical text: RFC 9562, lower case with hyphens."""

    @property
    def revision(self) -> int:
        """1 or more; the greatest is the newest."""


State = TypeVar("State", bound=Revised)
Origin = TypeVar("Origin")


class FileState(NamedTuple):
    """What a file is at a revision, as `records` has checked it."""

    file_id: str
    """Canonical text: RFC 9562, lower case with hyphens."""
    revision: int
    columns: dict[str, Any]
    """Of the cache, by name, times in microseconds since 1970; when the file is deleted only these three:
    file_id, revision, deleted."""
    event_type: str
    """What happened, as it reads at the edges; `tombstone` for a null record."""

    @property
    def deleted(self) -> bool:
        """Whether the file is gone."""
        return bool(self.columns["deleted"])


class Fold(Generic[State, Origin]):
    """The newest state of each file in a batch; when that one is refused, the next newest takes its place."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[State, Origin]] = {}
        self._rest: dict[str, list[tuple[State, Origin]]] = {}

    def offer(self, state: State, origin: Origin) -> None:
        """Take a state in, and where it came from."""
        known = self._newest.get(state.file_id)
        if known is None:
            self._newest[state.file_id] = state, origin
        elif state.revision > known[0].revision:
            self._newest[state.file_id] = state, origin
            self._rest.setdefault(state.file_id, []).append(known)
        else:
            self._rest.setdefault(state.file_id, []).append((state, origin))

    def newest(self) -> list[State]:
        """The newest state of each file, by file id.

        The order is the same for every projector, so that two that write the same rows cannot deadlock.
        """
        return [self._newest[file_id][0] for file_id in sorted(self._newest)]

    def refuse(self, file_id: str) -> tuple[list[Origin], State | None]:
        """Leave out the newest state of a file that was offered.

        Returns:
            Where that revision came from, repeats included, and what is the file's newest state now, if any.
        """
        known, origin = self._newest.pop(file_id)
        origins, older = [origin], []
        for one in self._rest.pop(file_id, ()):
            if one[0].revision == known.revision:
                origins.append(one[1])
            else:
                older.append(one)
        for one_state, one_origin in older:
            self.offer(one_state, one_origin)
        following = self._newest.get(file_id)
        return origins, following and following[0]
