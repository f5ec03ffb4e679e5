"""Numbers that two documents claim differently: the same words, the same unit, another value.

A heuristic that lists candidates for a person to read: it compares the sentences, list items and table rows that hold
one number with a unit, and reports pairs from different documents whose other words are nearly the same.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from data_prep.checks import content_words

MIN_OVERLAP = 0.6
MIN_WORDS = 3

_UNIT = (
    r"°C|°F|%|kWh|kW|km/h|mph|km|mi|Nm|mm|cm|m|kg|g|L|ml|bar|psi|V|Ah|A|W|Hz|min|minutes?|hours?|h|seconds?|s|days?|"
    r"weeks?|months?|years?|lm|GB|MB|кг|г|см|мм|м|л|В|А|Вт|ч|мин|дн\w+|лет|год\w*"
)
_CLAIM = re.compile(rf"(?<![\w.,])(\d+(?:[.,]\d+)*)\s?({_UNIT})(?!\w)")
_PIECE = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True, slots=True)
class Claim:
    """One number with its unit, and the sentence or row of a document that claims it."""

    document: str
    value: str
    unit: str
    text: str


def claims(document: str, text: str) -> Iterator[Claim]:
    """Yield the claims of a text: the pieces that hold exactly one number with a unit."""
    for piece in _PIECE.split(text):
        found = _CLAIM.findall(piece)
        if len(found) == 1:
            value, unit = found[0]
            yield Claim(document, value.replace(",", ""), unit.rstrip("s") if len(unit) > 3 else unit, piece.strip())


def contradictions(texts: Mapping[str, str]) -> list[tuple[Claim, Claim]]:
    """Return pairs of claims of different documents with the same unit, other values, and nearly the same words."""
    by_unit: dict[str, list[tuple[Claim, frozenset[str]]]] = defaultdict(list)
    for name, text in sorted(texts.items()):
        for claim in claims(name, text):
            words = frozenset(word for word in content_words(claim.text) if not any(map(str.isdigit, word)))
            if len(words - {claim.unit.casefold()}) >= MIN_WORDS:
                by_unit[claim.unit].append((claim, words))
    return [pair for group in by_unit.values() for pair in _pairs(group)]


def _pairs(group: list[tuple[Claim, frozenset[str]]]) -> Iterator[tuple[Claim, Claim]]:
    for place, (first, words) in enumerate(group):
        for second, others in group[place + 1 :]:
            if first.document == second.document or first.value == second.value:
                continue
            if len(words & others) >= MIN_OVERLAP * len(words | others):
                yield first, second
