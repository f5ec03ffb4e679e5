"""Questions that came with a document and no quote: evidence is found, and what is not carried is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from data_prep.corpus import SPLITS, Corpus
from data_prep.drafts import Draft
from data_prep.grounding import GroundingConfig, GroundingReport, Judge, ground_drafts
from data_prep.questions import Evidence, Question, write_questions
from data_prep.splits import wording_key
from data_prep.support import Embed, best_window

ORIGIN = "import"


def drafts_of_questions(questions: Sequence[Question], texts: Mapping[str, str], language: str = "en") -> list[Draft]:
    """Turn questions into drafts; evidence of a whole document becomes the stretch that best carries the answer."""
    drafts = []
    for question in questions:
        evidence = tuple(_narrowed(item, question, texts, language) for item in question.evidence)
        found = all(item.start is not None for item in evidence) and bool(evidence)
        drafts.append(
            Draft(
                id=question.id,
                document=next(iter(question.documents), question.about or ""),
                wordings=(question.question,),
                answers=question.answers,
                evidence=tuple(item for item in evidence if item.start is not None),
                located="searched" if found else None,
                category=question.category,
                origin=ORIGIN,
            )
        )
    return drafts


def _narrowed(item: Evidence, question: Question, texts: Mapping[str, str], language: str) -> Evidence:
    if item.start is not None or item.document not in texts or not question.answers:
        return item
    span = best_window(question.question, question.answers[0], texts[item.document], language=language)
    return Evidence(item.document, *span) if span else item


def ground_imported(
    corpus: Corpus, *, embed: Embed | None = None, judge: Judge | None = None, config: GroundingConfig | None = None
) -> GroundingReport:
    """Ground the question files of a corpus and write back what stays, its evidence narrowed to spans.

    Test rows that repeat a trained wording (slice `trained`) stay if the train row does. Questions asked of one
    document (`about`) are left as they are: what they ask cannot stand alone.
    """
    config = config or GroundingConfig(language=corpus.language)
    splits = {split: corpus.questions(split) for split in SPLITS}
    looked_at = [q for split in SPLITS for q in splits[split] if not _repeats(q, split) and q.about is None]
    texts = corpus.texts(include_new=True)
    drafts = drafts_of_questions(looked_at, texts, config.language)
    kept, report = ground_drafts(drafts, texts, embed=embed, judge=judge, config=config)
    evidence = {draft.id: draft.evidence for draft in kept}
    trained = {wording_key(q.question): q.id for q in splits["train"] if q.id in evidence}
    for split, questions in splits.items():
        rows = []
        for question in questions:
            name = trained.get(wording_key(question.question), "") if _repeats(question, split) else question.id
            if question.about is not None:
                rows.append(question)
            elif name in evidence:
                rows.append(replace(question, evidence=evidence[name]) if question.answerable else question)
        if questions:
            write_questions(corpus.path / "questions" / f"{split}.jsonl", rows)
    return report


def _repeats(question: Question, split: str) -> bool:
    return split != "train" and question.slice == "trained"
