"""What each user may do is one list: the table of docs/kafka-access.md is it, and no process is given another's."""

import re
from pathlib import Path

from runtime.acls import Process, acls

PROCESSES: tuple[Process, ...] = ("relay", "projector", "maintenance", "query-api")
ROW = re.compile(
    r"^\| (?P<process>[a-z-]+) \| (?P<operation>\w+) \| (?P<resource>[a-z-]+) `(?P<name>[^`]+)` \|", re.MULTILINE
)


def test_the_table_of_the_docs_is_what_is_made() -> None:
    rows = [match.groups() for match in ROW.finditer(Path("docs/kafka-access.md").read_text())]
    made = [
        (process, one.operation, one.resource, one.name + ("*" if one.is_prefix else ""))
        for process in PROCESSES
        for one in acls({process: "user"}, "TOPIC", "GROUP")
    ]
    assert rows == made


def test_nobody_but_the_relay_may_write_file_events_or_use_a_transactional_id() -> None:
    for process in PROCESSES:
        allowed = acls({process: "user"}, "events", "group")
        writes = [one for one in allowed if one.operation == "Write" and one.name == "events"]
        fences = [one for one in allowed if one.resource == "transactional-id"]
        assert bool(writes) == bool(fences) == (process == "relay")


def test_one_user_for_all_processes_gets_each_acl_once() -> None:
    together = acls(dict.fromkeys(PROCESSES, "user"), "events", "group")
    assert len(together) == len(set(together))
    assert set(together) == {one for process in PROCESSES for one in acls({process: "user"}, "events", "group")}


def test_an_acl_can_be_given_to_kafkas_own_tool() -> None:
    writing, fencing = acls({"relay": "CN=relay"}, "events", "group")
    assert writing.arguments == "--allow-principal 'User:CN=relay' --operation Write --topic 'events'"
    pattern = "--resource-pattern-type prefixed --transactional-id 'events.relay-'"
    assert fencing.arguments == f"--allow-principal 'User:CN=relay' --operation Write {pattern}"
