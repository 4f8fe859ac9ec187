"""An image holds the command line without the one-machine mode: verbs that need that say so, the others do not."""

import sys
from pathlib import Path

import pytest

from cli.__main__ import main
from cli.running import admin_database, running_or_none


@pytest.fixture(autouse=True)
def as_in_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in {"local", "bench"}]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("local", "bench", "psutil"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("stamina.instrumentation.set_on_retry_hooks", lambda _: None)


@pytest.mark.parametrize("verb", ["up", "down", "status", "demo", "test", "bench relay"])
def test_a_verb_of_the_one_machine_mode_says_that_it_is_not_there(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["artstore", *verb.split()])
    with pytest.raises(SystemExit) as exited:
        main()
    assert exited.value.code == 1
    assert "This verb is for the one-machine mode, which is not installed here" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", ["search word", "lag", "sync reports"])
def test_a_verb_that_asks_an_api_looks_for_no_stack(
    arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["artstore", *arguments.split()])
    with pytest.raises(SystemExit) as exited:
        main()
    assert exited.value.code in {1, 2}
    assert "ArtStore is not running here" in capsys.readouterr().err
    assert running_or_none() is None


def test_the_admin_database_may_be_named_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ADMIN_DATABASE_URL", raising=False)
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    (tmp_path / "admin_database_url").write_text("postgresql://u:p@h/d")
    assert admin_database() == "postgresql://u:p@h/d"
