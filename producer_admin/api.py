"""The Admin REST API: requests in, sagas out. No rule about files stands here."""

import re
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from producer_admin import files, ranges
from producer_admin.api_models import ContentChange, FileChange, FileDetails, FilePage, Limits, Move, read_actor, view
from producer_admin.errors import RangeError, RefusedError, StorageError, TooLargeError, UnsupportedMediaTypeError
from producer_admin.files import FileRecord
from producer_admin.idempotency import LONGEST_KEY
from producer_admin.pages import Place, read_cursor
from producer_admin.saga import DELETE, MOVE, REPLACE, UPDATE, UPLOAD, run_saga
from producer_admin.saga_steps import Means, Work
from producer_admin.upload import FORM_BYTES, RawContent, UploadForm
from runtime.auth import Guarded, Scope, needs
from runtime.errors import FieldError
from runtime.http import PROBLEM_RESPONSE, ActorHeader, field_errors
from schemas.file_view import FileView

MAX_LIMIT = 500
PREFIX = "/api/v1/files"
_CONTENT = re.compile(rf"{PREFIX}/[^/]+/content")


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return dict.fromkeys((*statuses, 422, 503), PROBLEM_RESPONSE)


_CHANGE = _problems(404, 409, 412)
_STORE = _problems(400, 408, 409, 413, 507)

UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        **{
                            name: schema
                            for name, schema in FileDetails.model_json_schema()["properties"].items()
                            if name != "file"
                        },
                    },
                }
            }
        },
    }
}
"""The body is read as a stream, so FastAPI cannot see its form; this documents it."""
CONTENT_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def streams(method: str, path: str) -> bool:
    """Whether a route reads its body piece by piece, and bounds it itself."""
    return (method, path) == ("POST", f"{PREFIX}/upload") or (method == "PUT" and _CONTENT.fullmatch(path) is not None)


@dataclass(frozen=True)
class Asked:
    """What every change may say in its headers."""

    actor: str | None
    key: str | None
    expected: frozenset[int] | None


def asked(
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=LONGEST_KEY,
            pattern=r"^[\x20-\x7e]+$",
            description="Chosen by the client. A retry with the same key gets the first answer; another request, 409.",
        ),
    ] = None,
    if_match: Annotated[
        str | None, Header(description='Revisions that the file may have, such as "3"; else 412.')
    ] = None,
    x_actor: ActorHeader = None,
) -> Asked:
    """Read the headers of a change."""
    return Asked(
        actor=None if x_actor is None else read_actor(x_actor),
        key=idempotency_key,
        expected=ranges.parse_if_match(if_match),
    )


Change = Annotated[Asked, Depends(asked)]


def files_router(means: Means, limits: Limits) -> APIRouter:
    """Routes under /api/v1/files."""
    router = APIRouter(prefix=PREFIX, tags=["files"], route_class=Guarded)

    @router.post("/upload", status_code=201, responses=_STORE, openapi_extra=UPLOAD_BODY)
    @needs(Scope.WRITE)
    async def upload(request: Request, response: Response, asked: Change) -> FileView:
        """Store a file. Once this answers 201, the file will be found by search.

        Text fields come before the file part if they are to be checked before the content is sent.
        `original_filename` and `mime_type` override those of the file part.
        """
        size = _announced_size(request, limits, FORM_BYTES)
        form = await UploadForm.open(request, limits, asked.actor)
        work = Work(file_id=uuid4(), content=form, size=size, actor=asked.actor, key=asked.key)
        record = await run_saga(UPLOAD, means, work)
        response.headers["Location"] = f"/api/v1/files/{record.file_id}"
        return _answer(record, response)

    @router.get("", responses=_problems())
    @needs(Scope.READ)
    async def newest(
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
        cursor: Annotated[str | None, Query(max_length=1_000, description="next_cursor of a page.")] = None,
    ) -> FilePage:
        """The files that exist, newest first, page by page. Files that come and go meanwhile shift no page."""
        async with means.alone() as connection:
            found = await files.newest(connection, limit + 1, read_cursor(cursor))
        last = found[limit - 1] if len(found) > limit else None
        return FilePage(
            files=[view(record) for record in found[:limit]],
            next_cursor=last and Place(last.metadata.created_at, last.file_id).cursor,
        )

    @router.get("/{file_id}", responses=_problems(404) | {304: {"description": "If-None-Match names this revision."}})
    @needs(Scope.READ)
    async def get(
        file_id: UUID, response: Response, if_none_match: Annotated[str | None, Header()] = None
    ) -> FileView | None:
        """A file's metadata, from the truth: never stale."""
        answer = _answer(await _get(means, file_id), response)
        if ranges.not_modified(if_none_match, response.headers["ETag"]):
            response.status_code = 304
            return None
        return answer

    @router.head("/{file_id}/content", include_in_schema=False)
    @router.get(
        "/{file_id}/content",
        response_class=StreamingResponse,
        responses=_problems(404, 416)
        | {
            206: {"description": "The range that was asked for."},
            304: {"description": "If-None-Match names this content."},
        },
    )
    @needs(Scope.READ)
    async def content(
        request: Request,
        file_id: UUID,
        range: Annotated[str | None, Header(description="bytes=first-last; one range.")] = None,  # noqa: A002
        if_range: Annotated[str | None, Header()] = None,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        """A file's bytes, as an attachment."""
        head = request.method == "HEAD"
        return await _content(means, file_id, None if head else range, if_range, if_none_match, head=head)

    @router.put("/{file_id}/content", responses=_STORE | _CHANGE | _problems(415), openapi_extra=CONTENT_BODY)
    @needs(Scope.WRITE)
    async def replace(
        request: Request,
        response: Response,
        file_id: UUID,
        asked: Change,
        version: Annotated[str | None, Query(description="The new content's own version label.")] = None,
    ) -> FileView:
        """Give a file new content: the body itself, its media type in Content-Type. The file keeps id and name."""
        size = _announced_size(request, limits, 0)
        content = RawContent(request, limits, _content_change(request.headers.get("content-type"), version))
        work = Work(
            file_id=file_id, content=content, size=size, actor=asked.actor, key=asked.key, expected=asked.expected
        )
        return _answer(await run_saga(REPLACE, means, work), response)

    @router.patch("/{file_id}", responses=_CHANGE | _problems(413))
    @needs(Scope.WRITE)
    async def change(file_id: UUID, wanted: FileChange, response: Response, asked: Change) -> FileView:
        """Change metadata. Fields that are left out stay; the revision is raised only if something changes."""
        limits.check(wanted.columns())
        work = Work(file_id=file_id, change=wanted.columns(), actor=asked.actor, key=asked.key, expected=asked.expected)
        return _answer(await run_saga(UPDATE, means, work), response)

    @router.post("/{file_id}/move", responses=_CHANGE | _problems(507))
    @needs(Scope.WRITE)
    async def move(file_id: UUID, wanted: Move, response: Response, asked: Change) -> FileView:
        """Move a file's content to another storage element. A file that is there already is answered as it is."""
        work = Work(
            file_id=file_id,
            target=wanted.storage_element_id,
            actor=asked.actor,
            key=asked.key,
            expected=asked.expected,
        )
        return _answer(await run_saga(MOVE, means, work), response)

    @router.delete("/{file_id}", status_code=204, responses=_CHANGE)
    @needs(Scope.WRITE)
    async def delete(file_id: UUID, asked: Change) -> None:
        """Delete a file for good. It leaves search, and its id is never used again."""
        work = Work(file_id=file_id, actor=asked.actor, key=asked.key, expected=asked.expected)
        await run_saga(DELETE, means, work)

    return router


async def _content(
    means: Means, file_id: UUID, range_: str | None, if_range: str | None, if_none_match: str | None, *, head: bool
) -> Response:
    record = await _get(means, file_id)
    answer = ranges.answer(record.metadata.file_size, _content_etag(record), range_, if_range, if_none_match)
    headers = {**_content_headers(record), **answer.headers}
    if answer.status == 416:
        raise RangeError(f"The content has {record.metadata.file_size} bytes.", headers=headers)
    if answer.status == 304 or head:
        if answer.status == 200:
            headers["Content-Length"] = str(record.metadata.file_size)
        return Response(status_code=answer.status, headers=headers, media_type=record.metadata.mime_type)
    try:
        storage = means.elements.source(record.storage_element_id)
        chunks = await storage.read(record.object.key, answer.start, answer.end)
    except StorageError:
        if (await _get(means, file_id)).object == record.object:
            raise
        # It was replaced or moved since its row was read; its new content is asked for in the same way.
        return await _content(means, file_id, range_, if_range, if_none_match, head=head)
    return StreamingResponse(
        chunks,
        status_code=answer.status,
        media_type=record.metadata.mime_type,
        headers=headers | {"Content-Length": str(answer.end - answer.start)},
    )


async def _get(means: Means, file_id: UUID) -> FileRecord:
    async with means.alone() as connection:
        return await files.get(connection, file_id)


def _answer(record: FileRecord, response: Response) -> FileView:
    response.headers["ETag"] = f'"{record.revision}"'
    return view(record)


def _content_etag(record: FileRecord) -> str:
    return f'"{record.metadata.checksum}"'


def _content_headers(record: FileRecord) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        # The name only in the form that can carry any character (RFC 6266, RFC 8187).
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(record.metadata.original_filename, safe='')}",
        "ETag": _content_etag(record),
        "X-Content-Type-Options": "nosniff",
    }


def _content_change(content_type: str | None, version: str | None) -> ContentChange:
    if content_type and content_type.partition(";")[0].strip().lower() in _FORMS:
        # What curl says of any body unless it is told otherwise is not what the bytes are.
        if content_type.startswith("multipart/"):
            raise UnsupportedMediaTypeError("Send the bytes themselves as the body, not a form.")
        content_type = None
    given = {"mime_type": content_type, "version": version}
    try:
        return ContentChange.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise RefusedError.of(field_errors(error.errors())) from error


_FORMS = frozenset({"multipart/form-data", "application/x-www-form-urlencoded"})


def _announced_size(request: Request, limits: Limits, around: int) -> int | None:
    """Content-Length, refused at once when not even `around` bytes of form explain it."""
    announced = request.headers.get("content-length", "")
    if not announced.isascii() or not announced.isdecimal() or len(announced) > 18:
        return None
    if int(announced) > limits.upload_bytes + around:
        raise TooLargeError(f"The file is larger than {limits.upload_bytes} bytes.", (FieldError("file", "too large"),))
    return int(announced)
