"""Where two generations differ, the Admin module says what is true, by a digest that both databases make."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import asyncpg

from consumer_query.admin_client import AdminClient, AdminSide
from consumer_query.errors import AdminAwayError, CannotCompareError
from consumer_query.parity import ArbiterAwayError, State
from schemas.digests import PROBE


class AdminArbiter:
    """Asks over the Admin API.

    Args:
        client: of the Admin API
        pool: of the Query database, for the probe that tells whether both make the same digests
    """

    def __init__(self, client: AdminClient, pool: asyncpg.Pool) -> None:
        self._client = client
        self._pool = pool

    async def states(self, file_ids: Sequence[UUID]) -> Mapping[UUID, State]:
        """What is true of files; those that it has never heard of are absent.

        Raises:
            ArbiterAwayError: it does not answer, or makes other digests.
        """
        side = AdminSide(self._client, await self._pool.fetchval(PROBE))
        try:
            truths = await side.states(file_ids)
        except (AdminAwayError, CannotCompareError) as error:
            raise ArbiterAwayError(str(error)) from error
        return {
            file_id: State(truth.revision, deleted=truth.digest is None, digest=truth.digest)
            for file_id, truth in truths.items()
            if truth.revision is not None
        }
