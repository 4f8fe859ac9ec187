"""What is made once stays; each process finds its own settings in its own folder."""

from pathlib import Path

import jwt
import pytest
from typer.testing import CliRunner

from cli.__main__ import app
from cli.secrets import DATABASE_URLS
from consumer_query.settings import MaintenanceSettings, ProjectorSettings, QueryApiSettings, QueryDatabaseSettings
from producer_admin.settings import AdminDatabaseSettings, RelaySettings

READERS = {
    "roles": (AdminDatabaseSettings, QueryDatabaseSettings),
    "admin-migrate": (AdminDatabaseSettings,),
    "admin": (RelaySettings,),
    "query-migrate": (QueryDatabaseSettings,),
    "maintenance": (MaintenanceSettings,),
    "projector": (ProjectorSettings,),
    "query-api": (QueryApiSettings,),
}


def make(folder: Path, *more: str) -> dict[str, str]:
    arguments = ["secrets", "make", str(folder), "--issuer", "https://i.example", "--audience", "artstore", *more]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_passwords_and_keys_are_made_once_and_no_two_are_alike(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path)
    tokens = {name for name in first if name.endswith("/token")}
    assert tokens == {"query-api/token", "maintenance/token"}
    assert {name: text for name, text in first.items() if name not in tokens} == {
        name: text for name, text in second.items() if name not in tokens
    }
    passwords = [text for name, text in first.items() if name.endswith(("/password", "_write", "_read", "_migrate"))]
    assert len(set(passwords)) == len(passwords) == 7


def test_nobody_else_can_read_what_was_made(tmp_path: Path) -> None:
    make(tmp_path)
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o007 == 0, path


@pytest.mark.parametrize("process", DATABASE_URLS)
def test_a_process_reads_its_own_folder(process: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    for name in ("ADMIN_DATABASE_URL", "QUERY_DATABASE_URL", "QUERY_SEARCH_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path / process))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    for settings in READERS[process]:
        read = settings()
        for name, user in DATABASE_URLS[process].items():
            if name in settings.model_fields:
                password = (tmp_path / ("postgres/password" if user == "postgres" else f"roles/{user}")).read_text()
                url = f"postgresql://{user}:{password}@postgres:5432/artstore_{name.partition('_')[0]}"
                assert getattr(read, name).get_secret_value() == url


def test_the_token_of_the_query_side_is_believed_by_the_admin_side(tmp_path: Path) -> None:
    made = make(tmp_path)
    for process in ("query-api", "maintenance"):
        claims = jwt.decode(
            made[f"{process}/token"],
            made["admin/issuer.pem"],
            ["ES256"],
            audience="artstore",
            issuer="https://i.example",
        )
        assert claims["scope"] == "files:read sync:admin"
    assert made["query-api/issuer.pem"] == made["admin/issuer.pem"] == made["issuer/public.pem"]
    assert [name for name in made if "key.pem" in name] == ["issuer/key.pem"]


def test_everything_is_given_to_the_user_who_is_to_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = set()
    monkeypatch.setattr("os.chown", lambda path, user, group: given.add((path, user, group)))
    make(tmp_path, "--owner", "65532")
    assert given == {(path, 65532, 65532) for path in tmp_path.rglob("*")}
