"""Drafted questions held against the documents: a pair stays only if its document carries it, and every drop is told.

In this order, the first reason found being the one that counts:

| reason | what is wrong |
|---|---|
| no-evidence | the quote stands nowhere in the document, or the span lies outside it |
| declines | the answer says that the text does not say |
| not-alone | no wording makes sense without the section ("this feature", "the text above") |
| ambiguous | the same words are asked of other evidence too, with another answer |
| duplicate | the same words stand in an earlier draft |
| number-missing | the answer has a number that neither evidence nor question has |
| not-supported | the evidence does not carry enough of the answer's sentences (`support`) |
| near-duplicate | asks nearly the same of the same evidence as an earlier draft |
| answered-elsewhere | a near-miss that another draft, or by the judge a passage, answers |
| judge-says-no, judge-failed | the model asked as judge said so, or gave no usable reply |

The embedder and the judge are handed in. Without an embedder, words alone decide, and near-duplicates are those with
the same content words; without a judge, nothing is asked of a model.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from data_prep.checks import evidence_text
from data_prep.conversations import is_refusal
from data_prep.drafts import Draft
from data_prep.errors import DataError
from data_prep.splits import wording_key
from data_prep.standing_alone import LANGUAGES, why_not_alone
from data_prep.support import Claim, Embed, missing_numbers, numbers, sentence_spans, stems, support_shares

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Judge(Protocol):
    """Says of each claim whether its passage gives its answer; None where no usable reply came."""

    def verdicts(self, claims: Sequence[Claim]) -> list[bool | None]:
        """Return one verdict per claim, in order."""
        ...


@dataclass(frozen=True, slots=True)
class GroundingConfig:
    """Thresholds: the least share of an answer's sentences that is carried, and the least cosines.

    `same_question` is for two questions about overlapping evidence (or two unanswerable ones), `answered` for a
    near-miss and an answerable question.
    """

    supported_share: float = 0.75
    same_question: float = 0.95
    answered: float = 0.92
    language: str = "en"

    def __post_init__(self) -> None:
        wrong = [n for n in ("supported_share", "same_question", "answered") if not 0 < getattr(self, n) <= 1]
        if wrong:
            raise DataError(f"grounding: {', '.join(wrong)} must lie over 0 and up to 1")


_NO_RULES = (
    "whether a question makes sense without its section: there are rules for English and Russian, none for language "
    "{!r}; read the questions for that, or name a judge model"
)


@dataclass(frozen=True)
class GroundingReport:
    """How many drafts came and stayed, the reasons of the others, and how many single wordings were taken out.

    `unchecked` says which checks the documents' language has no rules for.
    """

    drafts: int
    kept: int
    reasons: dict[str, int] = field(default_factory=dict)
    wordings_dropped: int = 0
    located: dict[str, int] = field(default_factory=dict)
    dropped: list[Draft] = field(default_factory=list)
    unchecked: tuple[str, ...] = ()


def ground_drafts(
    drafts: Sequence[Draft],
    texts: Mapping[str, str],
    *,
    embed: Embed | None = None,
    judge: Judge | None = None,
    config: GroundingConfig | None = None,
) -> tuple[list[Draft], GroundingReport]:
    """Return the drafts that stay, and a report of those that do not; `texts` maps document ids to markdown."""
    config = config or GroundingConfig()
    pending = [replace(draft, dropped=None, detail=None) for draft in drafts]
    alone = [_alone(draft) for draft in pending]
    checked = [draft if draft.dropped else _checked(draft, texts) for draft in alone]
    checked = _without_repeats(checked)
    checked = _supported(checked, texts, embed, config)
    checked = _without_near_duplicates(checked, embed, config)
    if judge is not None:
        checked = _judged(checked, texts, judge, embed)
    kept = [draft for draft in checked if draft.dropped is None]
    dropped = [draft for draft in checked if draft.dropped is not None]
    before = sum(len(draft.questions) for draft in drafts)
    return kept, GroundingReport(
        drafts=len(drafts),
        kept=len(kept),
        reasons=dict(Counter(str(draft.dropped) for draft in dropped).most_common()),
        wordings_dropped=before - sum(len(draft.questions) for draft in alone),
        located=dict(Counter(draft.located or "not found" for draft in drafts if draft.answerable)),
        dropped=dropped,
        unchecked=() if config.language in LANGUAGES else (_NO_RULES.format(config.language),),
    )


def _drop(draft: Draft, reason: str, detail: str | None = None) -> Draft:
    return replace(draft, dropped=reason, detail=detail)


def _alone(draft: Draft) -> Draft:
    """Take out the wordings that do not make sense alone; a paraphrase takes the place of a last wording."""
    why = {text: why_not_alone(text) for text in draft.questions}
    wordings = tuple(text for text in draft.wordings if why[text] is None)
    paraphrases = tuple(text for text in draft.paraphrases if why[text] is None)
    if wordings:
        return replace(draft, wordings=wordings, paraphrases=paraphrases)
    if paraphrases:
        return replace(draft, wordings=paraphrases[:1], paraphrases=paraphrases[1:])
    return _drop(draft, "not-alone", why[draft.wordings[0]])


def _checked(draft: Draft, texts: Mapping[str, str]) -> Draft:
    """Check what one draft tells by itself."""
    if not draft.answerable:
        return draft
    inside = [item for item in draft.evidence if item.document in texts]
    if not inside or any((item.end or 0) > len(texts[item.document]) for item in inside):
        return _drop(draft, "no-evidence", draft.quote[:200] or None)
    if is_refusal(draft.answers[0]):
        return _drop(draft, "declines", draft.answers[0])
    passage = evidence_text(draft.evidence, texts)
    missing = [missing_numbers(answer, passage, " ".join(draft.questions)) for answer in draft.answers]
    if all(missing):
        return _drop(draft, "number-missing", ", ".join(sorted(missing[0])))
    return draft


def _without_repeats(drafts: Sequence[Draft]) -> list[Draft]:
    """Drop the same words asked twice: all of them if they have other answers elsewhere, else all but the first."""
    asked: dict[str, list[Draft]] = defaultdict(list)
    for draft in drafts:
        if draft.dropped is None:
            for wording in draft.wordings:
                asked[wording_key(wording)].append(draft)
    ambiguous = {
        draft.id: key
        for key, group in asked.items()
        if len({draft.documents_key for draft in group}) > 1 and len({_answer_key(draft) for draft in group}) > 1
        for draft in group
    }
    first = {key: group[0].id for key, group in asked.items()}
    result = []
    for draft in drafts:
        earlier = (
            {first[wording_key(wording)] for wording in draft.wordings} - {draft.id} if not draft.dropped else set()
        )
        if draft.dropped is None and draft.id in ambiguous:
            draft = _drop(draft, "ambiguous", ambiguous[draft.id])
        elif earlier:
            draft = _drop(draft, "duplicate", sorted(earlier)[0])
        result.append(draft)
    return result


def _answer_key(draft: Draft) -> str:
    return wording_key(draft.answers[0]) if draft.answers else ""


def _supported(
    drafts: Sequence[Draft], texts: Mapping[str, str], embed: Embed | None, config: GroundingConfig
) -> list[Draft]:
    places = [place for place, draft in enumerate(drafts) if draft.dropped is None and draft.answerable]
    claims = [
        Claim(drafts[place].wordings[0], answer, evidence_text(drafts[place].evidence, texts))
        for place in places
        for answer in drafts[place].answers
    ]
    shares = iter(support_shares(claims, embed, config.language))
    result = list(drafts)
    for place in places:
        best = max(next(shares) for _ in drafts[place].answers)
        if best < config.supported_share:
            result[place] = _drop(drafts[place], "not-supported", f"{best:.2f} of its sentences are carried")
    return result


def _without_near_duplicates(drafts: Sequence[Draft], embed: Embed | None, config: GroundingConfig) -> list[Draft]:
    """Drop what asks nearly the same of the same evidence, and near-misses that ask what is answered."""
    result = list(drafts)
    places = [place for place, draft in enumerate(drafts) if draft.dropped is None]
    vectors = embed([drafts[place].wordings[0] for place in places]) if embed and places else None
    likeness = _Likeness([drafts[place] for place in places], vectors, config.language)
    answerable: list[int] = [row for row, place in enumerate(places) if drafts[place].answerable]
    kept_of: dict[str, list[int]] = defaultdict(list)
    for row, place in enumerate(places):
        draft = drafts[place]
        group = kept_of[draft.evidence[0].document if draft.answerable else ""]
        twins = likeness.at_least(row, group, config.same_question)
        twins = [other for other in twins if _same_place(draft, drafts[places[other]])]
        elsewhere = [] if draft.answerable else likeness.at_least(row, answerable, config.answered)
        if twins:
            result[place] = _drop(draft, "near-duplicate", drafts[places[twins[0]]].id)
        elif elsewhere:
            result[place] = _drop(draft, "answered-elsewhere", drafts[places[elsewhere[0]]].id)
        else:
            group.append(row)
    return result


class _Likeness:
    """How alike two questions are: the cosine of their embeddings, else whether their content words are the same.

    Two questions with other numbers are never alike: "alert 101" is not "alert 102".
    """

    def __init__(self, drafts: Sequence[Draft], vectors: NDArray[np.float32] | None, language: str) -> None:
        self._vectors = vectors
        self._words = [stems(draft.wordings[0], language) for draft in drafts]
        self._numbers = [numbers(draft.wordings[0]) for draft in drafts]

    def at_least(self, row: int, others: Sequence[int], least: float) -> list[int]:
        """Return those of `others` that are at least so alike, from 0 to 1."""
        if self._vectors is None:
            alike = [other for other in others if self._words[row] == self._words[other]]
        else:
            scores = self._vectors[list(others)] @ self._vectors[row] if others else ()
            alike = [other for other, score in zip(others, scores, strict=True) if score >= least]
        return [other for other in alike if other != row and self._numbers[row] == self._numbers[other]]


def _same_place(draft: Draft, other: Draft) -> bool:
    """Tell whether two drafts have overlapping evidence; two unanswerable ones always do."""
    if not draft.answerable or not other.answerable:
        return draft.answerable == other.answerable
    return any(
        one.document == two.document
        and (one.start is None or two.start is None or (one.start < (two.end or 0) and two.start < (one.end or 0)))
        for one in draft.evidence
        for two in other.evidence
    )


def _judged(drafts: Sequence[Draft], texts: Mapping[str, str], judge: Judge, embed: Embed | None) -> list[Draft]:
    """Ask the judge of each pair whether its evidence says so, and of near-misses whether any text does."""
    result = list(drafts)
    places = [place for place, draft in enumerate(drafts) if draft.dropped is None and draft.answerable]
    claims = [
        Claim(drafts[p].wordings[0], drafts[p].answers[0], evidence_text(drafts[p].evidence, texts)) for p in places
    ]
    for place, verdict in zip(places, judge.verdicts(claims), strict=True):
        if verdict is not True:
            result[place] = _drop(drafts[place], "judge-failed" if verdict is None else "judge-says-no")
    near = [place for place, draft in enumerate(drafts) if draft.dropped is None and draft.category == "near-miss"]
    passages = _nearest_passages([drafts[place].wordings[0] for place in near], texts, embed)
    asked = [
        Claim(drafts[place].wordings[0], "The passage answers this question.", passage)
        for place, passage in zip(near, passages, strict=True)
    ]
    for place, verdict in zip(near, judge.verdicts(asked), strict=True):
        if verdict is not False:
            result[place] = _drop(drafts[place], "judge-failed" if verdict is None else "answered-elsewhere")
    return result


def _nearest_passages(questions: Sequence[str], texts: Mapping[str, str], embed: Embed | None) -> list[str]:
    """Return, for each question, the five sentences of all documents that are most like it, one a line."""
    sentences = [text[start:end] for text in texts.values() for start, end in sentence_spans(text)] if questions else []
    if not sentences:
        return [""] * len(questions)
    if embed is not None:
        scores = (embed(questions) @ embed(sentences).T).tolist()
    else:
        words = [stems(sentence) for sentence in sentences]
        scores = [[float(len(stems(question) & other)) for other in words] for question in questions]
    return ["\n".join(sentences[place] for place in _best(row, 5)) for row in scores]


def _best(scores: Sequence[float], count: int) -> list[int]:
    return sorted(range(len(scores)), key=lambda place: -scores[place])[:count]
