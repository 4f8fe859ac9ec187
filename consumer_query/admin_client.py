"""The Query side may ask the Admin module, over its REST API, what is true of files and to announce them anew.

It knows nothing else of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
from pydantic import BaseModel, ValidationError

from consumer_query.errors import AdminAwayError, CannotCompareError, DeadLettersAwayError
from consumer_query.reconcile import Listed, Page, Truth
from runtime.http import pass_on
from runtime.service_token import ServiceToken, open_service_token
from runtime.settings import ServiceTokenSettings
from runtime.tokens import TokenError
from schemas.digests import MOST_FILES, Range, Span, Sum
from schemas.sync_views import DigestsAnswer, DigestsAsked, FilesAnswer, FilesAsked, RangeView, SpanView
from schemas.trace_views import AdminTrace

TIMEOUT_SECONDS: Final = 10.0
COMPARE_SECONDS: Final = 60.0
"""Longer than the Admin module lets a statement take, and waits for its turn there."""
MOST_REPUBLISHED: Final = 500
"""In one request, as the Admin module takes it."""
PREFIX: Final = "/api/v1/admin"
TRACE: Final = "/api/v1/files/{file_id}/trace"

Answer = TypeVar("Answer", bound=BaseModel)
Id = TypeVar("Id")


class AdminClient:
    """The Admin API as far as it is needed here.

    Args:
        admin_url: where it is
        token: what it is shown; None where it lets in without
    """

    def __init__(self, admin_url: str, token: ServiceToken | None = None) -> None:
        self._client = httpx.AsyncClient(
            base_url=admin_url, auth=token, trust_env=False, timeout=TIMEOUT_SECONDS, event_hooks={"request": [pass_on]}
        )

    async def republish(self, file_id: UUID, at_least: int, actor: str) -> bool:
        """Announce a file, deleted or not, under a revision greater than `at_least`; False where it is unknown.

        Raises:
            DeadLettersAwayError: the Admin API does not answer, or refuses.
        """
        try:
            return await self.republish_all([file_id], {file_id: at_least}, actor) == 1
        except AdminAwayError as error:
            raise DeadLettersAwayError(f"The Admin API does not republish: {error}") from error

    async def republish_all(
        self, file_ids: Iterable[UUID], seen: Mapping[UUID, int], actor: str, *, deletions: bool = False
    ) -> int:
        """Announce files, deleted or not, each under a revision greater than has been seen.

        Args:
            file_ids: any number
            seen: the greatest revisions seen here, of those where that may be more than the Admin module knows
            actor: for its audit log
            deletions: files that it does not know are announced as deleted, for good

        Returns:
            How many were announced.

        Raises:
            AdminAwayError: the Admin API does not answer, or refuses; some may have been announced.
        """
        announced = 0
        for page in _pages(sorted(set(file_ids)), MOST_REPUBLISHED):
            asked = {
                "file_ids": [str(one) for one in page],
                "seen": {str(one): seen[one] for one in page if one in seen},
                "deletions": deletions,
            }
            answer = await self.post("/republish", asked, TIMEOUT_SECONDS, {"X-Actor": quote(actor, safe=" ")})
            try:
                announced += int(answer.json()["announced"])
            except (ValueError, KeyError) as error:
                raise AdminAwayError(f"The Admin API gave no answer: {error!r}") from error
        return announced

    async def post(
        self, path: str, body: Any, seconds: float, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Ask; the answer is a success.

        Raises:
            AdminAwayError: it is not, or there is none.
        """
        return await self._asked("POST", f"{PREFIX}{path}", json=body, timeout=seconds, headers=headers)

    async def trace(self, file_id: UUID) -> AdminTrace:
        """How far the changes of a file have come there.

        Raises:
            AdminAwayError: the Admin API does not answer, or refuses, or is too old to be asked this.
        """
        answer = await self._asked("GET", TRACE.format(file_id=file_id))
        try:
            return AdminTrace.model_validate_json(answer.content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise AdminAwayError(f"The Admin API's answer cannot be read: {where}: {first['msg']}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _asked(self, method: str, url: str, **how: Any) -> httpx.Response:
        try:
            answer = await self._client.request(method, url, **how)
            answer.raise_for_status()
        except httpx.HTTPStatusError as error:
            raise AdminAwayError(f"The Admin API answered {error.response.status_code}: {_why(error)}") from error
        except TokenError as error:
            raise AdminAwayError(f"The Admin API cannot be asked: {error}") from error
        except httpx.HTTPError as error:
            raise AdminAwayError(f"The Admin API does not answer: {type(error).__name__} {error}".rstrip()) from error
        return answer


def open_admin_client(admin_url: str | None, settings: ServiceTokenSettings) -> AdminClient | None:
    """A client that shows what the settings want to be shown; None where nobody said where the Admin API is."""
    return AdminClient(admin_url, open_service_token(settings)) if admin_url else None


class AdminSide:
    """The truth, as the other side of a comparison; counts its requests.

    Args:
        client: of the Admin API
        probe: digest of the constant row, as our own server has it
    """

    def __init__(self, client: AdminClient, probe: int) -> None:
        self._client = client
        self._probe = probe
        self.requests = 0

    async def sums(self, spans: Sequence[Span]) -> list[list[Sum]]:
        """Of each span, piece by piece. Raises as `states` does."""
        asked = DigestsAsked(spans=[SpanView.of(span) for span in spans])
        answer = await self._ask("/sync/digests", asked, DigestsAnswer)
        return [[one.sum() for one in pieces] for pieces in answer.spans]

    async def listing(self, ranges: Sequence[Range]) -> Page:
        """Files that exist in ranges that rise. Raises as `states` does."""
        asked = FilesAsked(ranges=[RangeView(first=one.first, last=one.last) for one in ranges])
        answer = await self._ask("/sync/files", asked, FilesAnswer)
        files = [
            Listed(one.file_id, one.revision, int(one.digest))
            for one in answer.files
            if one.revision is not None and one.digest is not None
        ]
        return Page(files, answer.upto)

    async def states(self, file_ids: Iterable[UUID]) -> Mapping[UUID, Truth]:
        """What is true of each of these files, known or not.

        Raises:
            AdminAwayError: the Admin API does not answer, or refuses.
            CannotCompareError: its database makes other digests than ours.
        """
        found: dict[UUID, Truth] = {}
        for page in _pages(sorted(set(file_ids)), MOST_FILES):
            answer = await self._ask("/sync/files", FilesAsked(file_ids=list(page)), FilesAnswer)
            for one in answer.files:
                digest = None if one.digest is None else int(one.digest)
                found[one.file_id] = Truth(one.revision, digest, one.waiting, one.partition)
        return found

    async def _ask(self, path: str, asked: BaseModel, kind: type[Answer]) -> Answer:
        self.requests += 1
        body = asked.model_dump(mode="json", exclude_none=True)
        answer = await self._client.post(path, body, COMPARE_SECONDS)
        try:
            told = kind.model_validate_json(answer.content)
        except ValidationError as error:
            raise CannotCompareError(f"The Admin API's answer cannot be read: {error}") from error
        if int(told.probe) != self._probe:  # type: ignore[attr-defined]
            raise CannotCompareError(
                "The two databases make different digests of the same row: they run different versions of PostgreSQL, "
                "or on different kinds of processors. Bring both to the same major version."
            )
        return told


def _pages(ids: Sequence[Id], size: int) -> Iterable[Sequence[Id]]:
    return (ids[begin : begin + size] for begin in range(0, len(ids), size))


def _why(error: httpx.HTTPStatusError) -> str:
    try:
        return str(error.response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return error.response.reason_phrase
