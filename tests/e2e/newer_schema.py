"""A producer of a version to come: its schema has a field more, and readers of today ask the registry for it."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import fastavro
from fastapi import FastAPI, HTTPException

from schemas.codec import CONFLUENT_MAGIC, encode
from schemas.events import FileEvent

SCHEMA_ID: Final = 7
_HEADER: Final = CONFLUENT_MAGIC + SCHEMA_ID.to_bytes(4, "big")
_FRAME: Final = 10
"""Bytes before the record in single-object encoding."""
_OURS: Final[dict[str, Any]] = json.loads(Path("schemas/avro/file_event.v1.avsc").read_text())
_NEWER: Final = {
    **_OURS,
    "fields": [{"name": "case_number", "type": ["null", "string"], "default": None}, *_OURS["fields"]],
}
_PARSED: Final = fastavro.parse_schema(_OURS), fastavro.parse_schema(_NEWER, named_schemas={})


def encode_newer(event: FileEvent) -> bytes:
    """In Confluent's wire format, with the field that we do not know."""
    ours, newer = _PARSED
    record: Any = fastavro.schemaless_reader(BytesIO(encode(event)[_FRAME:]), ours, None)
    written = BytesIO()
    fastavro.schemaless_writer(written, newer, {**record, "case_number": "A-1"})
    return _HEADER + written.getvalue()


def registry() -> FastAPI:
    """A schema registry that knows this schema, as far as a reader asks one."""
    app = FastAPI()

    @app.get("/schemas/ids/{schema_id}")
    async def schema(schema_id: int) -> dict[str, str]:
        if schema_id != SCHEMA_ID:
            raise HTTPException(404)
        return {"schema": json.dumps(_NEWER)}

    return app
