"""The registry of storage elements over REST: how operators steer them, and where the Query side learns of content.

A URL is taken only after this process has reached it. An element that anything still refers to cannot be forgotten.
"""

import asyncio
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin import actions, marks
from producer_admin.actions import Did
from producer_admin.api_models import read_actor
from producer_admin.element_registry import is_lasting
from producer_admin.elements import CHECK_LIMIT_SECONDS, Element, Elements, Mode, register
from producer_admin.errors import ElementInUseError, ElementTakenError, RefusedError, StorageError
from producer_admin.saga_steps import ANONYMOUS
from producer_admin.storage import open_storage
from runtime.auth import Guarded, Scope, needs
from runtime.errors import FieldError
from runtime.http import PROBLEM_RESPONSE, ActorHeader

CONTENT_PATH: Final = "/api/v1/files/{file_id}/content"
_MAX_BIGINT: Final = 2**63 - 1

ElementId = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="As in `storage_element_id`.")]

# Waits for what is being recorded there; FORGET, a statement of its own, then sees it.
HOLD: Final = text("SELECT element_id FROM storage_elements WHERE element_id = :element_id FOR UPDATE")
# A rare act, so the table of files is read for it; the rest are few.
FORGET: Final = text(
    """
    DELETE FROM storage_elements WHERE element_id = :element_id AND mode = 'offline'
      AND NOT EXISTS (SELECT FROM files WHERE storage_element_id = :element_id AND deleted_at IS NULL)
      AND NOT EXISTS (
          SELECT FROM sagas WHERE state NOT IN ('done', 'compensated')
            AND :element_id IN (detail #>> '{created,element_id}', detail #>> '{doomed,element_id}'))
    RETURNING element_id
    """
)


async def _actor(
    x_actor: ActorHeader = None,
) -> str:
    return ANONYMOUS if x_actor is None else read_actor(x_actor)


Actor = Annotated[str, Depends(_actor)]


class ElementSettings(BaseModel):
    """What an operator decides of an element."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(
        min_length=1,
        max_length=2048,
        description="file:///folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, without secrets.",
    )
    mode: Mode = Field(
        Mode.ONLINE,
        description="read_only takes no new files and keeps those whose retention is over; "
        "offline gives none either and is not checked.",
    )
    capacity_bytes: int | None = Field(
        None, gt=0, le=_MAX_BIGINT, description="New files go elsewhere above this; null when it has no bound."
    )


class ElementView(BaseModel):
    """One storage element."""

    element_id: str
    url: str
    mode: Mode
    capacity_bytes: int | None
    used_bytes: int = Field(description="Sum of the sizes of the files that are recorded there.")
    free_bytes: int | None = Field(description="Up to its capacity; null when it has no bound.")
    healthy: bool
    health_error: str | None = Field(description="Why it is not healthy.")
    checked_at: datetime | None
    registered_at: datetime
    content_url: str = Field(description="Where a file's bytes are: put its id in place of {file_id}.")


class ElementList(BaseModel):
    """All storage elements, by name."""

    elements: list[ElementView]


_UNAVAILABLE: dict[int | str, dict[str, Any]] = {422: PROBLEM_RESPONSE, 503: PROBLEM_RESPONSE}
_ABSENT: dict[int | str, dict[str, Any]] = _UNAVAILABLE | {404: PROBLEM_RESPONSE}


def elements_router(elements: Elements, engine: AsyncEngine, public_url: str | None = None) -> APIRouter:
    """Routes under /api/v1/storage-elements.

    Args:
        elements: what this process knows of them; read again before each answer
        engine: of the registry
        public_url: where clients reach this API; None makes `content_url` relative
    """
    router = APIRouter(prefix="/api/v1/storage-elements", tags=["storage elements"], route_class=Guarded)
    content_url = (public_url or "").rstrip("/") + CONTENT_PATH

    @router.get("", responses=_UNAVAILABLE)
    @needs(Scope.SYNC)
    async def all_elements() -> ElementList:
        """All storage elements, with mode, room and health."""
        await elements.refresh()
        return ElementList(elements=[_view(one, content_url) for one in elements.all()])

    @router.get("/{element_id}", responses=_ABSENT)
    @needs(Scope.SYNC)
    async def one_element(element_id: ElementId) -> ElementView:
        """One storage element."""
        await elements.refresh()
        return _view(elements.get(element_id), content_url)

    @router.put("/{element_id}", responses=_UNAVAILABLE | {201: {"model": ElementView}, 409: PROBLEM_RESPONSE})
    @needs(Scope.SYNC)
    async def put_element(
        element_id: ElementId, wanted: ElementSettings, response: Response, actor: Actor
    ) -> ElementView:
        """Register an element (201) or change it (200). Other processes follow within two seconds.

        The URL of an element that holds files may be changed once its objects have been copied there, its mark
        (`artstore-element`) among them.
        """
        if not is_lasting(wanted.url):
            raise RefusedError.of((FieldError("url", "what is kept in memory goes with the process"),))
        await elements.refresh()
        known = {one.element_id: one for one in elements.all()}.get(element_id)
        marked = known is not None and known.marked
        if known is None or known.url != wanted.url:
            marked = await _take(element_id, known, wanted)
        async with engine.begin() as connection:
            made = await register(connection, element_id, wanted.url, wanted.mode, wanted.capacity_bytes, marked=marked)
            did = Did.ELEMENT_REGISTERED if made else Did.ELEMENT_CHANGED
            before = None if known is None else {name: getattr(known, name) for name in ElementSettings.model_fields}
            await actions.note(connection, actor, did, element_id, to=wanted.model_dump(mode="json"), before=before)
        response.status_code = 201 if made else 200
        await elements.refresh()
        return _view(elements.get(element_id), content_url)

    @router.delete("/{element_id}", status_code=204, responses=_ABSENT | {409: PROBLEM_RESPONSE})
    @needs(Scope.SYNC)
    async def forget_element(element_id: ElementId, actor: Actor) -> None:
        """Forget an element that is offline and that no file and no unfinished saga refers to."""
        async with engine.begin() as connection:
            await connection.execute(HOLD, {"element_id": element_id})
            gone = (await connection.execute(FORGET, {"element_id": element_id})).one_or_none()
            if gone is not None:
                await actions.note(connection, actor, Did.ELEMENT_FORGOTTEN, element_id)
        await elements.refresh()
        if gone is None:
            elements.get(element_id)
            raise ElementInUseError(
                f"Storage element {element_id} is not offline, or files or unfinished sagas still refer to it."
            )

    return router


async def _take(element_id: str, known: Element | None, wanted: ElementSettings) -> bool:
    """Open and check what is at a URL that is to be an element, and mark it.

    A folder is made for a new element only: the files of one that is known must be there already.

    Returns:
        Whether it carries the mark; a place that is only read from may be without one.

    Raises:
        RefusedError: it cannot be opened or used.
        ElementTakenError: it is another element, or not the one whose files are known.
    """
    try:
        async with asyncio.timeout(CHECK_LIMIT_SECONDS):
            opened = await asyncio.to_thread(partial(open_storage, wanted.url, make=known is None))
            await opened.check(write=wanted.mode is Mode.ONLINE)
            holder = await marks.read_mark(opened)
            if holder is None and known is not None and known.marked and known.used_bytes:
                raise ElementTakenError(
                    f"This place does not carry the mark of {element_id}. Copy its objects there first, "
                    f"and {marks.MARK} with them."
                )
            try:
                await marks.claim(opened, element_id)
            except StorageError:
                if wanted.mode is Mode.ONLINE:
                    raise
                return False
            return True
    except (ValueError, StorageError, TimeoutError) as error:
        reason = str(error) or f"no answer within {CHECK_LIMIT_SECONDS:g} s"
        raise RefusedError(f"url: {reason}", (FieldError("url", reason),)) from error


def _view(element: Element, content_url: str) -> ElementView:
    return ElementView(
        element_id=element.element_id,
        url=element.url,
        mode=element.mode,
        capacity_bytes=element.capacity_bytes,
        used_bytes=element.used_bytes,
        free_bytes=element.free_bytes,
        healthy=element.health_error is None,
        health_error=element.health_error,
        checked_at=element.checked_at,
        registered_at=element.registered_at,
        content_url=content_url,
    )
