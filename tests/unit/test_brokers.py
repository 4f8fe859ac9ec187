"""How the brokers are spoken to is one value: it is whole, or it is refused with a sentence and no secret."""

import asyncio
import pickle
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import SecretStr

from consumer_query.settings import MaintenanceSettings, QueryApiSettings
from producer_admin.settings import RelaySettings
from runtime import tokens
from runtime.brokers import client_options
from runtime.process import run_to_exit
from runtime.tokens import TokenError, Tokens
from tests.running import served
from tests.secure_kafka import Authority

SCRAM = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "a-relay",
    "KAFKA_SASL_PASSWORD": "hush",
}
TOKEN = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
    "KAFKA_OAUTH_TOKEN_URL": "https://issuer.example.org/token",
    "KAFKA_OAUTH_CLIENT_ID": "a-relay",
    "KAFKA_OAUTH_CLIENT_SECRET": "hush",
}
PLAIN = "KAFKA_SECURITY_PROTOCOL=PLAINTEXT"


@pytest.fixture(autouse=True)
def _given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "broker:9093")
    monkeypatch.setenv("ADMIN_DATABASE_URL", "postgresql://h/d")
    monkeypatch.setenv("QUERY_DATABASE_URL", "postgresql://h/d")
    monkeypatch.setattr(tokens, "ANSWER_SECONDS", 60.0)


def set_all(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def test_a_plain_address_is_a_broker_that_lets_everybody_in() -> None:
    plain = {"bootstrap_servers": "broker:9092", "security_protocol": "PLAINTEXT"}
    assert client_options("broker:9092") == plain


def test_what_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        name.upper()
        for name in RelaySettings.model_fields
        if name.startswith(("kafka_sasl", "kafka_ssl", "kafka_oauth"))
    ]
    assert len(names) == 11
    set_all(monkeypatch, dict.fromkeys(names, ""))
    assert RelaySettings().brokers.client_options() == client_options("broker:9093")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({**SCRAM, "KAFKA_SASL_MECHANISM": ""}, "KAFKA_SASL_MECHANISM is needed with KAFKA_SECURITY_PROTOCOL="),
        ({**SCRAM, "KAFKA_SASL_USERNAME": ""}, "KAFKA_SASL_USERNAME is needed with KAFKA_SASL_MECHANISM="),
        ({**SCRAM, "KAFKA_SASL_PASSWORD": ""}, "KAFKA_SASL_PASSWORD is needed with KAFKA_SASL_MECHANISM="),
        (
            {**SCRAM, "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"},
            f"KAFKA_SASL_MECHANISM is set, but {PLAIN} does not log in: take SASL_SSL.",
        ),
        (
            {"KAFKA_SASL_PASSWORD": "hush"},
            f"KAFKA_SASL_PASSWORD is set, but {PLAIN} does not log in: take SASL_SSL.",
        ),
        (
            {**SCRAM, "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SSL_CA_FILE": "{ca}"},
            "KAFKA_SSL_CA_FILE is set, but KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT uses no TLS: take SSL or SASL_SSL.",
        ),
        (
            {**SCRAM, "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SSL_CERTIFICATE_FILE": "{ca}"},
            "KAFKA_SSL_CERTIFICATE_FILE is set, but KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT uses no TLS: ",
        ),
        ({**SCRAM, "KAFKA_SSL_CA_FILE": "/nowhere.pem"}, "KAFKA_SSL_CA_FILE: Path does not point to a file"),
        ({**SCRAM, "KAFKA_SSL_CA_FILE": "{key}"}, "KAFKA_SSL_CA_FILE {key} cannot be used: "),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CERTIFICATE_FILE": "{ca}"},
            "KAFKA_SSL_CERTIFICATE_FILE and KAFKA_SSL_KEY_FILE are needed together.",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CERTIFICATE_FILE": "{ca}", "KAFKA_SSL_KEY_FILE": "{other}"},
            "KAFKA_SSL_CERTIFICATE_FILE {ca} with its key cannot be used: ",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_KEY_PASSWORD": "hush"},
            "KAFKA_SSL_KEY_PASSWORD is set without KAFKA_SSL_KEY_FILE.",
        ),
        (
            {**TOKEN, "KAFKA_OAUTH_TOKEN_URL": ""},
            "KAFKA_OAUTH_TOKEN_URL is needed with KAFKA_SASL_MECHANISM=OAUTHBEARER.",
        ),
        (
            {**TOKEN, "KAFKA_SASL_PASSWORD": "hush"},
            "KAFKA_SASL_PASSWORD is set, but KAFKA_SASL_MECHANISM=OAUTHBEARER does not use it.",
        ),
        (
            {**SCRAM, "KAFKA_OAUTH_SCOPE": "kafka"},
            "KAFKA_OAUTH_SCOPE is set, but KAFKA_SASL_MECHANISM=SCRAM-SHA-512 does not use it.",
        ),
        ({**TOKEN, "KAFKA_OAUTH_TOKEN_URL": "http://issuer"}, "KAFKA_OAUTH_TOKEN_URL is not an https:// URL"),
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "KAFKA_SECURITY_PROTOCOL: Input should be 'PLAINTEXT', 'SSL'"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused_with_a_sentence_and_exit_code_2(
    changes: dict[str, str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    files = {"ca": tmp_path / "one.pem", "key": tmp_path / "one.key", "other": tmp_path / "other.key"}
    Authority(tmp_path, "one")
    Authority(tmp_path, "other")
    set_all(monkeypatch, {name: value.format(**files) for name, value in changes.items()})

    async def main(_: QueryApiSettings) -> None:
        raise AssertionError

    with pytest.raises(SystemExit) as exited:
        run_to_exit("query-api", QueryApiSettings, main)
    assert exited.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(sentence.format(**files))
    assert "hush" not in said


def test_a_certificate_of_our_own_is_shown_and_the_password_of_its_key_is_never_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    own = authority.certify("client", "127.0.0.1")
    set_all(
        monkeypatch,
        {
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "KAFKA_SSL_CA_FILE": str(authority.file),
            "KAFKA_SSL_CERTIFICATE_FILE": str(own),
            "KAFKA_SSL_KEY_FILE": str(own),
        },
    )
    options = RelaySettings().brokers.client_options()
    context = options.pop("ssl_context")
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert options == {"bootstrap_servers": "broker:9093", "security_protocol": "SSL"}


def test_settings_go_to_another_process_with_their_brokers_and_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, SCRAM)
    settings = MaintenanceSettings()
    before = settings.brokers.client_options()
    after = pickle.loads(pickle.dumps(settings)).brokers.client_options()
    assert isinstance(after.pop("ssl_context"), ssl.SSLContext)
    assert after == {name: value for name, value in before.items() if name != "ssl_context"}
    assert "hush" not in f"{settings!r} {settings.brokers!r}"


class Endpoint:
    """Answers as it is told, and knows what it was asked."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self._answers = list(answers)
        self._over = asyncio.Event()
        self.asked: list[tuple[str, str]] = []

    @asynccontextmanager
    async def open(self, scope: str | None = None) -> AsyncIterator[Tokens]:
        app = FastAPI()

        @app.post("/token")
        async def _(request: Request) -> JSONResponse:
            self.asked.append((request.headers["authorization"], (await request.body()).decode()))
            status, body = self._answers.pop(0)
            if not status:
                await self._over.wait()
            return JSONResponse(body, status or 200)

        async with served(app) as url:
            yield Tokens(f"{url}/token", "a:relay", SecretStr("hush"), scope)
            self._over.set()


async def test_connections_that_begin_at_once_share_one_token_until_shortly_before_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(tokens, "monotonic", lambda: now[0])
    endpoint = Endpoint(
        *((200, {"access_token": f"t{n}", "expires_in": life}) for n, life in enumerate((300, 20, 300)))
    )
    async with endpoint.open("kafka") as source:
        assert await asyncio.gather(*(source.token() for _ in range(12))) == ["t0"] * 12
        now[0] += 269
        assert await source.token() == "t0"
        now[0] += 2
        assert await source.token() == "t1"
        now[0] += 11  # more than half of a short life
        assert await source.token() == "t2"
    # RFC 6749, 2.3.1: encoded as in a form, so that the colon in the name is none between the two.
    assert endpoint.asked == [("Basic YSUzQXJlbGF5Omh1c2g=", "grant_type=client_credentials&scope=kafka")] * 3


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, {"error": "invalid_client", "error_description": "no such client"}, "401 invalid_client: no such client"),
        (500, ["?"], "500"),
        (200, {"expires_in": 300}, "200"),
        (200, {"access_token": "t", "expires_in": "soon"}, "200"),
    ],
)
async def test_an_endpoint_that_gives_no_token_is_told_of_without_a_secret_and_asked_again(
    status: int, body: Any, said: str
) -> None:
    endpoint = Endpoint((status, body), (200, {"access_token": "t", "expires_in": 300}))
    async with endpoint.open() as source:
        with pytest.raises(TokenError, match=said) as refused:
            await source.token()
        assert "hush" not in str(refused.value)
        assert await source.token() == "t"


async def test_an_endpoint_that_hangs_holds_up_a_connection_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "ANSWER_SECONDS", 0.5)
    async with Endpoint((0, {})).open() as source:
        with pytest.raises(TokenError, match=r"did not answer within 0\.5 s|Timeout"):
            await source.token()


async def test_an_endpoint_that_is_away_is_a_fault_of_the_connection() -> None:
    with pytest.raises(TokenError, match="ConnectError"):
        await Tokens("http://127.0.0.1:9/token", "a", SecretStr("hush")).token()
