"""Dead letters over REST: what was put aside and why, in groups and one by one, and what to do about it.

A call does a bounded piece of work and says what is left and where to go on, so a client may stop between any two.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

from consumer_query.dead_letter_log import Brief, DeadLetterLog, Group, Listed, Selection, told
from consumer_query.errors import DeadLettersNotSetUpError, RefusedRequestError
from consumer_query.redrive import Done, Order, Redrive
from consumer_query.resolutions import Action, Status
from runtime.auth import Guarded, Scope, needs
from runtime.errors import FieldError
from runtime.http import PROBLEM_RESPONSE, ActorHeader, header_text

MAX_LIMIT: Final = 500
ANONYMOUS: Final = "anonymous"
LONGEST_ACTOR: Final = 100
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {422: PROBLEM_RESPONSE, 503: PROBLEM_RESPONSE}

Cursor = Annotated[int, Query(ge=0, description="next_cursor of a page.")]


@dataclass(frozen=True)
class Desk:
    """What the routes work with."""

    log: DeadLetterLog
    redrive: Redrive


class LetterView(BaseModel):
    """A dead letter in a list."""

    model_config = ConfigDict(from_attributes=True)

    position: str = Field(description="topic/partition/offset of the record that could not be applied.")
    reason: str
    error: str = Field(description="Class and message of the exception.")
    at: datetime = Field(description="When it was put aside.")
    size: int = Field(description="Of the record's value, in bytes.")
    status: Status
    attempts: int = Field(description="Redrives that failed.")
    file_id: UUID | None = Field(description="As far as it can be told, like the next two.")
    revision: int | None
    name: str | None


class GroupView(BaseModel):
    """Letters that failed alike."""

    model_config = ConfigDict(from_attributes=True)

    reason: str
    error: str = Field(description="Class of the exception.")
    open: int
    resolved: int
    first_at: datetime
    last_at: datetime
    examples: list[LetterView]


class Groups(BaseModel):
    """All dead letters, counted."""

    open: int
    resolved: int
    groups: list[GroupView]


class LetterPage(BaseModel):
    """Some letters in the order in which they were put aside; next_cursor is null behind the last."""

    letters: list[LetterView]
    next_cursor: int | None


class HeaderView(BaseModel):
    """One header of the source record."""

    name: str
    value: str | None = Field(description="As text; bytes that are none are escaped.")


class LetterDetail(LetterView):
    """A dead letter whole."""

    group: str = Field(description="The consumer group that could not apply it.")
    attempt: int = Field(description="Tries before it was put aside.")
    timestamp_ms: int = Field(description="Of the source record, since 1970; -1 when it has none.")
    key: str | None
    headers: list[HeaderView]
    value_base64: str | None
    record: dict[str, Any] | None = Field(description="The event as it is in Avro, where it can be decoded.")
    history: list[Action]


class Which(BaseModel):
    """Which letters: all that are open, or those that agree with everything that is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    all: bool = False
    reason: str | None = None
    error: str | None = Field(None, description="Class of the exception.")
    position: str | None = Field(None, description="topic/partition/offset of the source record.")
    cursor: int = Field(0, ge=0, description="next_cursor of the call before.")
    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="Letters in this call at most.")
    dry_run: bool = Field(default=False, description="Say what would become of them, and change nothing.")

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        named = any(one is not None for one in (self.reason, self.error, self.position))
        if named == self.all:
            raise ValueError("give either all or some of reason, error and position")
        return self

    def order(self, actor: str, **more: Any) -> Order:
        """As an order."""
        selection = Selection(self.reason, self.error, self.position)
        return Order(selection, actor, begin=self.cursor, limit=self.limit, dry_run=self.dry_run, **more)


class RedriveRequest(Which):
    """Letters to be tried again."""

    how: Literal["apply", "republish"] = Field(
        "apply", description="Apply the record as it is, or ask the Admin module to announce the file anew."
    )
    force: bool = Field(default=False, description="Also letters whose redrive failed five times.")


class DropRequest(Which):
    """Letters that are not worth another try."""

    note: str = Field("", max_length=1_000, description="Why, for the audit log.")


class LetterOutcome(BaseModel):
    """What became of one letter."""

    letter: LetterView = Field(description="As it was before.")
    outcome: Status
    note: str


class ActionAnswer(BaseModel):
    """What one call did."""

    outcomes: dict[Status, int]
    letters: list[LetterOutcome]
    left: int = Field(description="Letters meant that this call did not come to; go on with next_cursor.")
    exhausted: int = Field(description="Letters whose redrive failed too often, left alone unless forced.")
    next_cursor: int | None
    dry_run: bool


async def _actor(
    x_actor: ActorHeader = None,
) -> str:
    if x_actor is None:
        return ANONYMOUS
    try:
        actor = header_text(x_actor).strip()
    except UnicodeError:
        actor = ""
    if not actor.isprintable() or not 1 <= len(actor) <= LONGEST_ACTOR:
        problem = FieldError("X-Actor", f"not 1 to {LONGEST_ACTOR} printable characters in UTF-8")
        raise RefusedRequestError("X-Actor cannot be read.", (problem,))
    return actor


Actor = Annotated[str, Depends(_actor)]


def dead_letters_router(desk: Desk | None) -> APIRouter:
    """Routes under /api/v1/admin/dlq; without a desk each says what to set."""
    router = APIRouter(prefix="/api/v1/admin/dlq", tags=["dead letters"], route_class=Guarded)

    def manned() -> Desk:
        if desk is None:
            raise DeadLettersNotSetUpError(
                "Set KAFKA_BOOTSTRAP_SERVERS: the Query API was not told where the dead letters are."
            )
        return desk

    @router.get("", responses=_PROBLEMS)
    @needs(Scope.SYNC)
    async def groups() -> Groups:
        """Dead letters by reason and class of exception, with examples."""
        found = await manned().log.groups()
        return Groups(
            open=sum(one.open for one in found),
            resolved=sum(one.resolved for one in found),
            groups=[_group(one) for one in found],
        )

    @router.get("/letters", responses=_PROBLEMS)
    @needs(Scope.SYNC)
    async def letters(
        reason: str | None = None,
        error: Annotated[str | None, Query(description="Class of the exception.")] = None,
        status: Annotated[list[Status] | None, Query(description="Any of these; repeat the parameter.")] = None,
        cursor: Cursor = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
    ) -> LetterPage:
        """Dead letters one by one, in the order in which they were put aside."""
        page = await manned().log.page(Selection(reason, error, None, frozenset(status or Status)), cursor, limit)
        return LetterPage(letters=_views(page.letters), next_cursor=page.next_cursor)

    @router.get("/letters/{topic}/{partition}/{offset}", responses=_PROBLEMS | {404: PROBLEM_RESPONSE})
    @needs(Scope.SYNC)
    async def letter(topic: str, partition: int, offset: int) -> LetterDetail:
        """One dead letter with its record, byte for byte, and all that was done about it."""
        return _detail(await manned().log.get(f"{topic}/{partition}/{offset}"))

    @router.post("/redrive", responses=_PROBLEMS)
    @needs(Scope.SYNC)
    async def redrive(wanted: RedriveRequest, actor: Actor) -> ActionAnswer:
        """Try letters again through the same fence, or have their files announced anew.

        What the cache holds in that revision or a newer one is marked as superseded. 503 when something is away: what
        was done before that is marked, and the same call goes on from there.
        """
        order = wanted.order(actor, force=wanted.force)
        station = manned().redrive
        done = await (station.redrive(order) if wanted.how == "apply" else station.republish(order))
        return _answer(done, order)

    @router.post("/drop", responses=_PROBLEMS)
    @needs(Scope.SYNC)
    async def drop(wanted: DropRequest, actor: Actor) -> ActionAnswer:
        """Mark letters as not worth another try. They stay on the topic."""
        order = wanted.order(actor, note=wanted.note)
        return _answer(await manned().redrive.drop(order), order)

    return router


def _views(letters: Sequence[Brief]) -> list[LetterView]:
    return [LetterView.model_validate(one) for one in letters]


def _group(group: Group) -> GroupView:
    return GroupView.model_validate(group)


def _detail(one: Listed) -> LetterDetail:
    letter = one.letter
    return LetterDetail(
        **LetterView.model_validate(Brief.of(one)).model_dump(),
        group=letter.group,
        attempt=letter.attempt,
        timestamp_ms=letter.timestamp_ms,
        key=_text(letter.key),
        headers=[HeaderView(name=name, value=_text(value)) for name, value in letter.headers],
        value_base64=None if letter.value is None else base64.b64encode(letter.value).decode(),
        record=told(letter).record,
        history=list(one.resolution.history) if one.resolution else [],
    )


def _answer(done: Done, order: Order) -> ActionAnswer:
    return ActionAnswer(
        outcomes=dict(done.outcomes),
        letters=[
            LetterOutcome(letter=LetterView.model_validate(brief), outcome=outcome.status, note=outcome.note)
            for brief, outcome in done.letters
        ],
        left=done.left,
        exhausted=done.exhausted,
        next_cursor=done.next_cursor,
        dry_run=order.dry_run,
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")
