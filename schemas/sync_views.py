"""What the Query module asks the Admin module to compare by, and what that answers, as JSON.

Digests are decimal text: a number in JSON need not be exact beyond 2**53.
"""

from itertools import pairwise
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.digests import MOST_CUTS, MOST_FILES, MOST_RANGES, Range, Span, Sum

_Digest = Annotated[str, Field(pattern=r"^-?[0-9]{1,40}$")]


class RangeView(BaseModel):
    """File ids from `first` to `last`, both included."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: UUID
    last: UUID

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.first > self.last:
            raise ValueError("first is greater than last")
        return self

    def range(self) -> Range:
        """As a value."""
        return Range(self.first, self.last)


class SpanView(RangeView):
    """A range and where to cut it."""

    cuts: list[UUID] = Field(default=[], max_length=MOST_CUTS, description="The first id of each piece but the first.")

    @model_validator(mode="after")
    def _cuts_rise(self) -> Self:
        rising = all(one < other for one, other in zip([self.first, *self.cuts], self.cuts, strict=False))
        if not rising or (self.cuts and self.cuts[-1] > self.last):
            raise ValueError("cuts have to rise, behind first and not beyond last")
        return self

    def span(self) -> Span:
        """As a value."""
        return Span(self.range(), tuple(self.cuts))

    @classmethod
    def of(cls, span: Span) -> Self:
        """A span as it is asked about."""
        return cls(first=span.range.first, last=span.range.last, cuts=list(span.cuts))


class DigestsAsked(BaseModel):
    """Ranges whose pieces are to be summed up."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spans: list[SpanView] = Field(min_length=1, max_length=MOST_RANGES)

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if sum(len(span.cuts) for span in self.spans) > MOST_CUTS:
            raise ValueError(f"more than {MOST_CUTS} cuts in all")
        return self


class SumView(BaseModel):
    """What the files of a piece come to."""

    files: int
    digest: _Digest

    def sum(self) -> Sum:
        """As a value."""
        return Sum(self.files, int(self.digest))

    @classmethod
    def of(cls, found: Sum) -> Self:
        """A sum as it is answered."""
        return cls(files=found.files, digest=str(found.digest))


class DigestsAnswer(BaseModel):
    """The sums of each span, piece by piece."""

    probe: _Digest = Field(description="Digest of a constant row. Digests of a server with another one say nothing.")
    spans: list[list[SumView]]


class FilesAsked(BaseModel):
    """Which files to tell of: those that exist in ranges, or any by their ids."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ranges: list[RangeView] | None = Field(
        None, min_length=1, max_length=MOST_RANGES, description="In order, none meeting another."
    )
    file_ids: list[UUID] | None = Field(None, min_length=1, max_length=MOST_FILES)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.ranges is None) == (self.file_ids is None):
            raise ValueError("give either ranges or file_ids")
        ranges = self.ranges or []
        if any(one.last >= other.first for one, other in pairwise(ranges)):
            raise ValueError("ranges have to rise, none meeting another")
        return self


class SyncFile(BaseModel):
    """A file as the truth has it."""

    file_id: UUID
    revision: int | None = Field(description="null when there never was such a file, as far as is known.")
    deleted: bool
    digest: _Digest | None = Field(description="Of its state; null unless it exists.")
    waiting: bool = Field(description="An event of it is in the outbox: it may not be on the topic yet.")
    partition: int = Field(description="Of the topic, where its events are.")


class FilesAnswer(BaseModel):
    """The files, by id."""

    probe: _Digest
    files: list[SyncFile]
    upto: UUID | None = Field(
        None, description="Files of the ranges below this id are told of; the rest is for the next call. null: all."
    )
