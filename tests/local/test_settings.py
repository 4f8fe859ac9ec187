from pathlib import Path

import pytest

from local.errors import LocalError
from local.settings import CacheSettings, StackSettings


def test_a_refused_value_is_one_sentence_that_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_API_PORT", "eighty")
    with pytest.raises(LocalError, match=r"ADMIN_API_PORT.*'eighty'"):
        StackSettings.read()


def test_a_stack_on_free_ports_shares_none(tmp_path: Path) -> None:
    settings = StackSettings.on_free_ports(tmp_path)
    ports = [value for name, value in settings.model_dump().items() if name.endswith("_port")]
    assert len(ports) == len(set(ports)) == 9
    assert settings.artstore_home == tmp_path


def test_the_cache_follows_the_desktop_convention(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ARTSTORE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert CacheSettings().folder == tmp_path / "artstore"
    monkeypatch.setenv("ARTSTORE_CACHE", str(tmp_path / "own"))
    assert CacheSettings().folder == tmp_path / "own"
