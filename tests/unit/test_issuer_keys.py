"""Keys are had before they are needed and asked for seldom; they outlive an outage of the issuer, and not for ever."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi import FastAPI, Response

from runtime.health import NotReadyError
from runtime.issuer_keys import KEPT_SECONDS, MOST_BYTES, SELDOM_SECONDS, IssuerKeys, KeyFile, KeysAwayError
from tests.running import running, served
from tests.tokens import OURS, THEIRS, jwks, pem
from tests.waiting import eventually


@dataclass
class Issuer:
    """An issuer over HTTP that counts who asks; it may be away."""

    url: str = ""
    keys: bytes = field(default_factory=lambda: jwks(one=OURS))
    asked: int = 0
    status: int = 200
    named: str | None = None
    hangs: asyncio.Event | None = None

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/.well-known/openid-configuration")
        async def discover() -> dict[str, str]:
            return {"issuer": self.named or self.url, "jwks_uri": f"{self.url}/keys"}

        @app.get("/keys")
        async def keys() -> Response:
            self.asked += 1
            if self.hangs is not None:
                await self.hangs.wait()
            return Response(self.keys, status_code=self.status)

        return app


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    made = Issuer()
    async with served(made.app()) as made.url:
        yield made


async def names(keys: IssuerKeys | KeyFile, kid: str | None) -> list[str | None]:
    return [key.kid for key in await keys.of(kid)]


async def test_keys_are_found_through_the_issuers_own_description(issuer: Issuer) -> None:
    keys = IssuerKeys(issuer.url, None)
    assert await names(keys, "one") == ["one"]
    await keys.check()


async def test_a_description_of_another_issuer_is_not_believed(issuer: Issuer) -> None:
    issuer.named = "https://issuer.example"
    keys = IssuerKeys(issuer.url, None)
    with pytest.raises(KeysAwayError):
        await keys.of("one")
    with pytest.raises(NotReadyError, match="another issuer"):
        await keys.check()
    assert issuer.asked == 0


async def test_a_key_that_was_changed_is_taken_with_its_first_token_and_the_old_one_stops(issuer: Issuer) -> None:
    clock = Clock()
    keys = IssuerKeys(issuer.url, f"{issuer.url}/keys", clock)
    assert await names(keys, "one") == ["one"]
    version = keys.version
    issuer.keys = jwks(two=THEIRS)
    clock.now += SELDOM_SECONDS
    assert await names(keys, "two") == ["two"]
    assert await names(keys, "one") == []
    assert keys.version != version


async def test_made_up_names_of_keys_make_no_flood_and_hold_up_nobody_with_a_known_one(issuer: Issuer) -> None:
    clock = Clock()
    keys = IssuerKeys(issuer.url, f"{issuer.url}/keys", clock)
    await keys.of("one")
    clock.now += SELDOM_SECONDS
    issuer.hangs = asyncio.Event()
    flood = [asyncio.create_task(names(keys, f"rubbish-{number}")) for number in range(200)]

    async def asked() -> bool:
        return issuer.asked == 2

    await eventually(asked)
    async with asyncio.timeout(2):
        assert await names(keys, "one") == ["one"]
    issuer.hangs.set()
    assert await asyncio.gather(*flood) == [[]] * 200
    assert await names(keys, "more") == []
    assert issuer.asked == 2


async def test_keys_outlive_an_outage_of_the_issuer_for_a_day_and_no_longer(issuer: Issuer) -> None:
    clock = Clock()
    keys = IssuerKeys(issuer.url, f"{issuer.url}/keys", clock)
    await keys.of("one")
    issuer.status = 500
    clock.now += KEPT_SECONDS
    assert await names(keys, "two") == []
    version = keys.version
    assert await names(keys, "one") == ["one"]
    with pytest.raises(NotReadyError, match="500"):
        await keys.check()
    clock.now += 1
    assert keys.version != version
    with pytest.raises(KeysAwayError):
        await keys.of("one")
    issuer.status = 200
    clock.now += SELDOM_SECONDS
    assert await names(keys, "one") == ["one"]
    await keys.check()


@pytest.mark.parametrize(
    ("keys", "trouble"),
    [
        (b"<html>", "PEM"),
        (b"[]", "PEM"),
        (b" " * (MOST_BYTES + 1), "more than"),
        (b'{"keys": []}', "no key"),
        (b'{"keys": [{"kty": "RSA", "key_ops": null}]}', "no key"),
        (b'{"keys": [{"kty": "RSA", "alg": "none"}]}', "no key"),
        (b'{"keys": ' + b"[" * 100_000, "recursion"),
    ],
    ids=["page", "list", "flood", "empty", "no operations", "no algorithm", "nested"],
)
async def test_what_is_no_key_set_is_told_of_and_lets_nobody_in(issuer: Issuer, keys: bytes, trouble: str) -> None:
    issuer.keys = keys
    tried = IssuerKeys(issuer.url, f"{issuer.url}/keys")
    try:
        assert await names(tried, "one") == []
    except KeysAwayError:
        assert trouble != "no key"
    with pytest.raises(NotReadyError, match=trouble):
        await tried.check()


async def test_keys_are_read_before_the_first_token_and_tried_for_until_the_issuer_is_there(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.issuer_keys.SELDOM_SECONDS", 0.05)
    issuer.status = 503
    keys = IssuerKeys(issuer.url, None)
    async with running(keys):

        async def tried() -> bool:
            return issuer.asked > 1

        await eventually(tried)
        issuer.status = 200

        async def there() -> bool:
            return keys.version == 1

        await eventually(there)


async def test_an_issuer_that_hangs_is_waited_for_no_longer_than_the_limit(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.issuer_keys.ANSWER_SECONDS", 0.2)
    issuer.hangs = asyncio.Event()
    keys = IssuerKeys(issuer.url, f"{issuer.url}/keys")
    with pytest.raises(KeysAwayError):
        await keys.of("one")
    with pytest.raises(NotReadyError, match=r"does not answer within 0\.2 s"):
        await keys.check()
    issuer.hangs.set()


def written(path: Path, text: bytes) -> None:
    """In one step, as a kubelet does."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(text)
    fresh.replace(path)


async def test_a_file_of_keys_is_read_again_as_soon_as_it_changes_and_kept_while_it_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    keys = KeyFile(path)
    with pytest.raises(KeysAwayError):
        await keys.of("one")
    with pytest.raises(NotReadyError, match="No such file"):
        await keys.check()
    written(path, jwks(one=OURS))
    assert await names(keys, "one") == ["one"]
    version = keys.version
    written(path, b"half a fi")
    assert await names(keys, "one") == ["one"]
    with pytest.raises(NotReadyError, match="PEM"):
        await keys.check()
    written(path, jwks(two=THEIRS))
    assert (await names(keys, "one"), await names(keys, "two")) == ([], ["two"])
    assert keys.version != version
    written(path, pem())
    assert await names(keys, "any") == [None]
    await keys.check()
