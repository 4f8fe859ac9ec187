"""An S3 for the tests, in this process: moto's server, spoken to over HTTP as any other. And one that never answers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from uuid import uuid4

import httpx
import pytest
from moto.server import ThreadedMotoServer

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@dataclass(frozen=True)
class S3:
    """A running S3 that anybody may use."""

    endpoint: str

    def bucket(self) -> str:
        """Make a bucket; returns its URL as a storage element, with a prefix in it."""
        name = f"bucket-{uuid4().hex[:12]}"
        httpx.put(f"{self.endpoint}/{name}").raise_for_status()
        return self.url(name)

    def url(self, bucket: str) -> str:
        return f"s3://{bucket}/some/prefix?endpoint={self.endpoint}&region=us-east-1"


@contextmanager
def s3() -> Iterator[S3]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as environment:
        for name, value in CREDENTIALS.items():
            environment.setenv(name, value)
        server.start()
        try:
            host, port = server.get_host_and_port()
            yield S3(f"http://{host}:{port}")
        finally:
            server.stop()


@asynccontextmanager
async def silence() -> AsyncIterator[str]:
    """The URL of an endpoint that takes connections and never answers."""
    taken: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: taken.append(writer), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.close()
        for writer in taken:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in taken), return_exceptions=True)
        await server.wait_closed()
