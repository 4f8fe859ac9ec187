"""The Admin REST API: requests in, sagas out. No rule about files stands here."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from producer_admin import files
from producer_admin.api_models import FileChange, FileDetails, view
from producer_admin.files import FileRecord
from producer_admin.saga import DELETE, UPDATE, UPLOAD, Means, Work, run_saga
from producer_admin.storage import object_name
from producer_admin.upload import UploadForm
from runtime.http import PROBLEM_RESPONSE
from schemas.file_view import FileView

_UNAVAILABLE: dict[int | str, dict[str, Any]] = {422: PROBLEM_RESPONSE, 503: PROBLEM_RESPONSE}
_ABSENT: dict[int | str, dict[str, Any]] = _UNAVAILABLE | {404: PROBLEM_RESPONSE}

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


def files_router(means: Means, max_upload_bytes: int) -> APIRouter:
    """Routes under /api/v1/files."""
    router = APIRouter(prefix="/api/v1/files", tags=["files"])

    @router.post(
        "/upload",
        status_code=201,
        responses=_UNAVAILABLE | {400: PROBLEM_RESPONSE, 413: PROBLEM_RESPONSE},
        openapi_extra=UPLOAD_BODY,
    )
    async def upload(request: Request, response: Response) -> FileView:
        """Store a file. Once this answers 201, the file will be found by search.

        Text fields come before the file part if they are to be checked before the content is sent.
        `original_filename` and `mime_type` override those of the file part.
        """
        form = await UploadForm.open(request, max_upload_bytes)
        work = Work(file_id=uuid4(), content=form)
        work.name = object_name(work.file_id, work.saga_id, datetime.now(UTC))
        work.object_key = work.name.key
        record = await run_saga(UPLOAD, means, work)
        response.headers["Location"] = f"/api/v1/files/{record.file_id}"
        return _answer(record, response)

    @router.get("/{file_id}", responses=_ABSENT)
    async def get(file_id: UUID, response: Response) -> FileView:
        """A file's metadata, from the truth: never stale."""
        async with means.engine.connect() as connection:
            return _answer(await files.get(connection, file_id), response)

    @router.get("/{file_id}/content", responses=_ABSENT, response_class=StreamingResponse)
    async def content(file_id: UUID) -> StreamingResponse:
        """A file's bytes, as an attachment."""
        async with means.engine.connect() as connection:
            record = await files.get(connection, file_id)
        return StreamingResponse(
            await means.storage.read(record.object_key),
            media_type=record.metadata.mime_type,
            headers=_content_headers(record),
        )

    @router.patch("/{file_id}", responses=_ABSENT)
    async def change(file_id: UUID, wanted: FileChange, response: Response) -> FileView:
        """Change metadata. Fields that are left out stay; the revision is raised only if something changes."""
        return _answer(await run_saga(UPDATE, means, Work(file_id=file_id, change=wanted.columns())), response)

    @router.delete("/{file_id}", status_code=204, responses=_ABSENT)
    async def delete(file_id: UUID) -> None:
        """Delete a file for good. It leaves search, and its id is never used again."""
        await run_saga(DELETE, means, Work(file_id=file_id))

    return router


def _answer(record: FileRecord, response: Response) -> FileView:
    response.headers["ETag"] = f'"{record.revision}"'
    return view(record)


def _content_headers(record: FileRecord) -> dict[str, str]:
    return {
        "Content-Length": str(record.metadata.file_size),
        # The name only in the form that can carry any character (RFC 6266, RFC 8187).
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(record.metadata.original_filename, safe='')}",
        "ETag": f'"{record.metadata.checksum}"',
        "X-Content-Type-Options": "nosniff",
    }
