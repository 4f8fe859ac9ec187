"""What the files under monitoring/ ask for is what processes tell, and what people need stands beside it."""

import re
from typing import Final

import pytest

from local.services import services
from local.settings import CHECKOUT, StackSettings
from tests.monitoring import (
    DASHBOARD,
    RULES_TEST,
    SCRAPING,
    alerts,
    families,
    grouped_by,
    labels_in,
    names_in,
    panels,
    queries,
    read,
    recorded,
    rules,
    told,
)

OF_PROMETHEUS: Final = {"job", "instance"}
EVALUATED_EACH: Final = 10
OPERATIONS: Final = CHECKOUT / "docs" / "operations.md"
METRICS: Final = CHECKOUT / "docs" / "metrics.md"
# What the plan of the Redis system named: nobody who knew it should have to ask what became of a thing.
OF_THE_REDIS_DESIGN: Final = re.findall(
    r"\w+",
    """
artstore_admin_events_published_total artstore_admin_events_publish_failures_total
artstore_admin_events_publish_duration_seconds artstore_query_events_received_total
artstore_query_events_processing_failures_total artstore_query_cache_sync_duration_seconds
artstore_query_redis_connection_status artstore_admin_stream_xadd_total artstore_admin_stream_xadd_failures_total
artstore_admin_stream_length artstore_query_stream_events_processed_total artstore_query_stream_events_failed_total
artstore_query_stream_pending_count artstore_query_stream_lag_seconds
REDIS_URL EVENT_PUBLISH_ENABLED EVENT_SUBSCRIBE_ENABLED EVENT_CHANNEL_FILE_CREATED EVENT_CHANNEL_FILE_UPDATED
EVENT_CHANNEL_FILE_DELETED EVENT_PUBLISH_TIMEOUT EVENT_RECONNECT_DELAY EVENT_MAX_RECONNECT_ATTEMPTS
CACHE_SYNC_BATCH_SIZE CACHE_SYNC_RETRY_ATTEMPTS CACHE_SYNC_RETRY_DELAY
REDIS_STREAM_NAME REDIS_STREAM_MAXLEN REDIS_STREAM_RETENTION_HOURS
REDIS_CONSUMER_GROUP REDIS_CONSUMER_BATCH_SIZE REDIS_CONSUMER_BLOCK_MS REDIS_PENDING_RETRY_MS
""",
)


def all_labels() -> dict[str, set[str]]:
    """Of each metric, those of Prometheus too. A recorded one may have any of those that it is made of."""
    found = {name: OF_PROMETHEUS | labels for own in told().values() for name, labels in own.items()}
    found["up"] = set(OF_PROMETHEUS)
    for name, expression in recorded().items():
        found[name] = set().union(*(found[one] for one in names_in(expression)))
    return found


def expressions() -> list[str]:
    return [rule["expr"] for rule in rules()] + [query.expression for query in queries()]


def test_every_metric_that_a_rule_or_a_panel_names_is_told_by_some_process() -> None:
    known = all_labels()
    unknown = {name for expression in expressions() for name in names_in(expression)} - known.keys()
    assert not unknown


def test_metrics_are_selected_and_grouped_by_labels_that_they_have() -> None:
    known = all_labels()
    for expression in expressions():
        for name, labels in labels_in(expression):
            assert labels <= known[name], f"{name} has no {labels - known[name]}: {expression}"
        there = set().union(*(known[name] for name in names_in(expression)))
        assert grouped_by(expression) <= there, expression


def test_legends_and_annotations_name_labels_that_are_there() -> None:
    known = all_labels()
    for one in queries():
        there = set().union(*(known[name] for name in names_in(one.expression)))
        assert set(re.findall(r"{{(\w+)}}", one.legend)) <= there, one
    for name, alert in alerts().items():
        there = {"to"}.union(*(known[metric] for metric in names_in(alert["expr"])))
        told_of = " ".join(alert["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", told_of)) <= there, name


def test_every_metric_is_described_under_its_process_with_its_labels() -> None:
    described: dict[str, dict[str, frozenset[str]]] = {}
    for part in METRICS.read_text().split("## From the Redis design")[0].split("\n## ")[1:]:
        heading, _, body = part.partition("\n")
        [job] = re.findall(r"\(`([a-z-]+)`, \d+\)", heading)
        described[job] = {
            name: frozenset(re.findall(r"`(\w+)`", labels))
            for name, labels in re.findall(r"^\| `(\w+)` \|([^|]*)\|", body, re.MULTILINE)
        }
    assert described == families()


def test_all_of_the_redis_design_is_accounted_for() -> None:
    _, accounts = METRICS.read_text().split("## From the Redis design")
    first_cells = " ".join(re.findall(r"^\| ([^|]*) \|", accounts, re.MULTILINE))
    named = set(re.findall(r"\b\w+\b", first_cells))
    assert set(OF_THE_REDIS_DESIGN) <= named


def test_metrics_md_names_alerts_and_panels_that_exist() -> None:
    text = METRICS.read_text()
    assert set(re.findall(r"\bArtStore[A-Z]\w+", text)) <= alerts().keys()
    table = text.split("### Its panels")[1].split("###")[0]
    there = {panel["title"] for panel in panels()}
    for cell in re.findall(r"^\| [^|]* \| ([^|]*) \|$", table, re.MULTILINE)[2:]:
        assert {one.strip().split(":")[0] for one in cell.split(";")} & {title.split(":")[0] for title in there}, cell


@pytest.mark.parametrize("name", sorted(alerts()))
def test_an_alert_says_how_bad_it_is_what_is_wrong_and_where_to_read_on(name: str) -> None:
    alert = alerts()[name]
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert CHECKOUT / page == OPERATIONS
    chapter = OPERATIONS.read_text().partition(f"\n### {name}\n")[2].partition("\n##")[0]
    assert anchor == name.lower()
    assert "**Means.**" in chapter
    assert "**Look first" in chapter
    _, _, critical = OPERATIONS.read_text().partition("\n## Critical")
    assert (f"### {name}\n" in critical.partition("\n## Warning")[0]) == (alert["labels"]["severity"] == "critical")


def test_operations_md_has_no_runbook_of_an_alert_that_is_gone() -> None:
    assert set(re.findall(r"^### (\w+)$", OPERATIONS.read_text(), re.MULTILINE)) == alerts().keys()


@pytest.mark.parametrize("name", sorted(alerts()))
def test_an_alert_is_tested_at_its_true_duration_and_for_its_end(name: str) -> None:
    """Whether it does what is expected, promtool tells; here, that it is asked the right questions."""
    looks = [
        {
            seconds(look["eval_time"]): bool(look["exp_alerts"])
            for look in case["alert_rule_test"]
            if look["alertname"] == name
        }
        for case in read(RULES_TEST)["tests"]
    ]
    firing = [at for case in looks for at, fires in case.items() if fires]
    assert firing
    assert any(
        case.get(at - EVALUATED_EACH) is False and any(not fires and later > at for later, fires in case.items())
        for case in looks
        for at in firing
        if at in case
    ), f"{name} is not seen to be quiet one evaluation before it fires and again after its fault"


def test_recorded_rules_are_asked_for_by_an_alert() -> None:
    asked = {name for alert in alerts().values() for name in names_in(alert["expr"])}
    assert recorded().keys() <= asked


def test_each_process_is_scraped_under_its_name_and_at_its_port() -> None:
    found = {job["job_name"]: job["static_configs"][0]["targets"] for job in read(SCRAPING)["scrape_configs"]}
    defaults = StackSettings.model_construct()
    assert found == {one.name: [one.ready_url.split("/")[2]] for one in services(defaults)}
    assert found.keys() == told().keys()
    assert set(re.findall(r'absent\(up\{job="([a-z-]+)"\}\)', alerts()["ArtStoreTargetDown"]["expr"])) == found.keys()


def test_every_panel_can_be_read_without_asking_anybody() -> None:
    for panel in panels():
        title = panel["title"]
        assert panel["description"], title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert panel["datasource"]["uid"] == "${datasource}", title
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}", title
            assert target["legendFormat"] not in {"", "__auto"}, title
    titles = [panel["title"] for panel in panels()]
    assert len(titles) == len(set(titles))


def test_panels_fill_their_rows_and_lie_over_no_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in read(DASHBOARD)["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & taken, panel["title"]
        taken |= own
    assert taken == {(x, y) for x in range(24) for y in range(max(y for _, y in taken) + 1)}


def seconds(text: str) -> int:
    """A duration of Prometheus, such as 3h5m10s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", text))
