"""A file as both REST APIs answer it: the same fields under the same names, so that a client can compare them."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class FileView(BaseModel):
    """The state of a file at `revision`. What each field means is described in `avro/`."""

    model_config = ConfigDict(frozen=True)

    file_id: UUID
    revision: int
    storage_element_id: str
    original_filename: str
    storage_filename: str
    file_size: int
    mime_type: str
    created_at: datetime
    updated_at: datetime
    created_by_username: str
    created_by_fullname: str | None
    description: str | None
    version: str | None
    tags: list[str]
    storage_path: str
    checksum: str
    retention_expires_at: datetime | None
