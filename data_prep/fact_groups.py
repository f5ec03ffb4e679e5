"""Facts that are nearly one: asked in nearly the same words, or proved by the same stretch of a document.

A model that was trained on one of them knows much of the other, so a split that wants none of that keeps them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from data_prep.facts import Fact
from data_prep.leakage import NEAR_WORDS, SHARED_EVIDENCE
from data_prep.support import numbers, stems


def fact_groups(facts: Sequence[Fact], language: str = "en") -> dict[str, int]:
    """Return the group of each fact of one page, by id; facts linked through others are of one group."""
    groups = {fact.id: place for place, fact in enumerate(facts)}
    words = {fact.id: [(stems(text, language), numbers(text)) for text in fact.wordings] for fact in facts}
    for one, two in combinations(facts, 2):
        if groups[one.id] != groups[two.id] and (_same_evidence(one, two) or _near(words[one.id], words[two.id])):
            old, new = groups[two.id], groups[one.id]
            groups = {name: new if group == old else group for name, group in groups.items()}
    return groups


def _same_evidence(one: Fact, two: Fact) -> bool:
    for first in one.evidence:
        for second in two.evidence:
            if first.document != second.document or None in (first.start, first.end, second.start, second.end):
                continue
            spans = (first.start or 0, first.end or 0), (second.start or 0, second.end or 0)
            shared = min(spans[0][1], spans[1][1]) - max(spans[0][0], spans[1][0])
            if shared >= SHARED_EVIDENCE * min(end - start for start, end in spans):
                return True
    return False


def _near(
    one: Sequence[tuple[frozenset[str], frozenset[str]]], two: Sequence[tuple[frozenset[str], frozenset[str]]]
) -> bool:
    return any(
        figures == others and len(words & known) >= NEAR_WORDS * max(1, len(words | known))
        for words, figures in one
        for known, others in two
    )
