"""helm/README.md is made of helm/values.yaml: each value stands there with what its comment says, and none without.

    python -m tests.chart_readme        # write it anew

A comment that begins with `# --` is about the key below it, and about all below that which has none of its own.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml  # type: ignore[import-untyped]

from local.settings import CHECKOUT

CHART: Final = CHECKOUT / "helm"
_KEY: Final = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z0-9]+):")
_SAID: Final = re.compile(r"^ *# -- (?P<text>.+)$")

_MORE: Final = re.compile(r"^ *# (?P<text>.+)$")


class Value(NamedTuple):
    """One row of the table."""

    path: tuple[str, ...]
    said: str
    default: Any


def values(text: str) -> Iterator[Value]:
    """What values.yaml documents, in its order.

    Raises:
        ValueError: a value has no comment.
    """
    defaults = yaml.safe_load(text)
    said = dict(_comments(text))
    yield from _walk(defaults, (), said)


def _comments(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    path: list[tuple[int, str]] = []
    waiting = ""
    for line in text.splitlines():
        if found := _SAID.match(line):
            waiting = found["text"]
        elif waiting and (more := _MORE.match(line)):
            waiting += " " + more["text"]
        elif key := _KEY.match(line):
            indent = len(key["indent"])
            path = [*(one for one in path if one[0] < indent), (indent, key["key"])]
            if waiting:
                yield tuple(name for _, name in path), waiting
            waiting = ""


def _walk(default: Any, path: tuple[str, ...], said: dict[tuple[str, ...], str]) -> Iterator[Value]:
    inner = isinstance(default, dict) and any(one[: len(path)] == path and len(one) > len(path) for one in said)
    if inner:
        for key, value in default.items():
            yield from _walk(value, (*path, key), said)
    elif path in said:
        yield Value(path, said[path], default)
    else:
        raise ValueError(f"{'.'.join(path)} has no comment in values.yaml.")


def readme(folder: Path = CHART) -> str:
    """The text of the README."""
    rows = [_row(value) for value in values((folder / "values.yaml").read_text())]
    head = (folder / "README.head.md").read_text()
    return "\n".join([head, "| Value | Default | |", "|---|---|---|", *rows, ""])


def _row(value: Value) -> str:
    default = json.dumps(value.default, ensure_ascii=False)
    return f"| `{'.'.join(value.path)}` | `{default}` | {value.said.replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    (CHART / "README.md").write_text(readme())
