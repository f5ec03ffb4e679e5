"""How well retrieval finds what questions were judged against: documents, and evidence spans. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from haystack import Document

    from data_prep.questions import Evidence, Question

_DEPTHS = (1, 5, 10)


def evaluate_retrieval(questions: Sequence[Question], retrieved: Sequence[Sequence[Document]]) -> dict[str, float]:
    """Return the mean of each measure of `retrieval_scores`, and `questions`, over the questions with evidence.

    Raises `ValueError` where `questions` and `retrieved` differ in length.
    """
    scores = [
        retrieval_scores(question.evidence, found)
        for question, found in zip(questions, retrieved, strict=True)
        if question.evidence
    ]
    means = mean_scores(scores)
    return {"questions": float(len(scores)), **means}


def mean_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean per measure over the rows that have it."""
    names = list(dict.fromkeys(name for row in scores for name in row))
    columns = {name: [row[name] for row in scores if name in row] for name in names}
    return {name: math.fsum(values) / len(values) for name, values in columns.items()}


def retrieval_scores(evidence: Sequence[Evidence], found: Sequence[Document]) -> dict[str, float]:
    """Return the measures of one ranked list of chunks against the evidence of its question.

    `recall@k`, `mrr@10`, `ndcg@10` are of distinct documents, each at the rank of its first chunk;
    `evidence_recall@k` is the share of evidence spans of which at least half the characters lie in the first k
    chunks (absent where no evidence names a span).
    """
    wanted = {item.document for item in evidence}
    ranked = list(dict.fromkeys(document_of(chunk) for chunk in found))
    scores = {f"recall@{k}": len(wanted.intersection(ranked[:k])) / len(wanted) for k in _DEPTHS}
    scores["mrr@10"] = reciprocal_rank(ranked[:10], wanted)
    scores["ndcg@10"] = ndcg(ranked, wanted, 10)
    spans = [item for item in evidence if item.start is not None]
    if spans:
        for k in _DEPTHS:
            hits = [covered_share(span, found[:k]) >= 0.5 for span in spans]
            scores[f"evidence_recall@{k}"] = sum(hits) / len(spans)
    return scores


def document_of(chunk: Document) -> str:
    """Return the id of the document that `chunk` was cut from."""
    return str(chunk.meta.get("document", chunk.id))


def reciprocal_rank(ranked: Sequence[str], wanted: set[str]) -> float:
    """Return 1 / rank of the first of `ranked` that is wanted, or 0."""
    return next((1 / rank for rank, identity in enumerate(ranked, start=1) if identity in wanted), 0.0)


def ndcg(ranked: Sequence[str], wanted: set[str], k: int) -> float:
    """Return nDCG@k with binary gains (Järvelin and Kekäläinen 2002): discount 1 / log2(rank + 1)."""
    gained = math.fsum(
        1 / math.log2(rank + 1) for rank, identity in enumerate(ranked[:k], start=1) if identity in wanted
    )
    ideal = math.fsum(1 / math.log2(rank + 1) for rank in range(1, min(len(wanted), k) + 1))
    return gained / ideal if ideal else 0.0


def covered_share(span: Evidence, chunks: Sequence[Document]) -> float:
    """Return the share of the span's characters that lie in `chunks`; overlapping chunks count once."""
    if span.start is None or span.end is None:
        return 1.0 if any(document_of(chunk) == span.document for chunk in chunks) else 0.0
    covered: set[int] = set()
    for chunk in chunks:
        if document_of(chunk) == span.document and "start" in chunk.meta:
            covered.update(range(max(span.start, chunk.meta["start"]), min(span.end, chunk.meta["end"])))
    return len(covered) / (span.end - span.start)


def roc_auc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Return the chance that a random positive scores above a random negative, ties counting half.

    Raises `ValueError` where either side is empty.
    """
    if not positives or not negatives:
        raise ValueError("ROC AUC needs at least one score on each side")
    wins = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    return wins / (len(positives) * len(negatives))
