"""Of a batch those records are told of that came with a context, unless the rows surpassed them already."""

from aiokafka import ConsumerRecord, TopicPartition

from consumer_query.batch_spans import traced
from consumer_query.buffers import Buffer, Record, Take, take

CONTEXT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def taken(*headers: tuple[tuple[str, bytes | None], ...]) -> Take:
    records: list[Record] = [
        ConsumerRecord("topic", 3, offset, 0, 0, b"file", b"value", None, 4, 5, one)
        for offset, one in enumerate(headers)
    ]
    buffer = Buffer(TopicPartition("topic", 3), 0, 0, len(records))
    buffer.add(records, len(records), len(records))
    return take(buffer, len(records))


def test_a_record_with_a_context_is_told_of_by_its_place_its_file_and_what_became_of_it() -> None:
    one = taken((("revision", b"1"), ("traceparent", CONTEXT)), (("traceparent", CONTEXT),))
    first, second = traced([one], set(), {id(one.records[1])})
    assert first.traceparent == CONTEXT.decode()
    assert first.attributes == {
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 0,
        "artstore.file_id": "file",
        "artstore.outcome": "visible",
    }
    assert second.attributes["artstore.outcome"] == "dead letter"


def test_records_without_a_context_and_those_that_the_rows_surpass_are_left_out() -> None:
    one = taken(
        (("revision", b"1"),), (("traceparent", CONTEXT),), (("traceparent", None),), (("traceparent", CONTEXT),)
    )
    [told] = traced([one], {id(one.records[1])}, set())
    assert told.attributes["messaging.kafka.offset"] == 3
