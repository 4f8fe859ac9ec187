"""No API is open by mistake: what would let everybody in, or could not let anybody in, is refused at the start."""

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from consumer_query.settings import MaintenanceSettings, QueryApiSettings
from producer_admin.settings import AdminApiSettings
from runtime.auth import open_guard
from runtime.service_token import open_service_token
from runtime.settings import is_loopback
from tests.running import run_verb

JWT = {"AUTH_MODE": "jwt", "AUTH_ISSUER": "https://issuer.example", "AUTH_AUDIENCE": "artstore"}
CLIENT = {"AUTH_TOKEN_URL": "https://issuer.example/token", "AUTH_CLIENT_ID": "query", "AUTH_CLIENT_SECRET": "s3cret"}
OTHERS = {
    "ADMIN_DATABASE_URL": "postgresql://a@127.0.0.1:1/a",
    "QUERY_DATABASE_URL": "postgresql://a@127.0.0.1:1/a",
    "STORAGE_ELEMENT_URL": "file:///x",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
}
APIS = (AdminApiSettings, QueryApiSettings)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in OTHERS.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize("settings", APIS)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.1.2.3", "files.example.org", "[::1]"])
def test_without_tokens_an_api_listens_to_this_machine_alone(
    environment: pytest.MonkeyPatch, settings: type[AdminApiSettings | QueryApiSettings], host: str
) -> None:
    name = "ADMIN_API_HOST" if settings is AdminApiSettings else "QUERY_API_HOST"
    environment.setenv(name, host)
    with pytest.raises(ValidationError, match=f"{name}=.* lets other machines in"):
        settings()
    for variable, value in JWT.items():
        environment.setenv(variable, value)
    assert settings().auth_mode == "jwt"


@pytest.mark.parametrize(
    ("host", "alone"), [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("host", False)]
)
def test_the_loopback_is_known_by_any_of_its_names(host: str, alone: bool) -> None:  # noqa: FBT001 - a table
    assert is_loopback(host) is alone


@pytest.mark.parametrize("settings", APIS)
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"AUTH_ISSUER": ""}, "needs AUTH_ISSUER and AUTH_AUDIENCE"),
        ({"AUTH_AUDIENCE": ""}, "needs AUTH_ISSUER and AUTH_AUDIENCE"),
        ({"AUTH_ISSUER": "http://issuer.example"}, "AUTH_ISSUER is not an https:// URL"),
        ({"AUTH_ISSUER": "urn:issuer"}, "AUTH_ISSUER is not an https:// URL"),
        ({"AUTH_JWKS_URL": "http://issuer.example/keys"}, "AUTH_JWKS_URL is not an https:// URL"),
        ({"AUTH_MODE": "on"}, "auth_mode"),
        ({"AUTH_LEEWAY_SECONDS": "3600"}, "auth_leeway_seconds"),
    ],
    ids=str,
)
def test_tokens_that_nobody_could_check_well_are_refused(
    environment: pytest.MonkeyPatch,
    settings: type[AdminApiSettings | QueryApiSettings],
    changes: dict[str, str],
    why: str,
) -> None:
    for name, value in (JWT | changes).items():
        environment.setenv(name, value)
    with pytest.raises(ValidationError, match=why):
        settings()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"AUTH_JWKS_URL": "https://issuer.example/keys"},
        {"AUTH_ISSUER": "http://127.0.0.1:8080"},
        {"AUTH_ISSUER": "urn:this-machine", "AUTH_KEY_FILE": "/run/keys/public.pem"},
    ],
    ids=str,
)
def test_an_issuer_is_named_by_its_url_or_any_text_with_a_file_of_keys(
    environment: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    for name, value in (JWT | changes).items():
        environment.setenv(name, value)
    assert open_guard(QueryApiSettings()) is not None


def test_without_tokens_there_is_no_guard(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AUTH_MODE", "off")
    assert open_guard(AdminApiSettings()) is None


@pytest.mark.parametrize("settings", [QueryApiSettings, MaintenanceSettings])
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"AUTH_CLIENT_SECRET": ""}, "needs AUTH_CLIENT_ID and AUTH_CLIENT_SECRET"),
        ({"AUTH_TOKEN_URL": ""}, "which is not set"),
        ({"AUTH_TOKEN_FILE": "/run/token"}, "exclude each other"),
        ({"AUTH_TOKEN_URL": "http://issuer.example/token"}, "not an https:// URL"),
    ],
    ids=str,
)
def test_two_ways_to_a_token_of_ones_own_or_half_of_one_are_refused(
    environment: pytest.MonkeyPatch,
    settings: type[QueryApiSettings | MaintenanceSettings],
    changes: dict[str, str],
    why: str,
) -> None:
    for name, value in (CLIENT | changes).items():
        environment.setenv(name, value)
    with pytest.raises(ValidationError, match=why) as refused:
        settings()
    assert "s3cret" not in str(refused.value)


def test_a_service_shows_a_token_of_its_own_or_none(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert open_service_token(MaintenanceSettings()) is None
    environment.setenv("AUTH_TOKEN_FILE", str(tmp_path / "token"))
    assert open_service_token(MaintenanceSettings()) is not None
    environment.delenv("AUTH_TOKEN_FILE")
    for name, value in CLIENT.items():
        environment.setenv(name, value)
    settings = QueryApiSettings()
    assert open_service_token(settings) is not None
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("package", "name"), [("producer_admin", "ADMIN_API_HOST"), ("consumer_query", "QUERY_API_HOST")]
)
async def test_an_open_process_does_not_start_and_says_what_to_set(package: str, name: str) -> None:
    code, told, why = await run_verb((sys.executable, "-P", "-m", package, "api"), **OTHERS, **{name: "0.0.0.0"})
    assert (code, told) == (2, "")
    assert why == (
        f"{name}=0.0.0.0 lets other machines in, and AUTH_MODE=off lets them do everything. "
        "Set AUTH_MODE=jwt, AUTH_ISSUER and AUTH_AUDIENCE (docs/auth.md), or listen on 127.0.0.1.\n"
    )
