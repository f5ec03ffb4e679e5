"""How sure retrieval is that it holds the answer, and from which confidence on to answer: fitted on dev questions.

Confidence is a logistic regression of four signals of a question and what was found for it. Its weights begin at
`PRIOR`, made from other corpora, and dev questions move them as far as they are many (the posterior mode under a normal
prior), so that a handful of questions cannot overfit. No weight is negative: more of a signal never makes less sure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from rag.evaluation import roc_auc

if TYPE_CHECKING:
    import numpy as np
    from haystack import Document
    from numpy.typing import NDArray

    from data_prep.questions import Question
    from rag.answering import RagAnswerer

_READ = 5
"""Chunks that the margin is taken over, the best ones."""

_SPREAD = 2.0
"""Standard deviation of the prior: weights fitted on one corpus and on another lie about so far apart."""

_FOLDS = 5
_MOST_POINTS = 60
"""Points of a ROC curve that are kept."""


class Signals(NamedTuple):
    """What tells whether the chunks found hold the answer; each from 0 (it tells against) to 1."""

    sentence: float
    """The best cosine of a single sentence with the question, without title and headings: on a page about the right
    thing, only a sentence that answers is near the question."""
    cosine: float
    """The best chunk's cosine with the question."""
    coverage: float
    """Share of the question's terms, weighted by inverse document frequency, that this chunk holds."""
    margin: float
    """How far that cosine is above the lowest of the first chunks."""


@dataclass(frozen=True)
class ConfidenceWeights:
    """Weights of the signals in the log odds that the question is answered; one per signal, and the bias."""

    sentence: float
    cosine: float
    coverage: float
    margin: float
    bias: float

    def confidence(self, signals: Signals) -> float:
        """Return how sure it is, 0 to 1, that the answer is there."""
        odds = self.bias + math.fsum(w * x for w, x in zip(astuple(self)[:-1], signals, strict=True))
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, odds))))


PRIOR = ConfidenceWeights(sentence=1.0, cosine=6.4, coverage=1.6, margin=1.1, bias=-5.4)
"""Means, rounded, of the weights fitted on train questions of the sample manual and, each asked once more with its
document taken away, of tesla-model3; clapnq, which abstention is measured on, had no part in them."""


@dataclass(frozen=True)
class AbstentionCalibration:
    """Where to decline, and what that costs and gains on the questions it was found on.

    The shares, the area and the curve are cross-validated: each question is judged by weights fitted without it.
    """

    threshold: float
    roc_auc: float
    answered_right: float
    """Share of the answerable questions that are answered at this threshold."""
    declined_right: float
    """Share of the unanswerable questions that are declined at this threshold."""
    answerable: int
    unanswerable: int
    roc: tuple[tuple[float, float], ...]
    """Points of the ROC curve: share of the unanswerable, and of the answerable questions, that a threshold answers."""
    weights: ConfidenceWeights

    def as_dict(self) -> dict[str, Any]:
        """Return plain values that `from_dict` reads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AbstentionCalibration:
        """Read what `as_dict` gave, also through JSON; raises `TypeError` or `KeyError` for anything else."""
        curve = tuple((float(wrong), float(right)) for wrong, right in data["roc"])
        return cls(**{**data, "roc": curve, "weights": ConfidenceWeights(**data["weights"])})


def signals_of(chunks: Sequence[Document], sentence: float, coverage: Callable[[Document], float]) -> Signals:
    """Return the signals of one question.

    `chunks`: what was found, best first. `sentence`: the best cosine of a sentence of these. `coverage`: from a chunk
    to the share of the question's terms that it holds; without embeddings the best of the first three counts.
    """
    if not chunks:
        return Signals(0.0, 0.0, 0.0, 0.0)
    cosines = [float(chunk.meta.get("scores", {}).get("dense", 0.0)) for chunk in chunks]
    best = max(cosines)
    if best <= 0:
        return Signals(max(0.0, sentence), 0.0, max(coverage(chunk) for chunk in chunks[:3]), 0.0)
    held = coverage(chunks[cosines.index(best)])
    return Signals(max(0.0, sentence), best, held, best - min(best, *cosines[:_READ]))


def fitted(signals: Sequence[Signals], answerable: Sequence[bool]) -> ConfidenceWeights:
    """Return the weights most likely after these questions, both kinds weighing the same; `PRIOR` without one kind."""
    import numpy as np
    from scipy.optimize import minimize

    right = np.array(answerable, dtype=bool)
    if right.all() or not right.any():
        return PRIOR
    rows = np.array(signals, dtype=np.float64)
    signs = np.where(right, 1.0, -1.0)
    shares = len(right) / 2 * np.where(right, 1 / right.sum(), 1 / (~right).sum())
    prior = np.array(astuple(PRIOR))

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = signs * (rows @ weights[:-1] + weights[-1])
        pulls = -signs * shares * np.exp(-np.logaddexp(0, margins))
        drift = (weights[:-1] - prior[:-1]) / _SPREAD
        value = float(shares @ np.logaddexp(0, -margins) + drift @ drift / 2)
        return value, np.append(rows.T @ pulls + drift / _SPREAD, pulls.sum())

    bounds = [(0.0, None)] * rows.shape[1] + [(None, None)]
    found = minimize(loss, prior, jac=True, bounds=bounds, method="L-BFGS-B").x
    return ConfidenceWeights(*(float(weight) for weight in found))


def cross_validated(signals: Sequence[Signals], answerable: Sequence[bool]) -> list[float]:
    """Return each question's confidence by weights fitted on four fifths of the others."""
    seen = {True: 0, False: 0}
    folds = []
    for kind in answerable:
        folds.append(seen[kind] % _FOLDS)
        seen[kind] += 1
    models = []
    for fold in range(_FOLDS):
        kept = [place for place, own in enumerate(folds) if own != fold]
        models.append(fitted([signals[place] for place in kept], [answerable[place] for place in kept]))
    return [models[fold].confidence(row) for row, fold in zip(signals, folds, strict=True)]


def calibrate_abstention(
    questions: Sequence[Question], answerer: RagAnswerer, *, answered_at_least: float = 0.0
) -> AbstentionCalibration:
    """Fit the confidence and find the one under which to decline, on dev questions of both kinds.

    The threshold maximises the mean of the shares answered and declined rightly (Youden's J), among those that still
    answer `answered_at_least` of the answerable questions. Raises `ValueError` unless there are answerable and
    unanswerable questions.
    """
    answerable = [question.answerable for question in questions]
    rows = answerer.signals([question.question for question in questions], [question.about for question in questions])
    scores = cross_validated(rows, answerable)
    known = [score for score, right in zip(scores, answerable, strict=True) if right]
    others = [score for score, right in zip(scores, answerable, strict=True) if not right]
    area = roc_auc(known, others)
    levels = sorted(set(scores))
    cuts = [0.0, *((low + high) / 2 for low, high in pairwise(levels)), 1.0]
    points = [(_share_from(others, cut), _share_from(known, cut)) for cut in cuts]
    allowed = [place for place, (_, answered) in enumerate(points) if answered >= answered_at_least]
    best = max(allowed, key=lambda place: points[place][1] - points[place][0])
    return AbstentionCalibration(
        threshold=cuts[best],
        roc_auc=area,
        answered_right=points[best][1],
        declined_right=1 - points[best][0],
        answerable=len(known),
        unanswerable=len(others),
        roc=_thinned(points),
        weights=fitted(rows, answerable),
    )


def _share_from(scores: Sequence[float], threshold: float) -> float:
    return sum(score >= threshold for score in scores) / len(scores)


def _thinned(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return the corners of a curve, at most about `_MOST_POINTS`, its ends among them."""
    corners = [
        point
        for place, point in enumerate(points)
        if place in (0, len(points) - 1) or (points[place - 1][0] != point[0]) != (points[place + 1][0] != point[0])
    ]
    step = -(-len(corners) // _MOST_POINTS)
    return tuple(dict.fromkeys([*corners[::step], corners[-1]]))
