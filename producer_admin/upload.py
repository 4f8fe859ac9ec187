"""An upload is read as it arrives: its bytes go to the storage element and are never whole in memory or on our disk.

The body is multipart/form-data (RFC 7578). Text fields may stand before or behind the `file` part. What stands before
it is checked before a byte of the file is taken; the rest is checked before anything is recorded.
"""

from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from producer_admin.api_models import ContentChange, FileDetails, Limits
from producer_admin.errors import MalformedBodyError, RefusedError, TooLargeError
from runtime.errors import FieldError
from runtime.http import field_errors

MAX_FIELD_BYTES: Final = 64 * 1024
"""One text field, or one header with a file name. The longest description is 10,000 characters of at most 4 bytes."""
MAX_FIELDS: Final = 400
"""Text fields in one form; tags are one field each."""
LIST_FIELDS: Final = frozenset({"tags"})
FILE_FIELD: Final = "file"
FORM_BYTES: Final = MAX_FIELDS * MAX_FIELD_BYTES
"""What a form may hold around its file."""


@dataclass(frozen=True)
class PartBegin:
    """A part begins; `filename` is set on file parts."""

    name: str
    filename: str | None
    content_type: str | None


@dataclass(frozen=True)
class PartData:
    """Bytes of the part that has begun."""

    data: bytes


@dataclass(frozen=True)
class PartEnd:
    """The part is complete."""


@dataclass(frozen=True)
class FormEnd:
    """The closing boundary was read."""


Piece = PartBegin | PartData | PartEnd | FormEnd


class PieceReader:
    """Turns the bytes of a multipart body, in whatever chunks they come, into pieces. Holds one chunk at a time."""

    def __init__(self, boundary: bytes) -> None:
        """Raises MalformedBodyError when the boundary is longer than a parser takes."""
        self._pieces: deque[Piece] = deque()
        self._headers: dict[str, bytes] = {}
        self._header_name = bytearray()
        self._header_value = bytearray()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._headers.clear,
                    "on_part_data": lambda data, start, end: self._pieces.append(PartData(data[start:end])),
                    "on_part_end": lambda: self._pieces.append(PartEnd()),
                    "on_header_field": lambda data, start, end: self._header_name.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_end": lambda: self._pieces.append(FormEnd()),
                },
                max_header_size=MAX_FIELD_BYTES,
            )
        except FormParserError as error:
            raise MalformedBodyError(f"The multipart boundary cannot be used: {error}") from error

    def feed(self, chunk: bytes) -> deque[Piece]:
        """Take one chunk; what it completes is appended to the returned queue.

        Raises:
            MalformedBodyError: this is not the multipart body that the header announced.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise MalformedBodyError(f"The multipart body cannot be read: {error}") from error
        return self._pieces

    def _header_end(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _headers_finished(self) -> None:
        disposition, options = parse_options_header(self._headers.get("content-disposition", b""))
        if disposition != b"form-data" or b"name" not in options:
            raise MalformedBodyError("A part of the multipart body has no form-data name.")
        filename = options.get(b"filename")
        content_type = self._headers.get("content-type")
        self._pieces.append(
            PartBegin(
                _text(options[b"name"], "name of a part"),
                None if filename is None else _text(filename, FILE_FIELD),
                None if content_type is None else content_type.decode("latin-1"),
            )
        )


class UploadForm:
    """One upload request, as the saga reads it: first `chunks`, then `details`."""

    def __init__(self, pieces: AsyncIterator[Piece], limits: Limits, uploader: str | None) -> None:
        self._pieces = pieces
        self._limits = limits
        self._uploader = uploader
        self._fields: dict[str, Any] = {}
        self._count = 0
        self._file: PartBegin | None = None

    @classmethod
    async def open(cls, request: Request, limits: Limits, uploader: str | None = None) -> "UploadForm":
        """Read up to the content of the `file` part, and refuse at once what already breaks a rule.

        `uploader` stands for a created_by_username that the form does not give.

        Raises:
            AdminError: not a multipart form, no file in it, or a field that is refused.
        """
        media_type, options = parse_options_header(request.headers.get("content-type"))
        if media_type != b"multipart/form-data" or not options.get(b"boundary"):
            raise RefusedError(
                "Send the file as multipart/form-data with a part named file.",
                (FieldError(FILE_FIELD, "the body is not multipart/form-data"),),
            )
        form = cls(_pieces(request, options[b"boundary"]), limits, uploader)
        await form._read_fields()
        if form._file is None:
            raise RefusedError("There is no file in the form.", (FieldError(FILE_FIELD, "required"),))
        form._validated()
        return form

    async def chunks(self) -> AsyncIterator[bytes]:
        """The content of the file part.

        Raises:
            TooLargeError: more than the limit; what was read so far is the caller's to undo.
        """
        async for chunk in bounded(self._file_data(), self._limits):
            yield chunk

    async def details(self) -> Mapping[str, Any]:
        """Read the fields behind the file and return the metadata columns.

        Raises:
            AdminError: a second file, or a field that is refused.
        """
        first = self._file
        await self._read_fields()
        if self._file is not first:
            raise RefusedError("Send one file in one request.", (FieldError(FILE_FIELD, "more than one"),))
        return self._validated().columns()

    async def _file_data(self) -> AsyncIterator[bytes]:
        async for piece in self._pieces:
            if isinstance(piece, PartEnd):
                return
            assert isinstance(piece, PartData)  # noqa: S101 - nothing else stands inside a part
            yield piece.data

    async def _read_fields(self) -> None:
        """Collect text fields until a file part begins or the form ends."""
        name, value = "", bytearray()
        async for piece in self._pieces:
            match piece:
                case PartBegin(name=name, filename=filename):
                    if name == FILE_FIELD:
                        if filename is None:
                            raise RefusedError("file is not a file.", (FieldError(FILE_FIELD, "not a file part"),))
                        self._file = piece
                        return
                    value.clear()
                case PartData(data=data):
                    value.extend(data)
                    if len(value) > MAX_FIELD_BYTES:
                        detail = f"longer than {MAX_FIELD_BYTES} bytes"
                        raise RefusedError(f"{name}: {detail}", (FieldError(name, detail),))
                case PartEnd():
                    self._add(name, _text(bytes(value), name))
                case FormEnd():
                    return

    def _add(self, name: str, value: str) -> None:
        self._count += 1
        if self._count > MAX_FIELDS:
            raise RefusedError("Too many fields.", (FieldError(name, f"more than {MAX_FIELDS} fields in the form"),))
        if name in LIST_FIELDS:
            self._fields.setdefault(name, []).append(value)
        elif name in self._fields:
            raise RefusedError(f"{name} is given twice.", (FieldError(name, "given twice"),))
        else:
            self._fields[name] = value

    def _validated(self) -> FileDetails:
        assert self._file is not None  # noqa: S101 - `open` found it
        offered = {
            "original_filename": self._file.filename,
            "mime_type": self._file.content_type,
            "created_by_username": self._uploader,
        }
        given = {name: value for name, value in offered.items() if value} | self._fields
        try:
            details = FileDetails.model_validate(given)
        except ValidationError as error:
            raise RefusedError.of(field_errors(error.errors(), root=FILE_FIELD)) from error
        self._limits.check(details.columns())
        return details


class RawContent:
    """A request whose body is the new content itself, with what its headers and query say of it."""

    def __init__(self, request: Request, limits: Limits, change: ContentChange) -> None:
        self._request = request
        self._limits = limits
        self._change = change

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body.

        Raises:
            TooLargeError: more than the limit.
            MalformedBodyError: it breaks off.
        """
        try:
            async for chunk in bounded(self._request.stream(), self._limits):
                yield chunk
        except ClientDisconnect as error:
            raise MalformedBodyError("The client hung up before the end of the content.") from error

    async def details(self) -> Mapping[str, Any]:
        """Metadata columns that were given with it."""
        return self._change.columns()


async def bounded(content: AsyncIterator[bytes], limits: Limits) -> AsyncIterator[bytes]:
    """Content, until it is larger than a file may be.

    Raises:
        TooLargeError: what was read so far is the caller's to undo.
    """
    size = 0
    async for chunk in content:
        size += len(chunk)
        if size > limits.upload_bytes:
            raise TooLargeError(f"The file is larger than {limits.upload_bytes} bytes.", (_too_large(),))
        yield chunk


async def _pieces(request: Request, boundary: bytes) -> AsyncIterator[Piece]:
    reader = PieceReader(boundary)
    ended = False
    try:
        async for chunk in request.stream():
            ready = reader.feed(chunk)
            while ready:
                piece = ready.popleft()
                ended = ended or isinstance(piece, FormEnd)
                yield piece
    except ClientDisconnect as error:
        raise MalformedBodyError("The client hung up before the end of the form.") from error
    if not ended:
        raise MalformedBodyError("The multipart body ends before its closing boundary.")


def _text(raw: bytes, field: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(f"{field} is not UTF-8.", (FieldError(field, "not UTF-8"),)) from error


def _too_large() -> FieldError:
    return FieldError(FILE_FIELD, "too large")
