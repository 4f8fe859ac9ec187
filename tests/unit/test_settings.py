""".env.example lists every setting and nothing else, with the real defaults."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from consumer_query.settings import MaintenanceSettings, ProjectorSettings, QueryApiSettings
from producer_admin.settings import AdminApiSettings, RelaySettings
from runtime.process import run_to_exit
from runtime.settings import ProcessSettings

ALL: tuple[type[ProcessSettings], ...] = (
    AdminApiSettings,
    RelaySettings,
    QueryApiSettings,
    ProjectorSettings,
    MaintenanceSettings,
)
LINE = re.compile(r"^(?P<optional>#?)(?P<name>[A-Z][A-Z0-9_]+)=(?P<value>.*)$", re.MULTILINE)


def test_the_example_lists_every_setting_with_its_real_default() -> None:
    lines = {
        match["name"]: (bool(match["optional"]), match["value"])
        for match in LINE.finditer(Path(".env.example").read_text())
    }
    fields = {name.upper(): field for settings in ALL for name, field in settings.model_fields.items()}
    assert lines.keys() == fields.keys()
    for name, field in fields.items():
        optional, value = lines[name]
        assert optional == (field.default is not PydanticUndefined), name
        if optional:
            default = "" if field.default is None else str(field.default)
            assert value == (default.lower() if isinstance(field.default, bool) else default), name


def test_a_missing_setting_is_named_and_the_exit_code_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ADMIN_DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"):
        monkeypatch.delenv(name, raising=False)

    async def main(_: RelaySettings) -> None:
        raise AssertionError

    with pytest.raises(SystemExit) as exited:
        run_to_exit("admin-relay", RelaySettings, main)
    assert exited.value.code == 2
    assert "ADMIN_DATABASE_URL: Field required" in capsys.readouterr().err


def test_a_file_of_the_secrets_folder_is_a_setting_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "admin_database_url").write_text("postgresql://a:of-the-file@h/d\n")
    (tmp_path / "kafka_bootstrap_servers").write_text("file:9092")
    monkeypatch.delenv("ADMIN_DATABASE_URL", raising=False)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "environment:9092")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    settings = RelaySettings()
    assert settings.admin_database_url.get_secret_value() == "postgresql://a:of-the-file@h/d"
    assert settings.kafka_bootstrap_servers == "environment:9092"


def test_a_secrets_folder_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("ADMIN_DATABASE_URL", "postgresql://h/d")
    with pytest.raises(ValidationError, match="secrets_dir"):
        RelaySettings(kafka_bootstrap_servers="h:1")


def test_a_password_does_not_show_in_a_printed_setting() -> None:
    settings = AdminApiSettings(
        admin_database_url="postgresql://a:pass-word@h/d",
        storage_element_url="file:///x",
    )
    assert "pass-word" not in repr(settings)
