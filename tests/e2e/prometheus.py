"""A real Prometheus over a stack, with the rules of monitoring/: conditions as they are, durations short."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import yaml  # type: ignore[import-untyped]

from local.ports import LOOPBACK, free_port
from local.process import Child, Command
from local.settings import CacheSettings
from tests.monitoring import RULES, SCRAPING, read

SHORT: Final = "2s"
"""Instead of the `for` of each rule."""
WINDOW: Final = "[20s]"
"""Instead of five minutes of rates and trends."""
START_SECONDS: Final = 30.0
_PACKAGE: Final = "prometheus"


class Tools(NamedTuple):
    """Where the programs are."""

    prometheus: Path
    promtool: Path


def ensure_tools() -> Tools:
    """Those on the path; or those of the distribution's package, unpacked into the cache, not installed."""
    there = shutil.which("prometheus"), shutil.which("promtool")
    if there[0] and there[1]:
        return Tools(Path(there[0]), Path(there[1]))
    folder = CacheSettings().folder / _PACKAGE
    if not folder.is_dir():
        _unpack(folder)
    return Tools(folder / "usr" / "bin" / "prometheus", folder / "usr" / "bin" / "promtool")


def _unpack(folder: Path) -> None:
    assert all(map(shutil.which, ("apt-get", "dpkg"))), "Put prometheus and promtool on the path."
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        # Its warning that it is no sandbox is of no use to anybody here.
        subprocess.run(["apt-get", "download", _PACKAGE], cwd=part, check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        raise AssertionError(f"apt-get update, then try again. {error.stderr.decode()}") from error
    [package] = part.glob("*.deb")
    subprocess.run(["dpkg", "-x", package, part / "unpacked"], check=True)
    (part / "unpacked").rename(folder)
    shutil.rmtree(part)


class Prometheus:
    """One that runs."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """What an instant query finds now."""
        found: list[dict[str, Any]] = (await self._ask("query", query=expression))["result"]
        return found

    async def targets(self) -> dict[str, str]:
        """Health of each target by its job."""
        found = (await self._ask("targets"))["activeTargets"]
        return {one["labels"]["job"]: one["health"] for one in found}

    async def rules(self) -> dict[str, str]:
        """Health of each rule by its name."""
        groups = (await self._ask("rules"))["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    async def firing(self, name: str, **labels: str) -> list[dict[str, Any]]:
        """Alerts of a name, with these labels among others, that fire now."""
        found = (await self._ask("alerts"))["alerts"]
        expected = {"alertname": name, **labels}
        return [one for one in found if one["state"] == "firing" and expected.items() <= one["labels"].items()]

    async def critical(self) -> set[str]:
        """Critical alerts that fire or may soon."""
        found = (await self._ask("alerts"))["alerts"]
        return {one["labels"]["alertname"] for one in found if one["labels"]["severity"] == "critical"}

    async def _ask(self, what: str, **parameters: str) -> Any:
        answer = await self._client.get(f"/api/v1/{what}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@asynccontextmanager
async def prometheus(folder: Path, targets: Mapping[str, str]) -> AsyncIterator[Prometheus]:
    """Scrape each second the targets, host:port by job, that take the place of those in prometheus.yaml."""
    folder.mkdir()
    config = folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump(_scraping(targets)))
    (folder / "rules.yaml").write_text(yaml.safe_dump(hurried(read(RULES))))
    port = free_port()
    with _started(folder, config, port):
        async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}", trust_env=False) as client:
            yield Prometheus(client)


def hurried(rules: dict[str, Any]) -> dict[str, Any]:
    """The same rules with short durations."""
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = re.sub(r"\[5m\]", WINDOW, rule["expr"])
            if "for" in rule:
                rule["for"] = SHORT
    return rules


def _scraping(targets: Mapping[str, str]) -> dict[str, Any]:
    config: dict[str, Any] = read(SCRAPING)
    config["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), "1s")
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    return config


@contextmanager
def _started(folder: Path, config: Path, port: int) -> Iterator[None]:
    argv = (
        str(ensure_tools().prometheus),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={LOOPBACK}:{port}",
        "--log.level=warn",
    )
    child = Child(Command(name="prometheus", argv=argv, log=folder / "prometheus.log", cwd=folder))
    try:
        child.wait_until(lambda: _is_ready(port), START_SECONDS)
        yield
    finally:
        child.stop(10)


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://{LOOPBACK}:{port}/-/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


async def promtool(*arguments: str | Path) -> str:
    """Run it: what it says when all is well."""
    process = await asyncio.create_subprocess_exec(
        ensure_tools().promtool, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()
    return told.decode()
