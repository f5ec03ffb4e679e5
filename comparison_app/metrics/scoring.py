"""Every metric of every prediction, as one table of scores between 0 and 1.

Rules that hold for all metrics:
- A prediction with `error`, or none at all, scores 0 on everything that applies to its question. It is never dropped.
- On an unanswerable question only `abstention_accuracy` applies.
- A refusal of an answerable question scores 0 on every metric of the answer; what was retrieved is still judged.
- Metrics of sources apply to arms that retrieve, and to questions whose evidence is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from comparison_app.metrics.abstention import abstention_accuracy
from comparison_app.metrics.citations import citation_precision, citation_recall
from comparison_app.metrics.normalise import without_citations
from comparison_app.metrics.numbers import numbers_match
from comparison_app.metrics.overlap import exact_match, rouge_l, token_f1
from comparison_app.metrics.retrieval import ndcg, recall_at, reciprocal_rank
from comparison_app.metrics.similarity import Embed, semantic_similarity
from comparison_app.metrics.support import support
from comparison_app.predictions import Prediction, RetrievedSpan
from data_prep.conversations import is_refusal
from data_prep.questions import Question

if TYPE_CHECKING:
    from data_prep.corpus import Corpus

TEXT_METRICS = ("exact_match", "token_f1", "rouge_l", "semantic_similarity", "numbers")
SOURCE_METRICS = ("supported", "citation_precision", "citation_recall")
RETRIEVAL_METRICS = ("recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10")
ABSTENTION = "abstention_accuracy"
METRICS = (*TEXT_METRICS, *SOURCE_METRICS, ABSTENTION, *RETRIEVAL_METRICS)
"""All metrics, in the order of reports."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class DocumentTexts:
    """The documents' contents by id: as they stood before, and after, the new documents were added.

    `corpus` is where they come from, for who shows them; None where they come from elsewhere.
    """

    before: Mapping[str, str]
    after: Mapping[str, str] = field(default_factory=dict)
    corpus: Corpus | None = None

    @classmethod
    def of(cls, corpus: Corpus) -> DocumentTexts:
        """Return the texts of a corpus."""
        before, after = (
            {document.id: document.content or "" for document in corpus.documents(include_new=new)}
            for new in (False, True)
        )
        return cls(before, after, corpus)

    def content(self, document: str, question: Question) -> str | None:
        """Return what `document` held when `question` was asked; None if there is no such document."""
        if question.slice == "new-document" and document in self.after:
            return self.after[document]
        return self.before.get(document, self.after.get(document))

    def text(self, span: RetrievedSpan, question: Question) -> str:
        """Return the characters of `span`; empty if its document is unknown."""
        return (self.content(span.document, question) or "")[span.start : span.end]


def declined(prediction: Prediction) -> bool:
    """Tell whether the arm declined: it said so, or its words do. A failure is no refusal."""
    return prediction.error is None and (prediction.abstained or is_refusal(prediction.answer))


def score_prediction(
    question: Question, prediction: Prediction, texts: DocumentTexts, *, retrieves: bool
) -> dict[str, float]:
    """Return every metric that applies to `prediction`, all but semantic similarity (see `score_all`)."""
    failed = prediction.error is not None
    refused = declined(prediction)
    scores = {ABSTENTION: 0.0 if failed else abstention_accuracy(refused, question.answerable)}
    if not question.answerable:
        return scores
    silent = failed or refused
    scores |= _text_scores(question, "" if silent else prediction.answer, silent)
    if retrieves:
        scores |= _source_scores(question, prediction, texts, silent)
    if retrieves and question.evidence:
        scores |= _retrieval_scores(question, () if failed else prediction.documents)
    return scores


def _text_scores(question: Question, answer: str, silent: bool) -> dict[str, float]:
    """Return the scores that compare the answer with the gold answers; 0 for a silent arm."""
    numbers = numbers_match(answer, question.answers, question.question)
    scores = {} if numbers is None else {"numbers": 0.0 if silent else numbers}
    if silent:
        return scores | {"exact_match": 0.0, "token_f1": 0.0, "rouge_l": 0.0}
    return scores | {
        "exact_match": exact_match(answer, question.answers),
        "token_f1": token_f1(answer, question.answers),
        "rouge_l": rouge_l(answer, question.answers),
    }


def _source_scores(question: Question, prediction: Prediction, texts: DocumentTexts, silent: bool) -> dict[str, float]:
    """Return what the sources say of the answer; 0 for a silent arm."""
    keys = SOURCE_METRICS if question.evidence else SOURCE_METRICS[:1]
    if silent:
        return dict.fromkeys(keys, 0.0)
    answer, spans = prediction.answer, prediction.documents
    scores = {"supported": support(answer, [texts.text(span, question) for span in spans])}
    if question.evidence:
        scores["citation_precision"] = citation_precision(answer, spans, question.evidence)
        scores["citation_recall"] = citation_recall(answer, spans, question.evidence)
    return scores


def _retrieval_scores(question: Question, spans: Sequence[RetrievedSpan]) -> dict[str, float]:
    """Return how well the retrieved spans found the evidence."""
    evidence = question.evidence
    return {
        "recall@1": recall_at(1, evidence, spans),
        "recall@5": recall_at(5, evidence, spans),
        "recall@10": recall_at(10, evidence, spans),
        "mrr@10": reciprocal_rank(evidence, spans),
        "ndcg@10": ndcg(evidence, spans),
    }


def score_all(
    questions: Sequence[Question],
    predictions: Mapping[str, Sequence[Prediction]],
    retrieving: Mapping[str, bool],
    texts: DocumentTexts,
    embed: Embed | None = None,
) -> dict[str, Scores]:
    """Score every arm's `predictions` (one per question, in the order of `questions`).

    Returns metric -> array of shape (questions, arms); NaN where the metric does not apply, and no entry for a metric
    that applies nowhere. Without `embed` there is no semantic similarity.
    """
    table = {metric: np.full((len(questions), len(predictions)), np.nan) for metric in METRICS}
    for column, (arm, rows) in enumerate(predictions.items()):
        for row, (question, prediction) in enumerate(zip(questions, rows, strict=True)):
            scores = score_prediction(question, prediction, texts, retrieves=retrieving[arm])
            for metric, score in scores.items():
                table[metric][row, column] = score
    if embed is not None:
        table["semantic_similarity"] = _similarities(questions, predictions, embed)
    return {metric: scores for metric, scores in table.items() if not np.isnan(scores).all()}


def _similarities(
    questions: Sequence[Question], predictions: Mapping[str, Sequence[Prediction]], embed: Embed
) -> Scores:
    """Return semantic similarity of shape (questions, arms), all texts embedded in one call; a NaN scores 0."""
    golds = [question.answers for question in questions for _ in predictions]
    answers = [
        "" if (reply := rows[place]).error is not None or declined(reply) else without_citations(reply.answer)
        for place in range(len(questions))
        for rows in predictions.values()
    ]
    flat = np.array(semantic_similarity(answers, golds, embed), dtype=np.float64)
    found: Scores = flat.reshape(len(questions), len(predictions))
    found[np.isnan(found)] = 0.0
    found[[not question.answerable for question in questions]] = np.nan
    return found
