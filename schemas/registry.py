"""Schemas of records in Confluent framing are asked for once, by id, and remembered by the decoder."""

import asyncio
import json
from typing import Any

import httpx

TIMEOUT_SECONDS = 5.0


class RegistryError(Exception):
    """The schema registry is away or does not know the id. Asking again later may help."""


async def fetch_schema(registry_url: str, schema_id: int) -> Any:
    """Ask a registry (Confluent's REST API, as Karapace and Apicurio answer it too) for a schema.

    Raises:
        RegistryError: no usable answer.
    """
    url = f"{registry_url.rstrip('/')}/schemas/ids/{schema_id}"
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS), httpx.AsyncClient(timeout=None) as client:  # noqa: S113 - all of it
            answer = await client.get(url)
            answer.raise_for_status()
            return json.loads(answer.json()["schema"])
    except (httpx.HTTPError, TimeoutError, ValueError, KeyError) as error:
        raise RegistryError(f"The schema registry did not give schema {schema_id}: {error}") from error
