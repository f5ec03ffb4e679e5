"""Retrieval measures against values worked out by hand."""

from __future__ import annotations

import math

import pytest
from haystack import Document

from data_prep.questions import Evidence, Question
from rag.evaluation import evaluate_retrieval, retrieval_scores, roc_auc


def _chunk(document: str, start: int, end: int) -> Document:
    return Document(
        id=f"{document}#{start}-{end}", content="x", meta={"document": document, "start": start, "end": end}
    )


def test_document_measures_count_distinct_documents() -> None:
    """Three chunks of one document take one rank: the wanted document comes second, not fourth."""
    found = [_chunk("a", 0, 10), _chunk("a", 10, 20), _chunk("a", 20, 30), _chunk("b", 0, 10)]
    scores = retrieval_scores([Evidence("b")], found)
    assert (scores["recall@1"], scores["recall@5"], scores["mrr@10"]) == (0.0, 1.0, 0.5)
    assert scores["ndcg@10"] == pytest.approx(1 / math.log2(3))
    assert "evidence_recall@5" not in scores


def test_two_wanted_documents_share_the_recall() -> None:
    """Recall is the share of wanted documents found; the ideal ranking holds both."""
    scores = retrieval_scores([Evidence("a"), Evidence("c")], [_chunk("a", 0, 5), _chunk("b", 0, 5)])
    assert scores["recall@5"] == 0.5
    assert scores["ndcg@10"] == pytest.approx(1 / (1 + 1 / math.log2(3)))


def test_evidence_is_found_when_half_of_it_is_covered() -> None:
    """Two chunks that overlap cover a span together; a character counts once."""
    span = [Evidence("a", 100, 200)]
    assert retrieval_scores(span, [_chunk("a", 80, 149)])["evidence_recall@1"] == 0.0
    assert retrieval_scores(span, [_chunk("a", 80, 150)])["evidence_recall@1"] == 1.0
    halves = [_chunk("a", 90, 130), _chunk("a", 110, 150)]
    scores = retrieval_scores(span, halves)
    assert (scores["evidence_recall@1"], scores["evidence_recall@5"]) == (0.0, 1.0)
    assert retrieval_scores(span, [_chunk("b", 100, 200)])["evidence_recall@5"] == 0.0


def test_questions_that_found_nothing_count_as_zero_and_unanswerable_ones_not_at_all() -> None:
    """The mean is over all questions with evidence."""
    questions = [
        Question("1", "q", ("a",), (Evidence("a"),)),
        Question("2", "q", ("a",), (Evidence("a"),)),
        Question("3", "q"),
    ]
    means = evaluate_retrieval(questions, [[_chunk("a", 0, 5)], [], [_chunk("a", 0, 5)]])
    assert (means["questions"], means["recall@1"], means["mrr@10"]) == (2.0, 0.5, 0.5)
    with pytest.raises(ValueError, match="shorter"):
        evaluate_retrieval(questions, [[]])


def test_roc_auc_is_the_chance_of_the_right_order() -> None:
    """Of four pairs two are right, one is tied, one is wrong."""
    assert roc_auc([0.9, 0.5], [0.5, 0.6]) == pytest.approx(2.5 / 4)
    with pytest.raises(ValueError, match="each side"):
        roc_auc([], [1.0])
