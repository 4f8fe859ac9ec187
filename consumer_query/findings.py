"""What a comparison with the Admin module found and did: kept as JSON in its report, and answered as it is kept."""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final
from uuid import UUID

from pydantic import BaseModel, Field

from consumer_query.confirm import Difference
from consumer_query.reconcile import Class

EXAMPLES: Final = 10
"""Of each class."""
MOST_LEFT: Final = 1_000
"""Files whose repair was in vain that are remembered by name."""


class Outcome(StrEnum):
    """How a comparison ended."""

    EQUAL = "equal"
    REPAIRED = "repaired"
    """There were differences, and none is left."""
    DIFFERENT = "different"
    """Some are left."""
    UNCONFIRMED = "unconfirmed"
    """None is known to be left, but of some files that could not be told."""
    FAILED = "failed"


class Example(BaseModel):
    """A file that was wrong."""

    file_id: UUID
    query_revision: int | None = Field(description="Of the side that was compared; null when it has no such file.")
    query_deleted: bool
    admin_revision: int | None = Field(description="null when Admin knows no such file.")
    admin_deleted: bool


class Doubt(BaseModel):
    """A file of which it could not be told whether it is wrong."""

    file_id: UUID
    why: str


class Findings(BaseModel):
    """All of it. Counts are of files."""

    query_files: int = Field(0, description="On the side that was compared: cache or topic.")
    admin_files: int = 0
    compared_in_seconds: float = Field(0.0, description="Until the files that differ at the moment were known.")
    requests: int = Field(0, description="To the Admin module, for that.")
    candidates: int = Field(0, description="That differed at the moment; most are changes on their way.")
    complete: bool = Field(default=True, description="false: there are more than were looked at in one run.")
    found: dict[Class, int] = Field(default={}, description="Differences that stayed, by class.")
    examples: dict[Class, list[Example]] = {}
    asked: int = Field(0, description="Files that the Admin module was asked to announce anew.")
    left: dict[Class, int] = Field(default={}, description="Differences when all was done, by class.")
    left_examples: dict[Class, list[Example]] = {}
    unconfirmed: int = Field(0, description="Files of which it could not be told.")
    unconfirmed_examples: list[Doubt] = []
    unreadable: int = Field(0, description="Records of the topic that nobody can apply; the state before them stands.")
    held_back: str | None = Field(None, description="Why some differences were not repaired.")
    in_vain: dict[UUID, int] = Field(
        default={}, description="Files whose repair changed nothing, and their Admin revision."
    )

    def note_found(self, differences: Mapping[UUID, Difference]) -> None:
        """Note what differs; unless more is done about it, that is what is left."""
        self.found, self.examples = _told(differences)
        self.left, self.left_examples = self.found, self.examples

    def note_left(self, differences: Mapping[UUID, Difference]) -> None:
        """Note what still differs when all is done."""
        self.left, self.left_examples = _told(differences)

    def note_unconfirmed(self, doubts: Mapping[UUID, str]) -> None:
        """Note what could not be told."""
        self.unconfirmed += len(doubts)
        more = [Doubt(file_id=one, why=why) for one, why in sorted(doubts.items())]
        self.unconfirmed_examples = [*self.unconfirmed_examples, *more][:EXAMPLES]

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        if sum(self.left.values()) or not self.complete:
            return Outcome.DIFFERENT
        if self.unconfirmed:
            return Outcome.UNCONFIRMED
        return Outcome.REPAIRED if self.found else Outcome.EQUAL


def _told(differences: Mapping[UUID, Difference]) -> tuple[dict[Class, int], dict[Class, list[Example]]]:
    counts = Counter(one.kind for one in differences.values())
    examples = {kind: list(_examples(differences, kind)) for kind in Class if counts[kind]}
    return {kind: counts[kind] for kind in Class if counts[kind]}, examples


def _examples(differences: Mapping[UUID, Difference], kind: Class) -> Iterable[Example]:
    of_that_kind = [(file_id, one) for file_id, one in sorted(differences.items()) if one.kind is kind]
    for file_id, one in of_that_kind[:EXAMPLES]:
        yield Example(
            file_id=file_id,
            query_revision=None if one.ours is None else one.ours.revision,
            query_deleted=one.ours is not None and one.ours.digest is None,
            admin_revision=one.truth.revision,
            admin_deleted=one.truth.revision is not None and one.truth.digest is None,
        )
