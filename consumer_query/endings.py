"""Who types a word letter by letter is beyond its stem before the word is whole: the stem is found then too.

Snowball's stems are shorter than their words by the endings that it knows of (its descriptions of the Russian and
English stemmers list them). A stem may have been begun where one of them goes on from what was typed.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from consumer_query.analysis import lexeme

_ADJECTIVES: Final = "ее ие ые ое ими ыми ей ий ый ой ем им ым ом его ого ему ому их ых ую юю ая яя ою ею"
_NOUNS: Final = (
    "а ев ов ие ье е иями ями ами еи ии и ией ей ой ий й иям ям ием ем ам ом о у ах иях ях ы ь ию ью ю ия ья я "
    "ость ости остью остей остям остями остях"
)
_VERBS: Final = (
    "ла на ете йте ли й л ем н ло но ет ют ны ть ешь нно ила ыла ена ейте уйте ите или ыли ей уй ил ыл им ым ен ило "
    "ыло ено ят ует уют ит ыт ены ить ыть ишь ую ю"
)
_PARTICIPLES: Final = "нн вш ющ щ ивш ывш ующ енн анн"
_ENGLISH: Final = (
    "s es e y ed ing ings er ers ion ions al ally ly ment ments ness ation ations ational ator ators able ably ible "
    "ance ence ant ent ents ic ics ical ism ity ities ous ously ive ively ize izes ized izing izer ization"
)
_LONGEST: Final = 11
_SHORTEST_STEM: Final = 2


def _endings() -> Iterator[str]:
    adjectives = _ADJECTIVES.split()
    yield from adjectives
    yield from _NOUNS.split()
    yield from _VERBS.split()
    yield from (verb + reflexive for verb in _VERBS.split() for reflexive in ("ся", "сь"))
    for before in _PARTICIPLES.split():
        yield from (before + adjective + reflexive for adjective in adjectives for reflexive in ("", "ся"))
    # Letters are undoubled before an ending.
    yield from ("н" + ending for ending in (*adjectives, *_NOUNS.split()))
    yield from (letter + ending for letter in "bdfgmnprt" for ending in ("ed", "ing"))
    yield from _ENGLISH.split()


def _by_beginning() -> Mapping[str, Sequence[str]]:
    found = defaultdict[str, list[str]](list)
    for ending in dict.fromkeys(_endings()):
        for place in range(1, len(ending) + 1):
            found[ending[:place]].append(ending)
    return found


_BY_BEGINNING: Final = _by_beginning()


def stems_within(beginning: str) -> list[str]:
    """Lexemes shorter than the beginning of a word, in lower case, that the whole word may have; the longest first."""
    return [
        beginning[:place]
        for place in range(len(beginning) - 1, max(_SHORTEST_STEM, len(beginning) - _LONGEST) - 1, -1)
        if any(
            lexeme(beginning[:place] + ending) == beginning[:place]
            for ending in _BY_BEGINNING.get(beginning[place:], ())
        )
    ]
