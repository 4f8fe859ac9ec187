"""What a database's URL says of TLS holds for every way of connecting to it, and nothing is sent without it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from pydantic import SecretStr

from consumer_query.migrations import run_migrate as migrate_query
from consumer_query.settings import QueryDatabaseSettings
from producer_admin.backfill_source import open_source
from producer_admin.errors import SourceError
from producer_admin.migrations import run_migrate as migrate_admin
from producer_admin.settings import AdminDatabaseSettings
from runtime.engine import open_engine
from runtime.errors import StartError
from runtime.health import NotReadyError
from runtime.postgres import UrlError, checked, connect, make_pool
from runtime.starting import require_database
from tests.secure_kafka import Authority

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
MIGRATIONS = Path("producer_admin/migrations")


@asynccontextmanager
async def server(certificate: Path | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """The port of one that asks for TLS with a certificate, or says that it has none, and what else it was sent."""
    sent: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["postgresql"])
    if certificate is not None:
        context.load_cert_chain(certificate)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            assert await reader.readexactly(8) == SSL_REQUEST
            writer.write(b"N" if certificate is None else b"S")
            if certificate is not None:
                await writer.start_tls(context)
            sent.append(await reader.read())
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], sent


def url(port: int, authority: Authority, host: str = "127.0.0.1") -> str:
    return f"postgresql://a:secret@{host}:{port}/d?sslmode=verify-full&sslrootcert={authority.file}"


async def by_pool(url: str) -> None:
    async with make_pool(url, "tests") as pool:
        await require_database(pool, MIGRATIONS)


async def by_engine(url: str) -> None:
    engine = open_engine(url, "tests")
    try:
        async with engine.connect():
            pass
    finally:
        await engine.dispose()


async def by_source(url: str) -> None:
    async with open_source(url):
        pass


WAYS: tuple[Callable[[str], Awaitable[object]], ...] = (
    by_pool,
    by_engine,
    by_source,
    partial(connect, process="tests"),
    lambda url: migrate_admin(AdminDatabaseSettings(admin_database_url=SecretStr(url))),
    lambda url: migrate_query(QueryDatabaseSettings(query_database_url=SecretStr(url))),
)
REFUSED = (NotReadyError, StartError, SourceError, ssl.SSLCertVerificationError, ConnectionError)


@pytest.mark.parametrize("way", WAYS)
async def test_no_connection_goes_on_without_the_tls_that_its_url_asks_for(
    way: Callable[[str], Awaitable[object]], tmp_path: Path
) -> None:
    ours, others = Authority(tmp_path), Authority(tmp_path, "others")
    certificate = ours.certify("server", "127.0.0.1")
    async with server(None) as (port, sent):
        with pytest.raises(REFUSED, match="rejected SSL upgrade"):
            await way(url(port, ours))
    async with server(certificate) as (secure, heard):
        for refused in (url(secure, others), url(secure, ours, "localhost")):
            with pytest.raises(REFUSED, match="certificate"):
                await way(refused)
    assert [one for one in sent + heard if one] == []


async def test_why_a_certificate_is_refused_is_said_without_the_drivers_words(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    async with server(ours.certify("server", "127.0.0.1")) as (port, _):
        with pytest.raises(NotReadyError) as waiting:
            await by_pool(url(port, ours, "localhost"))
    expected = "its certificate is refused: Hostname mismatch, certificate is not valid for 'localhost'."
    assert str(waiting.value) == expected


@pytest.mark.parametrize("parameter", ["sslrootcert", "sslcert", "sslkey", "sslcrl"])
def test_a_file_that_a_url_names_and_that_cannot_be_read_is_named(parameter: str, tmp_path: Path) -> None:
    there, missing = tmp_path / "there", tmp_path / "missing"
    there.touch()
    good = f"postgresql://a:secret@h/d?sslmode=verify-full&{parameter}={there}"
    assert checked(good) == good
    for make in (checked, partial(make_pool, process="tests"), partial(open_engine, process="tests")):
        with pytest.raises(UrlError) as refused:
            make(f"postgresql://a:secret@h/d?{parameter}={missing}")
        assert f"{parameter}={missing}, which cannot be read: No such file" in str(refused.value)


async def test_a_url_that_the_driver_does_not_understand_is_not_waited_for() -> None:
    with pytest.raises(StartError, match="The database's URL is wrong: `sslmode` parameter must be one of"):
        await by_pool("postgresql://a@127.0.0.1:1/d?sslmode=verify-most")
