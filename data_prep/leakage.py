"""What test questions share with train questions: the words, nearly the words, the fact, or the evidence.

Some of it is meant: test questions of the slice `trained` repeat a trained wording, `paraphrase` asks a trained fact.
That is counted as meant; everything else is a leak, and makes a figure better than it is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil

from data_prep.questions import Question
from data_prep.splits import wording_key
from data_prep.support import Embed, numbers, stems

NEAR_WORDS = 0.8
"""Least Jaccard index of two questions' content words (stemmed), their numbers being the same."""
NEAR_MEANING = 0.95
"""Least cosine of two questions' embeddings, where an embedder is given."""
SHARED_EVIDENCE = 0.5
"""Least share of the shorter evidence span that lies in the other."""
KINDS = ("exact", "near", "same-fact", "same-evidence")
_MEANT = {"exact": {"trained"}, "near": {"trained"}, "same-fact": {"trained", "paraphrase"}}
_MEANT["same-evidence"] = _MEANT["same-fact"]


@dataclass(frozen=True, slots=True)
class Leak:
    """One test question that shares something with a train question; `likeness` is 1 for all kinds but `near`."""

    kind: str
    test: str
    train: str
    slice: str | None
    likeness: float = 1.0


@dataclass(frozen=True)
class LeakageReport:
    """The leaks, and by kind how many test questions are meant to share so much."""

    train: int
    test: int
    leaks: list[Leak] = field(default_factory=list)
    meant: dict[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of leaks of each kind."""
        found = Counter(leak.kind for leak in self.leaks)
        return {kind: found.get(kind, 0) for kind in KINDS}


def leakage(
    train: Sequence[Question], test: Sequence[Question], *, embed: Embed | None = None, language: str = "en"
) -> LeakageReport:
    """Compare every test question with the train questions; each is reported once per kind, with its nearest."""
    found: dict[tuple[str, str], Leak] = {}
    for leak in (
        *_exact(train, test),
        *_near(train, test, language),
        *(_near_by_meaning(train, test, embed) if embed else ()),
        *_same_fact(train, test),
        *_same_evidence(train, test),
    ):
        known = found.get((leak.kind, leak.test))
        if known is None or leak.likeness > known.likeness:
            found[leak.kind, leak.test] = leak
    meant = Counter(leak.kind for leak in found.values() if leak.slice in _MEANT[leak.kind])
    leaks = [leak for leak in found.values() if leak.slice not in _MEANT[leak.kind]]
    return LeakageReport(len(train), len(test), leaks, {kind: meant.get(kind, 0) for kind in KINDS})


def _exact(train: Sequence[Question], test: Sequence[Question]) -> Iterator[Leak]:
    asked = {(wording_key(question.question), question.about): question.id for question in train}
    for question in test:
        known = asked.get((wording_key(question.question), question.about))
        if known is not None:
            yield Leak("exact", question.id, known, question.slice)


def _near(train: Sequence[Question], test: Sequence[Question], language: str) -> Iterator[Leak]:
    """Find pairs with `NEAR_WORDS` of common words by their rarest words (prefix filter, Chaudhuri et al. 2006)."""
    words = {id(question): stems(question.question, language) for question in (*train, *test)}
    counts = Counter(word for question in train for word in words[id(question)])
    holding: dict[str, list[Question]] = defaultdict(list)
    for question in train:
        for word in words[id(question)]:
            holding[word].append(question)
    for question in test:
        own = words[id(question)]
        rare = sorted(own, key=lambda word: (counts[word], word))[: len(own) - ceil(NEAR_WORDS * len(own)) + 1]
        for other in {id(known): known for word in rare for known in holding[word]}.values():
            theirs = words[id(other)]
            share = len(own & theirs) / len(own | theirs)
            if share >= NEAR_WORDS and _comparable(question, other):
                yield Leak("near", question.id, other.id, question.slice, round(share, 3))


def _comparable(question: Question, other: Question) -> bool:
    """Tell whether two questions are asked of the same thing, are not the same words, and have the same numbers."""
    return (
        question.about == other.about
        and wording_key(question.question) != wording_key(other.question)
        and numbers(question.question) == numbers(other.question)
    )


def _near_by_meaning(train: Sequence[Question], test: Sequence[Question], embed: Embed) -> Iterator[Leak]:
    if not train or not test:
        return
    known = embed([question.question for question in train])
    asked = embed([question.question for question in test])
    for question, vector in zip(test, asked, strict=True):
        scores = known @ vector
        for place in scores.argsort()[::-1][:5]:
            if scores[place] >= NEAR_MEANING and _comparable(question, train[place]):
                yield Leak("near", question.id, train[place].id, question.slice, round(float(scores[place]), 3))


def _same_fact(train: Sequence[Question], test: Sequence[Question]) -> Iterator[Leak]:
    facts = {question.fact: question.id for question in train if question.fact is not None}
    for question in test:
        if question.fact is not None and question.fact in facts:
            yield Leak("same-fact", question.id, facts[question.fact], question.slice)


def _same_evidence(train: Sequence[Question], test: Sequence[Question]) -> Iterator[Leak]:
    """Find test questions whose evidence lies mostly in a train question's; whole documents tell nothing."""
    spans: dict[str, list[tuple[int, int, Question]]] = defaultdict(list)
    for question in train:
        for item in question.evidence:
            if item.start is not None and item.end is not None:
                spans[item.document].append((item.start, item.end, question))
    for question in test:
        for item in question.evidence:
            for start, end, known in spans[item.document] if item.start is not None else ():
                shared = min(end, item.end or 0) - max(start, item.start or 0)
                shorter = min(end - start, (item.end or 0) - (item.start or 0))
                if shared >= SHARED_EVIDENCE * shorter and (known.fact is None or known.fact != question.fact):
                    yield Leak("same-evidence", question.id, known.id, question.slice)
