"""When retrieval is too unsure to answer: signals, weights fitted on dev questions, and what is kept of it."""

from __future__ import annotations

import json
import random
from dataclasses import astuple

import pytest
from haystack import Document

from rag.abstention import PRIOR, AbstentionCalibration, ConfidenceWeights, Signals, cross_validated, fitted, signals_of
from rag.evaluation import roc_auc


def _made(count: int, seed: int = 0) -> tuple[list[Signals], list[bool]]:
    """Return questions of a corpus where only the sentence's cosine tells: the other signals are noise."""
    rng = random.Random(seed)
    answerable = [bool(number % 2) for number in range(count)]
    rows = [
        Signals(rng.gauss(0.6 if right else 0.4, 0.08), rng.random(), rng.random(), rng.random())
        for right in answerable
    ]
    return rows, answerable


def _chunk(dense: float, text: str = "text") -> Document:
    return Document(content=text, meta={"scores": {"dense": dense}})


def test_many_questions_find_the_signal_that_tells() -> None:
    """Weights follow a large set, none below 0, and confidence parts its kinds better than the prior does."""
    rows, answerable = _made(600)
    weights = fitted(rows, answerable)
    assert min(astuple(weights)[:-1]) >= 0
    assert weights.sentence > 2 * max(weights.cosine, weights.coverage, weights.margin)

    def area(model: ConfidenceWeights) -> float:
        scores = [model.confidence(row) for row in rows]
        return roc_auc(
            [s for s, a in zip(scores, answerable, strict=True) if a],
            [s for s, a in zip(scores, answerable, strict=True) if not a],
        )

    assert area(weights) > max(0.9, area(PRIOR) + 0.05)


def test_a_signal_that_tells_against_is_left_out() -> None:
    """Where more of a signal goes with unanswerable questions, its weight ends at 0 and not below."""
    rows, answerable = _made(400)
    rows = [row._replace(margin=0.1 if right else 0.9) for row, right in zip(rows, answerable, strict=True)]
    weights = fitted(rows, answerable)
    assert weights.margin == 0.0
    assert weights.sentence > 1


def test_few_questions_hardly_move_the_weights() -> None:
    """Four questions that say the contrary do not overturn what other corpora have shown."""
    rows = [Signals(0.2, 0.3, 0.2, 0.0), Signals(0.7, 0.8, 0.9, 0.2)] * 2
    weights = fitted(rows, [True, False] * 2)
    assert weights.cosine > 3
    assert fitted(rows, [True] * 4) == PRIOR


def test_cross_validated_confidence_has_no_use_for_noise() -> None:
    """Where no signal tells anything, judging each question by weights fitted without it shows just that."""
    rng = random.Random(3)
    rows = [Signals(*(rng.random() for _ in range(4))) for _ in range(400)]
    answerable = [rng.random() < 0.5 for _ in rows]
    scores = cross_validated(rows, answerable)
    known = [score for score, right in zip(scores, answerable, strict=True) if right]
    others = [score for score, right in zip(scores, answerable, strict=True) if not right]
    assert 0.4 < roc_auc(known, others) < 0.56


@pytest.mark.parametrize("name", Signals._fields)
def test_more_of_a_signal_never_makes_less_sure(name: str) -> None:
    """Confidence rises, or stays, with each signal, and lies between 0 and 1."""
    low = Signals(0.4, 0.4, 0.4, 0.1)
    high = low._replace(**{name: 0.9})
    assert 0 < PRIOR.confidence(low) <= PRIOR.confidence(high) < 1


def test_signals_are_of_the_best_chunk_and_its_lead() -> None:
    """Coverage is that of the chunk with the best cosine; without embeddings the best of the first three."""
    held = {"a": 0.2, "b": 0.7, "c": 0.9, "d": 1.0}

    def coverage(chunk: Document) -> float:
        return held[chunk.content or ""]

    found = [_chunk(0.5, "a"), _chunk(0.6, "b"), _chunk(0.1, "c")]
    assert signals_of(found, 0.3, coverage) == pytest.approx((0.3, 0.6, 0.7, 0.5))
    words_only = [_chunk(0.0, name) for name in "abcd"]
    assert signals_of(words_only, 0.3, coverage) == (0.3, 0.0, 0.9, 0.0)
    assert signals_of([], 0.3, coverage) == (0.0, 0.0, 0.0, 0.0)


def test_a_calibration_is_the_same_after_json() -> None:
    """What is kept beside an index is read back as it was."""
    made = AbstentionCalibration(0.4, 0.9, 0.95, 0.7, 20, 10, ((1.0, 1.0), (0.3, 0.95), (0.0, 0.0)), PRIOR)
    assert AbstentionCalibration.from_dict(json.loads(json.dumps(made.as_dict()))) == made
