"""Pairs for tuning an embedder: each question with the chunk of its evidence, and chunks that only look like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from comparison_app.embedder_training import embedder_pairs
from comparison_app.errors import ComparisonError
from comparison_app.workspace import Workspace
from data_prep.corpus import load_corpus
from data_prep.questions import Question
from finetune.embedder import EmbedderRecipe


def test_pairs_hold_the_evidence_and_negatives_do_not(small_corpus: Path, tmp_path: Path) -> None:
    """The positive holds the evidence's text, no negative does, and questions without an answer give no pair."""
    corpus, workspace = load_corpus(small_corpus), Workspace(tmp_path / "workspace")
    questions = corpus.questions("train")
    pairs = embedder_pairs(EmbedderRecipe("x", negatives=1), corpus, workspace, questions)
    texts = {document.id: document.content or "" for document in corpus.documents()}
    by_id = {question.id: question for question in questions}
    assert {pair.id for pair in pairs} <= {question.id for question in questions if question.answerable}
    assert pairs
    for pair in pairs:
        evidence = by_id[pair.id].evidence[0]
        told = texts[evidence.document][evidence.start : evidence.end].strip()
        assert told[:20] in pair.positive
        assert len(pair.negatives) == 1
        assert told not in pair.negatives[0]


def test_a_corpus_without_evidence_cannot_tune(small_corpus: Path, tmp_path: Path) -> None:
    """The message says what is missing."""
    corpus, workspace = load_corpus(small_corpus), Workspace(tmp_path / "workspace")
    with pytest.raises(ComparisonError, match="no train question with evidence"):
        embedder_pairs(EmbedderRecipe("x"), corpus, workspace, [Question("q", "Why?", ("x",))])
