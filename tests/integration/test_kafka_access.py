"""A broker that lets in only whom it knows: our processes do their work there, each as its own user and no more."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import httpx
import jwt
import pytest
import uvloop
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    TopicAuthorizationFailedError,
    for_code,
)
from confluent_kafka.admin import AclBindingFilter, AdminClient
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import FastAPI, Form
from jwt.algorithms import RSAAlgorithm
from pydantic import SecretStr

from consumer_query.cache_guard import CacheGuard, Cure
from consumer_query.dead_letters import TopicDeadLetters
from consumer_query.log_evidence import LogEvidence
from consumer_query.projector import Limits, Projector
from consumer_query.records import RecordReader
from local.ports import free_ports
from local.process import Child, Command
from local.services import python
from local.settings import CHECKOUT
from producer_admin.outbox import shard_of
from producer_admin.publisher import ShardPublisher
from runtime.acls import Acl, Process, _binding, _configuration, acls, ensure_acls
from runtime.brokers import Brokers
from runtime.health import NotReadyError
from runtime.kafka import (
    admin_client,
    all_partitions,
    group_consumer,
    idempotent_producer,
    plain_consumer,
    transactional_producer,
)
from runtime.topics import ensure_topics
from runtime.whole_topic import whole_topic
from schemas.events import FileEvent
from tests.integration.conftest import cached, outbox_row
from tests.running import run_verb, running, served
from tests.samples import created
from tests.secure_kafka import ADMIN, AUDIENCE, REAUTHENTICATE_SECONDS, Authority, SecureKafka, password
from tests.waiting import eventually, settles

USERS: Final[Mapping[Process, str]] = {
    "relay": "a-relay",
    "projector": "a-projector",
    "maintenance": "a-maintenance",
    "query-api": "a-query-api",
}
STRANGER: Final = "a-stranger"
ISSUER: Final = "https://issuer.example.org"
TOKEN_SECONDS: Final = 300
START_SECONDS: Final = 120
CLIENTS: Final = 8
"""Enough that one of them is sure to send a request right before its end."""


@dataclass
class Issuer:
    """Gives tokens for a secret, and knows how many."""

    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    given: int = 0

    def jwks(self) -> str:
        public = RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return json.dumps({"keys": [public | {"kid": "1", "use": "sig", "alg": "RS256"}]})

    def token(self, user: str) -> str:
        self.given += 1
        now = int(time.time())
        claims = {"sub": user, "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + TOKEN_SECONDS, "scope": "kafka"}
        return jwt.encode(claims, self.key, "RS256", {"kid": "1"})

    def app(self, user: str) -> FastAPI:
        app = FastAPI()

        @app.post("/token")
        def _(grant_type: str = Form()) -> dict[str, Any]:
            assert grant_type == "client_credentials"
            return {"access_token": self.token(user), "expires_in": TOKEN_SECONDS}

        return app


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
def kafka(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    folder = tmp_path_factory.mktemp("secure")
    jwks = folder / "jwks.json"
    jwks.write_text(issuer.jwks())
    with SecureKafka(folder / "kafka", [*USERS.values(), STRANGER], jwks, ISSUER) as running_kafka:
        yield running_kafka


@dataclass(frozen=True)
class Place:
    """Topics and a group of their own, and the ACLs that our processes need there."""

    kafka: SecureKafka
    topic: str
    group: str

    def brokers(self, user: str) -> Brokers:
        return self.kafka.brokers(user)

    def environment(self, user: str) -> dict[str, str]:
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": user,
            "KAFKA_SASL_PASSWORD": password(user),
            "KAFKA_SSL_CA_FILE": str(self.kafka.authority.file),
            "FILE_EVENTS_TOPIC": self.topic,
            "KAFKA_CONSUMER_GROUP": self.group,
        }

    async def allow(self, users: Mapping[Process, str]) -> None:
        await asyncio.to_thread(ensure_acls, self.brokers(ADMIN), acls(users, self.topic, self.group))

    async def forbid(self, *gone: Acl) -> None:
        with AdminClient(_configuration(self.brokers(ADMIN))) as client:
            for done in client.delete_acls([AclBindingFilter(*_binding(one)) for one in gone]).values():
                assert await asyncio.to_thread(done.result, START_SECONDS)

    async def announce(self, *events: Any, value: bytes | None = None) -> None:
        """Put events on the topic as the relay does, or one with another value."""
        for event in events:
            row = outbox_row(event) if value is None else outbox_row(event)._replace(payload=value)
            publisher = await ShardPublisher.open(self.brokers(ADMIN), self.topic, shard_of(event.file_id))
            try:
                await publisher.publish([row])
            finally:
                await publisher.close()

    async def dead_letters(self) -> int:
        return len([one async for one in whole_topic(self.brokers(ADMIN), f"{self.topic}.dlq")])


@pytest.fixture
async def place(kafka: SecureKafka) -> Place:
    name = uuid4().hex[:12]
    made = Place(kafka, f"events-{name}", f"group-{name}")
    await ensure_topics(made.brokers(ADMIN), made.topic)
    await made.allow(USERS)
    return made


@contextmanager
def service(folder: Path, module: str, verb: str, **environment: str) -> Iterator[tuple[str, str]]:
    """A process of ours; the URLs of its management port, and of its API if it has one."""
    management, api = free_ports(2)
    side = "ADMIN" if module == "producer_admin" else "QUERY"
    ports = {f"{side}_{verb.upper()}_MANAGEMENT_PORT": str(management), "QUERY_API_PORT": str(api)}
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env = inherited | ports | {"LOG_FORMAT": "console"} | environment
    child = Child(Command(verb, python(module, verb), folder / f"{verb}.log", CHECKOUT, env))
    try:
        yield f"http://127.0.0.1:{management}", f"http://127.0.0.1:{api}"
    finally:
        if child.exit_code() is not None:
            print(child.died())
        child.stop(20)


async def answer(url: str) -> tuple[int, Any]:
    """What a route answers; 0 while nobody does."""
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        try:
            got = await client.get(url)
        except httpx.TransportError:
            return 0, {}
    return got.status_code, got.json()


async def is_found(url: str) -> bool:
    return (await answer(url))[0] == 200


async def told(url: str, **body: Any) -> Any:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        got = await client.post(url, json=body)
    assert got.is_success, got.text
    return got.json()


async def test_our_processes_do_all_their_work_as_users_of_their_own(
    place: Place, admin: httpx.AsyncClient, admin_database: str, query_database: str, tmp_path: Path
) -> None:
    as_user = {process: place.environment(user) for process, user in USERS.items()}
    query = {"QUERY_DATABASE_URL": query_database}
    with (
        service(tmp_path, "producer_admin", "relay", ADMIN_DATABASE_URL=admin_database, **as_user["relay"]),
        service(tmp_path, "consumer_query", "projector", **query, **as_user["projector"]) as (projector, _),
        service(tmp_path, "consumer_query", "maintenance", **query, **as_user["maintenance"]),
        service(tmp_path, "consumer_query", "api", **query, **as_user["query-api"]) as (_, api),
    ):
        uploaded = await admin.post("/upload", files={"file": ("договор.txt", b"x")})
        file_id = uploaded.json()["file_id"]
        at, operators = f"{api}/api/v1/files/{file_id}", f"{api}/api/v1/admin"
        await eventually(partial(is_found, at), START_SECONDS, "an upload that is found")
        await settles(partial(answer, f"{projector}/health/ready"), (200, {"status": "ready"}))

        await place.announce(created(), value=b"not an event")

        async def letters() -> list[str]:
            _, found = await answer(f"{operators}/dlq/letters")
            return [one["status"] for one in found.get("letters", ())]

        await settles(letters, ["open"], START_SECONDS)
        await told(f"{operators}/dlq/drop", all=True, note="a test")
        await settles(letters, ["dropped"])

        async def lag() -> tuple[Any, ...]:
            _, found = await answer(f"{operators}/lag")
            return tuple(found.get(name) for name in ("status", "members", "events"))

        await settles(lag, ("ok", 1, 0), START_SECONDS)

        job = await told(f"{operators}/rebuild")

        async def phase() -> str:
            return str((await answer(f"{operators}/rebuild/{job['job_id']}"))[1]["phase"])

        await settles(phase, "swapped", START_SECONDS)
        assert await is_found(at)


Attempt = Callable[[Brokers], Awaitable[None]]


async def produce(topic: str, brokers: Brokers) -> None:
    async with idempotent_producer(brokers, "test") as producer:
        await producer.send_and_wait(topic, b"x", b"x", partition=0)


async def begin_transactions(transactional_id: str, brokers: Brokers) -> None:
    async with transactional_producer(brokers, transactional_id):
        pass


async def consume(topic: str, brokers: Brokers) -> None:
    await all_partitions(brokers, topic)  # of a topic that it may not describe, the consumer only says so in the log
    async with plain_consumer(brokers) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.getmany(timeout_ms=10_000)


async def join(topic: str, group: str, brokers: Brokers) -> None:
    async with group_consumer(brokers, group, "test") as consumer:
        consumer.subscribe([topic])
        await consumer.getmany(timeout_ms=10_000)


async def make_a_topic(brokers: Brokers) -> None:
    async with admin_client(brokers) as client:
        [(_, code, _)] = (await client.create_topics([NewTopic("another", 1, 1)])).topic_errors
    if code:
        raise for_code(code)


async def let_itself_do_more(place: Place, user: str, brokers: Brokers) -> None:
    await asyncio.to_thread(ensure_acls, brokers, [Acl(user, "Write", "topic", place.topic, is_prefix=False)])


async def test_each_user_is_refused_what_its_process_does_not_do(place: Place) -> None:
    main, letters, resolutions = place.topic, f"{place.topic}.dlq", f"{place.topic}.dlq-resolutions"
    fencing = partial(begin_transactions, f"{main}.relay-0")
    writing = {name: partial(produce, name) for name in (main, letters, resolutions)}
    reading = {name: partial(consume, name) for name in (main, letters, resolutions)}
    joining = partial(join, main, place.group)
    forbidden: dict[str, list[Attempt]] = {
        USERS["relay"]: [
            writing[letters], writing[resolutions], reading[main], reading[letters], joining,
            partial(begin_transactions, "another"),
        ],
        USERS["projector"]: [
            writing[main], writing[resolutions], reading[letters], reading[resolutions], fencing,
            partial(join, main, "another"),
        ],
        USERS["maintenance"]: [writing[main], writing[resolutions], reading[letters], fencing, joining],
        USERS["query-api"]: [writing[main], writing[letters], fencing, joining],
        STRANGER: [writing[main], writing[letters], reading[main], reading[letters], fencing, joining],
    }  # fmt: skip

    async def refusals(user: str) -> list[str]:
        brokers = place.brokers(user)
        let = []
        more: list[Attempt] = [make_a_topic, partial(let_itself_do_more, place, user)]
        for attempt in forbidden[user] + more:
            try:
                async with asyncio.timeout(START_SECONDS):
                    await attempt(brokers)
            except KafkaError as error:
                if "authorization" in f"{type(error)} {error} {error.__cause__}".lower():
                    continue
                raise
            let.append(f"{user}: {attempt}")
        return let

    assert [one for found in await asyncio.gather(*map(refusals, forbidden)) for one in found] == []


def with_another_password(place: Place) -> Brokers:
    return replace(place.brokers(USERS["projector"]), sasl_password=SecretStr("another"))


def of_another_authority(place: Place) -> Brokers:
    other = Authority(place.kafka.home, "another")
    return replace(place.brokers(USERS["projector"]), ssl_ca_file=other.file)


def by_another_name(place: Place) -> Brokers:
    brokers = place.brokers(USERS["projector"])
    return replace(brokers, servers=brokers.servers.replace("127.0.0.1", "localhost"))


def by_a_mechanism_it_does_not_have(place: Place) -> Brokers:
    return replace(place.brokers(USERS["projector"]), sasl_mechanism="SCRAM-SHA-256")


def without_tls(place: Place) -> Brokers:
    return replace(place.brokers(USERS["projector"]), security_protocol="SASL_PLAINTEXT", ssl_ca_file=None)


WRONG: Final[Mapping[Callable[[Place], Brokers], str]] = {
    with_another_password: "invalid credentials",
    of_another_authority: "certificate verify failed",
    by_another_name: "Hostname mismatch, certificate is not valid for 'localhost'",
    by_a_mechanism_it_does_not_have: "UnsupportedSaslMechanism",
    without_tls: "closed",
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
async def test_what_is_wrong_with_an_access_is_said_by_a_client_that_cannot_start(
    wrong: Callable[[Place], Brokers], place: Place
) -> None:
    with pytest.raises(KafkaConnectionError, match=WRONG[wrong]):
        async with asyncio.timeout(START_SECONDS), admin_client(wrong(place)):
            pass


async def test_processes_with_a_wrong_password_wait_alive_and_say_so(
    place: Place, admin_database: str, query_database: str, tmp_path: Path
) -> None:
    wrong = place.environment(USERS["query-api"]) | {"KAFKA_SASL_PASSWORD": "wrong"}
    wrong |= {"ADMIN_DATABASE_URL": admin_database, "QUERY_DATABASE_URL": query_database}
    with (
        service(tmp_path, "producer_admin", "relay", **wrong) as (relay, _),
        service(tmp_path, "consumer_query", "projector", **wrong) as (projector, _),
        service(tmp_path, "consumer_query", "api", **wrong) as (_, api),
    ):

        async def says_so(url: str) -> bool:
            status, said = await answer(url)
            return status == 503 and "invalid credentials" in json.dumps(said)

        for url in (f"{relay}/health/ready", f"{projector}/health/ready", f"{api}/api/v1/admin/lag"):
            await eventually(partial(says_so, url), START_SECONDS, url)
        for url in (relay, projector):
            assert await answer(f"{url}/health/live") == (200, {"status": "alive"})
        # No secret is in what they say.
        assert not any("wrong" in log.read_text() for log in tmp_path.glob("*.log"))


async def test_a_client_ends_at_once_though_the_broker_does_not_say_goodbye(place: Place) -> None:
    """Where a request and the end of the TLS session are read together, it never does; uvloop waits 30 s for it."""
    await produce(f"{place.topic}.dlq", place.brokers(ADMIN))

    async def read() -> None:
        for _ in range(CLIENTS):
            assert await place.dead_letters() == 1

    async with asyncio.timeout(25):
        await asyncio.to_thread(uvloop.run, read())


@asynccontextmanager
async def projecting(place: Place, pool: asyncpg.Pool) -> AsyncIterator[Projector]:
    brokers = place.brokers(USERS["projector"])
    projector = Projector(
        pool,
        partial(group_consumer, brokers, place.group, "projector"),
        place.topic,
        place.group,
        TopicDeadLetters(brokers, f"{place.topic}.dlq"),
        RecordReader(None),
        Limits(batch=100, lanes=2, bad_share=0.5),
        CacheGuard(pool, LogEvidence(brokers, place.topic), place.topic, Cure.DEMAND),
    )
    async with running(projector):
        yield projector


async def says(check: Callable[[], Awaitable[None]], reason: str) -> bool:
    try:
        await check()
    except NotReadyError as error:
        return reason in str(error)
    return False


async def test_a_projector_whose_right_to_read_is_taken_waits_says_so_and_loses_nothing(
    place: Place, query_pool: asyncpg.Pool
) -> None:
    before, meanwhile = created(), created()
    reading = Acl(USERS["projector"], "Read", "topic", place.topic, is_prefix=False)
    async with projecting(place, query_pool) as projector:
        await place.announce(before)
        await settles(cached(query_pool), {before.file_id: 1}, START_SECONDS)
        await place.forbid(reading)
        await place.announce(meanwhile)
        await eventually(partial(says, projector.broker.check, "TopicAuthorizationFailed"), START_SECONDS)
        assert await cached(query_pool)() == {before.file_id: 1}
        await place.allow(USERS)
        await settles(cached(query_pool), {before.file_id: 1, meanwhile.file_id: 1}, START_SECONDS)
    assert await place.dead_letters() == 0


async def test_a_record_that_may_not_be_put_aside_holds_its_partition_until_it_may(
    place: Place, query_pool: asyncpg.Pool
) -> None:
    bad = created()
    behind = created(bad.file_id, revision=2)
    await place.forbid(Acl(USERS["projector"], "Write", "topic", f"{place.topic}.dlq", is_prefix=False))
    async with projecting(place, query_pool) as projector:
        await place.announce(bad, value=b"not an event")
        await place.announce(behind)
        await eventually(partial(says, projector.partitions, "TopicAuthorizationFailed"), START_SECONDS)
        assert (await place.dead_letters(), await cached(query_pool)()) == (0, {})
        await place.allow(USERS)
        await settles(cached(query_pool), {behind.file_id: 2}, START_SECONDS)
    assert await place.dead_letters() == 1


@dataclass
class SmallRelay:
    """Sends one event after another, and goes on with another client when anything is wrong, as the relay does."""

    brokers: Brokers
    topic: str
    publisher: ShardPublisher | None = None

    async def send(self, event: FileEvent) -> bool:
        try:
            if self.publisher is None:
                self.publisher = await ShardPublisher.open(self.brokers, self.topic, shard_of(event.file_id))
            await self.publisher.publish([outbox_row(event)])
        except (KafkaError, TimeoutError):
            await self.drop()
            return False
        return True

    async def drop(self) -> None:
        publisher, self.publisher = self.publisher, None
        if publisher is not None:
            await publisher.close()


async def test_tokens_let_in_the_user_that_they_name_and_one_serves_all_connections(
    place: Place, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker lets a login by token last a moment only: connections are lost all the time, and records are not."""
    robot = f"robot-{uuid4().hex[:8]}"
    await place.allow({"relay": robot, "projector": robot})
    event = created()
    async with served(issuer.app(robot)) as url:
        brokers = Brokers(
            place.kafka.bootstrap_servers,
            "SASL_SSL",
            "OAUTHBEARER",
            ssl_ca_file=place.kafka.authority.file,
            oauth_token_url=f"{url}/token",
            oauth_client_id=robot,
            oauth_client_secret=SecretStr("hush"),
        )
        given = issuer.given
        async with group_consumer(brokers, place.group, "test") as consumer:
            consumer.subscribe([place.topic])
            relay, seen, sent = SmallRelay(brokers, place.topic), list[int](), 0
            ends = time.monotonic() + 3 * REAUTHENTICATE_SECONDS
            while time.monotonic() < ends or len(seen) < sent:
                if time.monotonic() < ends:
                    sent += await relay.send(replace(event, revision=sent + 1))
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    seen += [int(dict(one.headers)["revision"]) for one in records]
            await relay.drop()
        assert sorted(set(seen)) == list(range(1, sent + 1))
        assert "closed" in caplog.text, "no login ran out"
        assert issuer.given == given + 1
        with pytest.raises(TopicAuthorizationFailedError):
            await produce(f"{place.topic}.dlq-resolutions", brokers)


async def test_acls_are_made_once_by_the_verb_and_a_second_run_finds_them(kafka: SecureKafka) -> None:
    name = uuid4().hex[:12]
    here = Place(kafka, f"events-{name}", f"group-{name}")
    options = [argument for process, user in USERS.items() for argument in (f"--{process}-user", f"{user}-{name}")]
    verb = (sys.executable, "-P", "-m", "cli", "topics", "ensure", "--acls", *options)
    environment = here.environment(ADMIN)
    for word in ("made", "exists"):
        code, out, err = await run_verb(verb, **environment)
        assert code == 0, err
        wanted = acls({process: f"{user}-{name}" for process, user in USERS.items()}, here.topic, here.group)
        assert [line for line in out.splitlines() if line.startswith("--")] == [
            f"{one.arguments}: {word}" for one in wanted
        ]
    code, _, err = await run_verb(verb, **here.environment(USERS["relay"]))
    assert code == 1
    assert "uthoriz" in err
