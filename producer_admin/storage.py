"""A storage element never shows half a file: an object appears whole, with its digest known, or not at all.

Objects are named by ids of ours alone. No part of a name, tag or description that a user chose is ever in a path.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit
from uuid import UUID

import obstore.exceptions
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

from producer_admin.local_disk import LocalDiskElement
from producer_admin.object_store import MAX_PARTS, PART_BYTES, STALL_SECONDS, FoundObject, ObstoreElement, StoredObject

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, RetryConfig, S3Config

__all__ = ["PART_BYTES", "FoundObject", "StoredObject"]

_NAME: Final = re.compile(
    r"files/\d{4}/\d\d/\d\d/(?P<file_id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})_[0-9a-f]{12}"
    r"(?P<staged>#\d+)?"
)


@dataclass(frozen=True)
class ObjectRef:
    """One object on one storage element."""

    element_id: str
    key: str


@dataclass(frozen=True)
class ObjectName:
    """Where a file's bytes are on its storage element."""

    path: str
    filename: str

    @property
    def key(self) -> str:
        """The whole key of the object."""
        return f"{self.path}/{self.filename}"


@dataclass(frozen=True)
class OwnName:
    """What a key says that was made by `object_name`."""

    file_id: UUID
    staged: bool
    """A write that was never finished: `<key>#<n>` on a local disk."""


def object_name(file_id: UUID, saga_id: UUID, moment: datetime) -> ObjectName:
    """A name that no other attempt shares, so that undoing one attempt cannot take away another's bytes."""
    return ObjectName(f"files/{moment:%Y/%m/%d}", f"{file_id}_{saga_id.hex[:12]}")


def own_name(key: str) -> OwnName | None:
    """Read a key of ours; None when it is not of our naming."""
    match = _NAME.fullmatch(key)
    return match and OwnName(UUID(match["file_id"]), staged=match["staged"] is not None)


class StorageElement(Protocol):
    """What the rest of the Admin module needs of a place for bytes."""

    async def write(self, key: str, content: AsyncIterator[bytes]) -> StoredObject:
        """Store `content` whole under `key`, durably, or raise and show nothing.

        Raises:
            ClientStalledError: the content stopped coming.
            StorageError: the storage element hangs or failed. What it may have left, `remove` takes away.
        """

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The object's bytes from `start` up to but not including `end` (None: to its end), in order.

        Raises:
            StorageError: it is not there. The iterator raises it when the storage element fails later.
        """

    async def find(self, key: str) -> FoundObject | None:
        """The object, if it is there."""

    async def remove(self, key: str) -> None:
        """Remove the object, and what a killed write of it has left; what is not there is removed already."""

    def list(self, prefix: str = "") -> AsyncIterator[FoundObject]:
        """Everything below the folder `prefix`, sorted within each, with what killed writes have left."""

    async def check(self, *, write: bool = True) -> None:
        """Prove that it can be written to (unless `write` is False) and read from, or raise StorageError."""


_CLIENT: Final["ClientConfig"] = {
    "connect_timeout": timedelta(seconds=3),
    # From one byte to the next. A limit on the whole request would cut long downloads off.
    "read_timeout": timedelta(seconds=10),
    "timeout": timedelta(days=365),
}
_RETRIES: Final["RetryConfig"] = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
}
_OPTIONS: Final = {"s3": {"endpoint", "region", "part_mib"}, "gs": {"part_mib"}, "az": {"account", "part_mib"}}
"""What may stand behind the `?`. Nothing secret: URLs are in the registry, in answers and in logs."""


def open_storage(url: str, *, make: bool = True, stall_seconds: float = STALL_SECONDS) -> StorageElement:
    """Open the storage element at `url`.

    - `file:///absolute/folder`; the folder is made when missing, if `make`
    - `memory:///`, new and empty each time, for tests
    - `s3://bucket/prefix?endpoint=https://host&region=…`, `gs://bucket/prefix`, `az://container/prefix?account=…`,
      each with `part_mib` where files are larger than 10,000 parts of 5 MiB; an upload holds three parts in memory

    Credentials come from the environment alone: AWS_*, GOOGLE_*, AZURE_*, or from the machine's identity.

    Raises:
        ValueError: the URL is not one that this service can open.
    """
    try:
        parts = urlsplit(url)
        if "@" in parts.netloc or parts.fragment:
            raise ValueError("a name, a password or a fragment does not belong there; secrets are in the environment")
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        if unknown := options.keys() - _OPTIONS.get(parts.scheme, set()):
            raise ValueError(f"it has no option {min(unknown)}; secrets are in the environment")
        return _open(parts, options, make=make, stall_seconds=stall_seconds)
    except (ValueError, OSError, obstore.exceptions.BaseError) as error:
        shown = url.partition("?")[0].rpartition("@")[2]
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{shown} cannot be opened: {reason}") from error


def _open(parts: SplitResult, options: dict[str, str], *, make: bool, stall_seconds: float) -> StorageElement:
    if parts.scheme == "file":
        return LocalDiskElement(_folder(parts, make=make), stall_seconds=stall_seconds)
    if parts.scheme == "memory":
        if parts.netloc or parts.path.strip("/"):
            raise ValueError("memory:/// takes no name")
        return ObstoreElement(MemoryStore(), stall_seconds=stall_seconds)
    if parts.scheme not in _OPTIONS:
        raise ValueError("it begins with none of file:///, memory:///, s3://, gs://, az://")
    if not parts.netloc:
        raise ValueError("it names no bucket")
    part_bytes = _part_bytes(options)
    return ObstoreElement(
        _remote(parts, options), stall_seconds=stall_seconds, part_bytes=part_bytes, max_bytes=MAX_PARTS * part_bytes
    )


def _folder(parts: SplitResult, *, make: bool) -> Path:
    folder = Path(unquote(parts.path))
    if parts.netloc or not folder.is_absolute():
        raise ValueError("it must look like file:///absolute/folder")
    if make:
        folder.mkdir(parents=True, exist_ok=True)
    elif not folder.is_dir():
        raise ValueError(f"the folder {folder} is not there. Is its disk mounted?")
    return folder


def _remote(parts: SplitResult, options: dict[str, str]) -> S3Store | GCSStore | AzureStore:
    prefix = unquote(parts.path).strip("/") or None
    if parts.scheme == "gs":
        return GCSStore(parts.netloc, prefix=prefix, client_options=_CLIENT, retry_config=_RETRIES)
    if parts.scheme == "az":
        account: AzureConfig = {"account_name": options["account"]} if "account" in options else {}
        return AzureStore(parts.netloc, prefix=prefix, config=account, client_options=_CLIENT, retry_config=_RETRIES)
    config: S3Config = {}
    if "endpoint" in options:
        config["endpoint"] = _endpoint(options["endpoint"])
    if "region" in options:
        config["region"] = options["region"]
    # Who writes http:// wants it: a store beside this machine. The signature still covers the content.
    plain = options.get("endpoint", "").startswith("http://")
    client: ClientConfig = {**_CLIENT, "allow_http": True} if plain else _CLIENT
    return S3Store(parts.netloc, prefix=prefix, client_options=client, retry_config=_RETRIES, config=config)


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
    ):
        raise ValueError("endpoint is not http://host or https://host; secrets are in the environment")
    return url


def _part_bytes(options: dict[str, str]) -> int:
    part_mib = options.get("part_mib", "5")
    if not re.fullmatch(r"[0-9]{1,3}", part_mib) or not 5 <= int(part_mib) <= 512:
        raise ValueError("part_mib is not a number from 5 to 512")
    return int(part_mib) * 2**20
