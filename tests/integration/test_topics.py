"""`topics ensure` against a real broker."""

from uuid import uuid4

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from runtime.kafka import group_lag
from runtime.topics import ensure_topic, ensure_topics
from schemas.topics import FILE_EVENTS, cards
from tests.backends import Backend
from tests.integration.conftest import Topic, group_name
from tests.samples import created
from tests.waiting import settles


async def test_a_topic_is_made_as_its_card_says_and_a_second_run_changes_nothing(backend: Backend) -> None:
    name = f"test-{uuid4().hex[:12]}"
    first = await ensure_topic(backend.bootstrap_servers, cards()[FILE_EVENTS], name=name)
    second = await ensure_topic(backend.bootstrap_servers, cards()[FILE_EVENTS], name=name)
    assert (first.created, first.drift) == (True, ())
    assert (second.created, second.drift) == (False, ())


async def test_every_topic_that_has_a_card_is_made_and_takes_all_of_its_settings(backend: Backend) -> None:
    name = f"test-{uuid4().hex[:12]}"
    made = await ensure_topics(backend.bootstrap_servers, name)
    again = await ensure_topics(backend.bootstrap_servers, name)
    assert [one.name for one in made] == [name, f"{name}.dlq", f"{name}.dlq-resolutions"]
    assert [(one.created, one.drift) for one in (*made, *again)] == [(True, ())] * 3 + [(False, ())] * 3


async def test_a_topic_that_someone_made_otherwise_is_left_alone_and_its_drift_named(backend: Backend) -> None:
    name = f"test-{uuid4().hex[:12]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=backend.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(name, 3, 1, topic_configs={"cleanup.policy": "delete"})])
    await admin.close()
    for _ in range(2):
        found = await ensure_topic(backend.bootstrap_servers, cards()[FILE_EVENTS], name=name)
        assert not found.created
        drift = {one.setting: one.found for one in found.drift}
        assert (drift["partitions"], drift["cleanup.policy"]) == ("3", "delete")


async def test_the_lag_of_a_group_that_never_committed_is_all_there_is(events_topic: Topic) -> None:
    assert await group_lag(events_topic.bootstrap_servers, group_name(), events_topic.name) == 0
    await events_topic.announce(created())
    # A record and its transaction's marker.
    await settles(lambda: group_lag(events_topic.bootstrap_servers, group_name(), events_topic.name), 2)
