"""What operators do about dead letters, in the order in which the documentation has it, until none is open.

Over the REST API and the verb, with real processes: Query API, Admin API, relay.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

import asyncpg
import httpx
from pydantic import SecretStr

from consumer_query.records import Reason
from local.ports import LOOPBACK, free_ports
from local.process import Child, Command
from local.services import python
from local.settings import CHECKOUT
from producer_admin import files
from producer_admin.files import FileRecord
from producer_admin.migrations import run_migrate
from producer_admin.settings import AdminDatabaseSettings
from runtime.engine import open_engine
from runtime.topics import ensure_topic
from schemas.codec import Decoder
from schemas.events import FileEvent, FileMetadata
from schemas.topics import RESOLUTIONS, cards, topic_name
from tests.e2e.admin_side import AdminSide
from tests.e2e.poison import REFUSED_BEGIN, Kind, Written, plain, write
from tests.e2e.query_side import Scene
from tests.running import run_verb
from tests.samples import updated
from tests.waiting import eventually, settles

START_SECONDS: Final = 40.0
FIX_REVISIONS: Final = 10
"""How far beyond a bad record's revision the fixed one is."""

REFUSE: Final = f"""
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'not this description' USING ERRCODE = '22023'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON file_metadata_cache_g1 FOR EACH ROW
WHEN (starts_with(NEW.description, '{REFUSED_BEGIN}')) EXECUTE FUNCTION refuse()
"""
ADMIT: Final = "DROP TRIGGER refuse ON file_metadata_cache_g1"

Position: TypeAlias = tuple[int, int]
"""Partition and offset."""


class Bad(NamedTuple):
    """A bad record, and in which way."""

    record: Written
    kind: Kind


async def require_exactly_the_bad_ones(scene: Scene, log: Mapping[Position, Written]) -> dict[Position, Bad]:
    """What is put aside is what is bad, each for its reason. The letters by position."""
    bad = {place: Bad(record, record.kind) for place, record in log.items() if record.kind is not None}
    reasons = await scene.put_aside()
    assert reasons.keys() <= bad.keys(), f"put aside and good: {reasons.keys() - bad.keys()}"
    missing = [one for place, one in bad.items() if place not in reasons and not one.record.may_be_passed_over]
    assert not missing, f"{len(missing)} bad ones are missing: {Counter(one.kind.name for one in missing)}"
    assert reasons == {place: bad[place].kind.reason for place in reasons}
    return {place: bad[place] for place in reasons}


@dataclass
class Mending:
    """What operators do about the letters, in the order in which the documentation has it."""

    scene: Scene
    truth: dict[UUID, FileEvent]
    letters: Mapping[Position, Bad]
    url: str = ""

    async def run(self) -> None:
        admin = await start_admin(self.scene)
        try:
            self.url = await start_query_api(self.scene, admin.urls["api"])
            async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=60) as client:
                assert await open_letters(client) == Counter(one.kind.reason for one in self.letters.values())
                await self._the_rule_goes()
                await self._newer_revisions_come()
                await self._admin_announces_anew(admin)
                assert await open_letters(client) == Counter()
        finally:
            await asyncio.to_thread(admin.stop)

    async def _the_rule_goes(self) -> None:
        """Postgres takes what it refused: a redrive applies it, unless a newer revision has come meanwhile."""
        connection = await asyncpg.connect(self.scene.database)
        await connection.execute(ADMIT)
        await connection.close()
        refused = [one for one in self.letters.values() if one.kind.reason is Reason.REFUSED_BY_DATABASE]
        newest = [one.record for one in refused if not one.record.may_be_passed_over]
        code, done = await self._redrive("--reason", Reason.REFUSED_BY_DATABASE)
        expected = {"redriven": len(newest), "superseded": len(refused) - len(newest)}
        assert (code, done["outcomes"]) == (0, {name: count for name, count in expected.items() if count})
        for record in newest:
            assert record.value is not None
            self.truth[record.file_id] = Decoder().decode(record.value)
        await self.scene.require_rows(self.truth)

    async def _newer_revisions_come(self) -> None:
        """A mended producer writes them: nothing is missing any more of a letter that tells its revision."""
        rest = [one for one in self.letters.values() if one.kind.reason is not Reason.REFUSED_BY_DATABASE]
        fixed = [updated(one.record.file_id, one.record.revision + FIX_REVISIONS) for one in rest]
        self.truth |= {event.file_id: event for event in fixed}
        await write(self.scene.side.kafka.bootstrap_servers, self.scene.topic, plain(*fixed))
        await settles(self.scene.unread, 0)
        await self.scene.require_rows(self.truth)
        mute = {place for place, one in self.letters.items() if not one.kind.tells}
        code, done = await self._redrive("--all")
        assert code == 1
        assert done["outcomes"] == {"superseded": len(rest) - len(mute), "failed": len(mute)}
        assert {one["letter"]["position"] for one in done["failed"]} == {
            f"{self.scene.topic}/{partition}/{offset}" for partition, offset in mute
        }

    async def _admin_announces_anew(self, admin: AdminSide) -> None:
        """What tells no revision only the Admin module can decide on."""
        mute = {one.record.file_id for one in self.letters.values() if not one.kind.tells}
        engine = open_engine(admin.database, "tests")
        try:
            async with engine.begin() as connection:
                for file_id in mute:
                    known = self.truth[file_id]
                    assert known.metadata is not None
                    record = FileRecord(file_id, 1, known.storage_element_id, known.metadata)
                    await files.take_over(connection, [record], "tests")
                    # As often changed there as the cache has seen.
                    await files.republish(connection, [file_id], "tests", known.revision - 1)
            code, done = await self._redrive("--all", "--republish")
            assert (code, done["outcomes"]) == (
                0,
                {"republished": sum(not one.kind.tells for one in self.letters.values())},
            )
            async with engine.connect() as connection:
                for file_id in mute:
                    record = await files.get(connection, file_id)
                    assert record.revision > self.truth[file_id].revision
                    self.truth[file_id] = updated(file_id, record.revision, **fields_of(record.metadata))
        finally:
            await engine.dispose()

        async def are_announced() -> bool:
            rows = await self.scene.rows()
            return all(rows[file_id]["revision"] == self.truth[file_id].revision for file_id in mute)

        await eventually(are_announced, 30, "the relay and the projector have passed them on")
        await self.scene.require_rows(self.truth)

    async def _redrive(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Exit code and answer of the verb."""
        command = (*python("cli", "dlq", "redrive"), *arguments, "--url", self.url, "--json")
        code, told, complaint = await run_verb(command)
        assert told, complaint
        answer: dict[str, Any] = json.loads(told)
        assert (answer["left"], answer["exhausted"]) == (0, 0)
        return code, answer


def fields_of(known: FileMetadata) -> dict[str, Any]:
    return {name: getattr(known, name) for name in FileMetadata.__dataclass_fields__}


async def start_admin(scene: Scene) -> AdminSide:
    """A real Admin module on the scene's servers, whose relay writes to the scene's topic."""
    admin = await new_admin(scene)
    try:
        await asyncio.gather(
            asyncio.to_thread(admin.start, "api", "api"),
            asyncio.to_thread(admin.start, "relay", "relay", FILE_EVENTS_TOPIC=scene.topic),
        )
    except BaseException:
        await asyncio.to_thread(admin.stop)
        raise
    return admin


async def new_admin(scene: Scene) -> AdminSide:
    """An Admin module on the scene's servers, none of whose processes runs yet."""
    side = scene.side
    folder = side.folder / f"{scene.topic}-admin"
    admin = AdminSide(folder, side.kafka, side.postgres)
    admin.files.mkdir(parents=True)
    connection = await asyncpg.connect(side.postgres.url("postgres"))
    await connection.execute("DROP DATABASE IF EXISTS artstore_admin")
    await connection.execute(
        "CREATE DATABASE artstore_admin TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"
    )
    await connection.close()
    await run_migrate(AdminDatabaseSettings(admin_database_url=SecretStr(admin.database)))
    return admin


async def start_query_api(scene: Scene, admin_url: str) -> str:
    """URL of a Query API that knows where the Admin API is."""
    await ensure_topic(
        scene.side.kafka.bootstrap_servers, cards()[RESOLUTIONS], name=topic_name(RESOLUTIONS, scene.topic)
    )
    port, management = free_ports(2)
    settings = {
        "QUERY_DATABASE_URL": scene.database,
        "KAFKA_BOOTSTRAP_SERVERS": scene.side.kafka.bootstrap_servers,
        "FILE_EVENTS_TOPIC": scene.topic,
        "ADMIN_API_URL": admin_url,
        "QUERY_API_PORT": str(port),
        "QUERY_API_MANAGEMENT_PORT": str(management),
    }
    command = Command(
        name="query-api",
        argv=python("consumer_query", "api"),
        log=scene.log("query-api"),
        cwd=CHECKOUT,
        env={**os.environ, **settings},
    )
    scene.processes["query-api"] = await asyncio.to_thread(Child, command)
    scene.management["query-api"] = f"http://{LOOPBACK}:{management}"

    async def is_ready() -> bool:
        scene.require_alive()
        return await scene.unready("query-api") is None

    await eventually(is_ready, START_SECONDS, "the Query API is ready")
    return f"http://{LOOPBACK}:{port}"


async def open_letters(client: httpx.AsyncClient) -> Counter[str]:
    """Letters that wait for somebody, by reason."""
    answer = await client.get("/api/v1/admin/dlq")
    answer.raise_for_status()
    return +Counter[str]({group["reason"]: group["open"] for group in answer.json()["groups"]})
