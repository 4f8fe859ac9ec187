"""The Query side may ask the Admin module, over its REST API, to announce a file anew; it knows nothing else of it."""

from urllib.parse import quote
from uuid import UUID

import httpx

from consumer_query.errors import DeadLettersAwayError

TIMEOUT_SECONDS = 10.0


class AdminClient:
    """The Admin API as far as it is needed here."""

    def __init__(self, admin_url: str) -> None:
        self._client = httpx.AsyncClient(base_url=admin_url, trust_env=False, timeout=TIMEOUT_SECONDS)

    async def republish(self, file_id: UUID, at_least: int, actor: str) -> bool:
        """Announce a file, deleted or not, under a revision greater than `at_least`; False where it is unknown.

        Raises:
            DeadLettersAwayError: the Admin API does not answer, or refuses.
        """
        asked = {"file_ids": [str(file_id)], "at_least": at_least}
        try:
            answer = await self._client.post(
                "/api/v1/admin/republish", json=asked, headers={"X-Actor": quote(actor, safe=" ")}
            )
            answer.raise_for_status()
            return int(answer.json()["announced"]) == 1
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise DeadLettersAwayError(f"The Admin API does not republish: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
