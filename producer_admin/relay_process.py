"""Where the relay process is put together."""

from producer_admin.relay import Relay
from producer_admin.settings import RelaySettings
from runtime.health import Health
from runtime.postgres import open_pool
from runtime.process import run_process


async def run_relay(settings: RelaySettings) -> None:
    """Run the relay, outbox to topic, until a signal."""
    async with await open_pool(settings.admin_database_url.get_secret_value(), "admin-relay", max_size=16) as pool:
        relay = Relay(pool, settings.kafka_bootstrap_servers, settings.file_events_topic, settings.relay_batch_size)
        health = Health()
        tasks = []
        if settings.event_publish_enabled:
            health.require("database", relay.database.check)
            health.require("broker", relay.broker)
            tasks.append(relay.run)
        await run_process(
            "admin-relay", health, (settings.management_host, settings.admin_relay_management_port), *tasks
        )
