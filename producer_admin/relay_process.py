"""Where the relay process is put together."""

from functools import partial
from pathlib import Path
from typing import Final

from producer_admin import metrics
from producer_admin.audit_partitions import keep_partitions_hourly
from producer_admin.backlog import HeldRelay, report_backlog
from producer_admin.batches import Limits
from producer_admin.publisher import ShardPublisher, spans_of_sending
from producer_admin.relay import Relay
from producer_admin.settings import RelaySettings
from runtime.health import Health
from runtime.metrics import tell_only
from runtime.postgres import make_pool
from runtime.process import Task, collect_seldom, run_process
from runtime.starting import require_database

PLANNER: Final = {
    # A plan made while the outbox was empty would read and sort a whole backlog for each transaction. With these,
    # the primary key is the only way to a shard's oldest rows, and to the rows that were sent.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
_OTHER_CONNECTIONS: Final = 4
"""Claims, the audit log's partitions, the backlog, and one for whatever asks whether a shard is still held."""


async def run_relay(settings: RelaySettings) -> None:
    """Run the relay, outbox to topic, until a signal."""
    tell_only(metrics, metrics.RELAY)
    collect_seldom()
    async with make_pool(
        settings.admin_database_url.get_secret_value(),
        "admin-relay",
        max_size=settings.relay_in_flight + _OTHER_CONNECTIONS,
        settings=PLANNER,
    ) as pool:
        health = Health()
        tasks: list[Task] = [
            partial(keep_partitions_hourly, pool, settings.outbox_audit_days),
            partial(report_backlog, pool),
        ]
        if settings.event_publish_enabled:
            relay = Relay(
                pool,
                partial(
                    ShardPublisher.open,
                    settings.brokers,
                    settings.file_events_topic,
                    spans=spans_of_sending(settings.file_events_topic),
                ),
                Limits(settings.relay_batch_size, settings.relay_batch_bytes),
                settings.relay_in_flight,
            )
            health.require("database", relay.database.check)
            health.require("broker", relay.broker)
            metrics.DATABASE_UP.set_function(lambda: relay.database.is_met)
            metrics.BROKER_UP.set_function(lambda: relay.can_send)
            tasks.append(relay.run)
        else:
            held = HeldRelay(pool)
            health.require("database", held.database.check)
            metrics.DATABASE_UP.set_function(lambda: held.database.is_met)
            metrics.BROKER_UP.set_function(lambda: True)  # it is not asked
            tasks.append(held.run)
        await run_process(
            "admin-relay",
            health,
            (settings.management_host, settings.admin_relay_management_port),
            *tasks,
            needs={"database": partial(require_database, pool, Path(__file__).with_name("migrations"))},
        )
