"""A tsvector in its binary form, read as Postgres would and written as people read it."""

from consumer_query.analysis import quoted_term


def spelt(vector: bytes) -> str:
    """Lexemes in their order, each with its positions and weights: `'=a.txt' word:1A,7C`."""
    count, rest = int.from_bytes(vector[:4], "big"), vector[4:]
    found = []
    for _ in range(count):
        lexeme, _, rest = rest.partition(b"\0")
        places, rest = int.from_bytes(rest[:2], "big"), rest[2:]
        numbers = [int.from_bytes(rest[2 * one : 2 * one + 2], "big") for one in range(places)]
        rest = rest[2 * places :]
        text = lexeme.decode()
        text = quoted_term(text) if text.startswith("=") else text
        found.append(text + ":" * bool(numbers) + ",".join(f"{one & 16383}{'DCBA'[one >> 14]}" for one in numbers))
    assert not rest
    return " ".join(found)
