"""Topic cards: complete, explained, and compared with a broker setting by setting."""

from runtime.topics import drift
from schemas.topics import FILE_EVENTS, cards


def card_config() -> dict[str, str]:
    return {name: setting.value for name, setting in cards()[FILE_EVENTS].config.items()}


def test_the_topic_is_compacted_and_each_of_its_settings_says_why() -> None:
    card = cards()[FILE_EVENTS]
    assert card.config["cleanup.policy"].value == "compact"
    assert all(len(setting.why) > 20 for setting in card.config.values())


def test_a_broker_like_the_card_has_no_drift() -> None:
    assert drift(cards()[FILE_EVENTS], 12, card_config() | {"unrelated": "1"}) == ()


def test_each_difference_is_named() -> None:
    config = card_config() | {"cleanup.policy": "delete"}
    del config["segment.ms"]
    found = drift(cards()[FILE_EVENTS], 6, config)
    assert {(one.setting, one.found) for one in found} == {
        ("partitions", "6"),
        ("cleanup.policy", "delete"),
        ("segment.ms", "unset"),
    }
