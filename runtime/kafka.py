"""Every Kafka client is made here, so that reads see only committed records and writes are never half-acknowledged."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final

import stamina
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from runtime.brokers import AnyBrokers, client_options

REQUEST_TIMEOUT_MS: Final = 5_000
"""One request to a broker. Shorter than the transaction time-out, so a stuck broker is noticed inside it."""

TRANSACTION_TIMEOUT_MS: Final = 10_000
"""After this the broker aborts an abandoned transaction, which until then hides everything behind it."""

ABANDON_SECONDS: Final = 2.0
GOODBYE_SECONDS: Final = 3.0
"""How long a consumer may take to leave its group before it is abandoned too; its session ends then."""

HEARTBEAT_MS: Final = 500
METADATA_MS: Final = 10_000
FETCH_WAIT_MS: Final = 50
FETCH_BYTES: Final = 64 * 1024
"""Of one partition in one fetch, compressed; one batch comes in any case. Larger answers delay what is fresh."""

MOST_REASONS: Final = 5
"""Why brokers could not be reached that are told; each broker has one."""

MAX_BATCH_BYTES: Final = 512 * 1024
"""Records in one produce request, before compression. Well below a broker's `message.max.bytes` of 1 MiB."""

_PRODUCING: Final[dict[str, Any]] = {
    "request_timeout_ms": REQUEST_TIMEOUT_MS,
    "acks": "all",
    "compression_type": "zstd",
    # Records are sent as soon as they are handed over: the relay has batched them already.
    "linger_ms": 0,
    "max_batch_size": MAX_BATCH_BYTES,
    "max_request_size": 4 * 1024 * 1024,
}


def is_being_cancelled() -> bool:
    """Whether the current task was told to end. If not, a CancelledError in it is another task's that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _uninterrupted(work: Awaitable[None]) -> None:
    """Do what a client must not be cancelled in, because it would leave a connection open that nobody knows of.

    Cancelled, it goes on for up to ABANDON_SECONDS before it obeys: a broker that is there answers sooner.

    Raises:
        KafkaConnectionError: the client has cancelled a task of its own that this waited for.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if not is_being_cancelled():
            raise KafkaConnectionError("the client has given up") from None
        await asyncio.wait([task], timeout=ABANDON_SECONDS)
        task.cancel()
        await asyncio.wait([task], timeout=ABANDON_SECONDS)
        if task.done() and not task.cancelled():
            task.exception()  # it has no reader any more
        raise


_TOLD: Final[ContextVar[deque[str] | None]] = ContextVar("reasons why brokers cannot be reached", default=None)


async def _started(start: Awaitable[None], stop: Callable[[], Awaitable[None]]) -> None:
    """Start a client, or leave nothing of it.

    Raises:
        KafkaError: with what each broker, or its certificate, was refused for.
    """
    told: deque[str] = deque(maxlen=MOST_REASONS)
    before = _TOLD.set(told)
    try:
        await _uninterrupted(start)
    except BaseException as error:
        await stop()
        if isinstance(error, KafkaConnectionError) and told:
            raise KafkaConnectionError(f"{error.args[0]}: {'; '.join(dict.fromkeys(told))}") from error
        raise
    finally:
        _TOLD.reset(before)


class _Reasons(logging.Filter):
    """Takes note of why a broker cannot be reached: the client logs it, and then raises without it."""

    def filter(self, record: logging.LogRecord) -> bool:
        told = _TOLD.get()
        if told is not None and isinstance(record.args, tuple) and str(record.msg).startswith("Unable connect"):
            reason = record.args[-1]
            told.append(str(reason) or type(reason).__name__)
        return True


logging.getLogger("aiokafka").addFilter(_Reasons())


def _end_at_once(client: AIOKafkaClient) -> None:
    """Let a client's TLS connections end without the broker's word.

    A broker that reads a request and the end of the session together forgets the latter, and the event loop would wait
    30 s for its answer. What matters was acknowledged before a client is closed.
    """
    close = client.close

    async def close_at_once() -> None:
        for connection in client._conns.values():  # noqa: SLF001 - nothing else knows them
            if connection._writer is not None:  # noqa: SLF001 - see above
                connection._writer.transport.abort()  # noqa: SLF001 - see above
        await close()

    if client._ssl_context is not None:  # noqa: SLF001 - see above
        client.close = close_at_once


class _Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka has no types
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        _end_at_once(self._client)

    async def start(self) -> None:
        await _started(super().start(), self.stop)

    async def stop(self) -> None:
        # From a broker that hangs the client would wait for an answer as long as it does for any request: 40 s.
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await _uninterrupted(self._stop())
        except TimeoutError:
            await self._client.close()

    async def _stop(self) -> None:
        # A static member's client would not leave, and its partitions would stand still until its session ends
        # (ADR 22). Nameless, it leaves as a dynamic one does: the broker knows it by its member id too.
        if hasattr(self._coordinator, "_group_instance_id"):
            self._coordinator._group_instance_id = None  # noqa: SLF001 - the client has no other way
        try:
            await super().stop()
        except asyncio.CancelledError:
            if is_being_cancelled():
                raise
            # A fetch that was waiting after a failure lets its cancellation out, and the rest of stop() is left out.
            for fetch in (fetches := list(self._fetcher._pending_tasks)):  # noqa: SLF001 - see above
                fetch.cancel()
            await asyncio.wait(fetches)
            await self._client.close()


class _Producer(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka has no types
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        _end_at_once(self.client)

    async def start(self) -> None:
        await _started(super().start(), lambda: abandon(self))


class _Admin(AIOKafkaAdminClient):  # type: ignore[misc]  # aiokafka has no types
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        _end_at_once(self._client)

    async def start(self) -> None:
        await _started(super().start(), self.close)

    async def close(self) -> None:
        await _uninterrupted(super().close())


def transactional_producer(bootstrap_servers: AnyBrokers, transactional_id: str) -> AIOKafkaProducer:
    """A producer that fences every earlier holder of `transactional_id` when it starts (KIP-98)."""
    return _Producer(
        **client_options(bootstrap_servers),
        client_id=transactional_id,
        transactional_id=transactional_id,
        transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        **_PRODUCING,
    )


def idempotent_producer(bootstrap_servers: AnyBrokers, client_id: str, **options: Any) -> AIOKafkaProducer:
    """The same without transactions, so without a fence: for what does no harm twice. Never for a relay."""
    return _Producer(
        **client_options(bootstrap_servers), client_id=client_id, enable_idempotence=True, **{**_PRODUCING, **options}
    )


async def abandon(producer: AIOKafkaProducer) -> None:
    """End a producer at once, with all that it still wants to send; waits ABANDON_SECONDS at most.

    Its own stop() first waits, without limit, for batches that a broker that is away never takes; and a producer that
    is let go of without an end would go on trying until the broker is back.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ABANDON_SECONDS):
            producer._closed = True  # noqa: SLF001 - what stop() begins with
            await producer.client.close()
            sender = producer._sender.sender_task  # noqa: SLF001 - see above
            while sender is not None and not sender.done():
                sender.cancel()  # again and again: the first only makes it wait for requests that are under way
                await asyncio.wait([sender], timeout=0.05)
            await producer.client.close()  # what those requests opened again


def group_consumer(
    bootstrap_servers: AnyBrokers,
    group: str,
    client_id: str,
    *,
    session_timeout_ms: int = 10_000,
    instance_id: str | None = None,
    **options: Any,
) -> AIOKafkaConsumer:
    """A member of a consumer group that commits nothing by itself and begins at the beginning.

    Args:
        bootstrap_servers: where the broker is
        group: its name
        client_id: shown by the broker
        session_timeout_ms: silent for longer, it loses its partitions
        instance_id: under which it has its partitions again when it is back within its session (KIP-345); it still
            leaves the group when it is stopped
        options: of the client
    """
    return _Consumer(
        **client_options(bootstrap_servers),
        group_id=group,
        client_id=client_id,
        group_instance_id=instance_id,
        session_timeout_ms=session_timeout_ms,
        # A member hears of a rebalance with its next heartbeat, and all others wait for it until then.
        heartbeat_interval_ms=min(HEARTBEAT_MS, session_timeout_ms // 3),
        # While a fetch waits for news of idle partitions, no other partition of that broker is fetched.
        fetch_max_wait_ms=FETCH_WAIT_MS,
        max_partition_fetch_bytes=FETCH_BYTES,
        # How soon a topic that was made late, or anew, is found.
        metadata_max_age_ms=METADATA_MS,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **options,
    )


def plain_consumer(bootstrap_servers: AnyBrokers, **options: Any) -> AIOKafkaConsumer:
    """A reader outside every group, for partitions that it assigns to itself."""
    return _Consumer(
        **client_options(bootstrap_servers),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **options,
    )


@asynccontextmanager
async def admin_client(bootstrap_servers: AnyBrokers) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client."""
    admin = _Admin(**client_options(bootstrap_servers), request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


async def partition_count(admin: AIOKafkaAdminClient, topic: str) -> int:
    """How many partitions a topic has; 0 when the broker does not (yet) know it.

    Raises:
        TopicAuthorizationFailedError: whether it exists is not told to this user.
    """
    [description] = await admin.describe_topics([topic])
    if description["error_code"] == TopicAuthorizationFailedError.errno:
        raise TopicAuthorizationFailedError(topic)
    return len(description["partitions"])


async def all_partitions(bootstrap_servers: AnyBrokers, topic: str) -> list[TopicPartition]:
    """Every partition of a topic. A consumer knows them only of topics that it reads already.

    Raises:
        KafkaError: the broker is away, or knows no such topic.
    """
    async with admin_client(bootstrap_servers) as admin:
        partitions = [TopicPartition(topic, number) for number in range(await partition_count(admin, topic))]
    if not partitions:
        raise UnknownTopicOrPartitionError(topic)  # asked for its offsets, the client would wait for it
    return partitions


def _passes(error: Exception) -> bool:
    # The client's own time-outs are not marked as retriable.
    return isinstance(error, KafkaTimeoutError) or (isinstance(error, KafkaError) and bool(error.retriable))


# The first question about any group makes the broker make its topic of offsets; until then it knows no coordinator.
@stamina.retry(on=_passes, timeout=15)
async def group_lag(bootstrap_servers: AnyBrokers, group: str, topic: str) -> int:
    """Records of `topic` that `group` has not yet committed, over all partitions; transaction markers count.

    The log's end is the last stable offset, so an idle group that has read all shows 0.
    """
    async with admin_client(bootstrap_servers) as admin:
        partitions = [TopicPartition(topic, number) for number in range(await partition_count(admin, topic))]
        committed = await admin.list_consumer_group_offsets(group, partitions=partitions)
    async with plain_consumer(bootstrap_servers) as consumer:
        consumer.assign(partitions)
        begins = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
    # A group that never committed stands at -1: it has the whole log before it.
    return sum(max(0, ends[one] - max(committed[one].offset, begins[one])) for one in partitions)


@stamina.retry(on=_passes, timeout=15)
async def log_ends(bootstrap_servers: AnyBrokers, topic: str) -> dict[int, int]:
    """By partition where its log ends, open transactions included: all that was acknowledged before is below.

    Raises:
        KafkaError: the broker is away, or knows no such topic, for 15 s.
        TimeoutError: it does not answer.
    """
    consumer = _Consumer(
        **client_options(bootstrap_servers),
        isolation_level="read_uncommitted",
        enable_auto_commit=False,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
    )
    try:
        async with asyncio.timeout(3 * REQUEST_TIMEOUT_MS / 1000):
            await consumer.start()
            partitions = await all_partitions(bootstrap_servers, topic)
            return {one.partition: end for one, end in (await consumer.end_offsets(partitions)).items()}
    finally:
        await consumer.stop()
