"""Answers in, statements out: every arm's scores, every difference, and how sure each is.

An `Evaluation` holds the numbers from which `summary.json`, the verdict and the report are written.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from comparison_app.experiment import OVERALL, Comparison, Experiment
from comparison_app.metrics.scoring import ABSTENTION, METRICS, DocumentTexts, Scores, declined, score_all
from comparison_app.metrics.similarity import Embed
from comparison_app.power import visible_among
from comparison_app.predictions import Prediction
from comparison_app.statistics import (
    FEWEST_CLUSTERS,
    Estimate,
    PairedDifference,
    holm,
    is_decisive,
    mean_estimates,
    paired_differences,
)
from data_prep.questions import SLICES, Question

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Pair:
    """A comparison with its outcome. `adjusted_p` is None where it was not declared, and then it is exploratory."""

    comparison: Comparison
    found: PairedDifference
    adjusted_p: float | None = None
    decisive: bool = False

    @property
    def declared(self) -> bool:
        """Whether the experiment declared it."""
        return self.adjusted_p is not None


@dataclass(frozen=True)
class Evaluation:
    """A run's numbers. `scores`: metric -> (questions, arms), NaN where a metric does not apply.

    `estimates`: (metric, slice) -> arm -> mean with interval. `notes`: what was amiss with the predictions.
    """

    experiment: Experiment
    questions: tuple[Question, ...]
    predictions: Mapping[str, tuple[Prediction, ...]]
    texts: DocumentTexts
    scores: Mapping[str, Scores]
    estimates: Mapping[tuple[str, str], Mapping[str, Estimate]]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms' names, in the experiment's order; the columns of `scores`."""
        return tuple(self.predictions)

    @property
    def slices(self) -> tuple[str, ...]:
        """The slices that were asked, in DESIGN's order."""
        asked = {question.slice for question in self.questions}
        return tuple(name for name in SLICES if name in asked)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that apply somewhere."""
        return tuple(metric for metric in METRICS if metric in self.scores)

    def rows(self, slice_name: str) -> Rows:
        """Return which questions belong to a slice, or to "overall"."""
        return slice_rows(self.questions, slice_name)

    @cached_property
    def credit(self) -> Scores:
        """What each answer is worth, shape (questions, arms): the primary metric, or a right refusal where none is."""
        credit = self.scores[self.experiment.primary_metric].copy()
        closed = [not question.answerable for question in self.questions]
        credit[closed] = self.scores[ABSTENTION][closed]
        return credit

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """What each question counts in the user's mix, shape (questions,)."""
        return question_weights(self.experiment, self.questions)

    def declared(self) -> list[Pair]:
        """Return the declared comparisons, in the experiment's order."""
        return [pair for pair in self.pairs if pair.declared]

    def refused(self, arm: str) -> list[bool]:
        """Tell of each question whether `arm` declined it."""
        return [declined(prediction) for prediction in self.predictions[arm]]


def evaluate(
    experiment: Experiment,
    questions: Sequence[Question],
    predictions: Iterable[Prediction],
    texts: DocumentTexts,
    embed: Embed | None = None,
) -> Evaluation:
    """Score a run and compare its arms.

    A question that an arm was never asked counts as a failure of the arm; of two predictions for one question the
    first counts. Both are said in `notes`.
    """
    aligned, notes = align(experiment, questions, predictions)
    retrieving = {arm.name: arm.retrieves for arm in experiment.arms}
    scores = score_all(questions, aligned, retrieving, texts, embed)
    return Evaluation(
        experiment=experiment,
        questions=tuple(questions),
        predictions=aligned,
        texts=texts,
        scores=scores,
        estimates=_estimates(experiment, questions, tuple(aligned), scores),
        pairs=_pairs(experiment, questions, tuple(aligned), scores),
        notes=notes,
    )


def align(
    experiment: Experiment, questions: Sequence[Question], predictions: Iterable[Prediction]
) -> tuple[dict[str, tuple[Prediction, ...]], tuple[str, ...]]:
    """Return per arm one prediction per question, in order, and notes on what was missing, repeated or unknown."""
    wanted = {question.id for question in questions}
    found: dict[str, dict[str, Prediction]] = {arm.name: {} for arm in experiment.arms}
    repeated: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for prediction in predictions:
        answers = found.get(prediction.arm)
        if answers is None or prediction.question_id not in wanted:
            unknown[prediction.arm] += 1
        elif prediction.question_id in answers:
            repeated[prediction.arm] += 1
        else:
            answers[prediction.question_id] = prediction
    missing = {arm: len(questions) - len(answers) for arm, answers in found.items()}
    notes = [f"{arm}: {count} without a prediction, counted as wrong" for arm, count in missing.items() if count]
    notes += [f"{arm}: {count} repeated, the first counts" for arm, count in repeated.items()]
    notes += [f"{arm}: {count} of other questions or arms, left out" for arm, count in unknown.items()]
    aligned = {
        arm: tuple(answers.get(item.id) or Prediction(item.id, arm, error="no prediction") for item in questions)
        for arm, answers in found.items()
    }
    return aligned, tuple(notes)


def cluster_of(question: Question) -> str:
    """Return the document that a question hangs on: its evidence's, or the one it is about, or itself."""
    if question.evidence:
        return question.evidence[0].document
    return question.about or f"question {question.id}"


def slice_rows(questions: Sequence[Question], slice_name: str) -> Rows:
    """Return the places of a slice's questions; all for "overall"."""
    chosen = [place for place, item in enumerate(questions) if slice_name in (OVERALL, item.slice)]
    return np.array(chosen, dtype=np.intp)


def question_weights(experiment: Experiment, questions: Sequence[Question]) -> NDArray[np.float64]:
    """Return what each question weighs overall, mean 1: alike, or such that slices weigh as the experiment says.

    With `slice_weights`, a slice that is not named weighs 1, and its questions share it.
    """
    if not experiment.slice_weights or not questions:
        return np.ones(len(questions))
    sizes = Counter(question.slice for question in questions)
    raw = np.array([experiment.slice_weights.get(str(q.slice), 1.0) / sizes[q.slice] for q in questions])
    return raw * (len(raw) / raw.sum()) if raw.sum() > 0 else np.ones(len(questions))


@dataclass(frozen=True)
class _Cell:
    """One metric on one slice: the arms (columns) and questions (rows) it applies to, their documents and weights."""

    metric: str
    place: str
    columns: list[int]
    rows: Rows
    clusters: list[str]
    weights: NDArray[np.float64]


def _cells(experiment: Experiment, questions: Sequence[Question], scores: Mapping[str, Scores]) -> Iterator[_Cell]:
    """Yield every metric on every slice and overall, where there is something to average."""
    weights = question_weights(experiment, questions)
    clusters = [cluster_of(question) for question in questions]
    for place in [OVERALL, *dict.fromkeys(str(question.slice) for question in questions)]:
        weigh = weights if place == OVERALL else np.ones(len(questions))
        within = slice_rows(questions, place)
        within = within[weigh[within] > 0]
        for metric, table in scores.items():
            applies = ~np.isnan(table[within])
            columns = [column for column in range(table.shape[1]) if applies[:, column].any()]
            rows = within[applies[:, columns].all(axis=1)]
            if columns and len(rows):
                yield _Cell(metric, place, columns, rows, [clusters[row] for row in rows], weigh[rows])


def _estimates(
    experiment: Experiment, questions: Sequence[Question], arms: Sequence[str], scores: Mapping[str, Scores]
) -> dict[tuple[str, str], dict[str, Estimate]]:
    """Return the mean of every metric on every slice for every arm, without interval where documents are too few."""
    result = {}
    for cell in _cells(experiment, questions, scores):
        values = scores[cell.metric][np.ix_(cell.rows, np.array(cell.columns))]
        found = mean_estimates(values, cell.clusters, weights=cell.weights, seed=experiment.seed)
        result[cell.metric, cell.place] = {
            arms[column]: estimate if estimate.clusters >= FEWEST_CLUSTERS else replace(estimate, low=None, high=None)
            for column, estimate in zip(cell.columns, found, strict=True)
        }
    return result


def _pairs(
    experiment: Experiment, questions: Sequence[Question], arms: Sequence[str], scores: Mapping[str, Scores]
) -> tuple[Pair, ...]:
    """Compare all pairs of arms on every metric and slice; the declared ones first, adjusted among themselves."""
    declared = defaultdict(set)
    for comparison in experiment.comparisons:
        declared[comparison.metric, comparison.slice].add((comparison.a, comparison.b))
    found: dict[Comparison, PairedDifference] = {}
    for cell in _cells(experiment, questions, scores):
        named = declared[cell.metric, cell.place]
        sides = [_declared_side(pair, arms, named) for pair in combinations(cell.columns, 2)]
        if sides:
            left, right = (scores[cell.metric][np.ix_(cell.rows, np.array(side))] for side in zip(*sides, strict=True))
            differences = paired_differences(left, right, cell.clusters, weights=cell.weights, seed=experiment.seed)
            for (a, b), difference in zip(sides, differences, strict=True):
                found[Comparison(arms[a], arms[b], cell.place, cell.metric)] = _honest(difference)
    return _adjusted(experiment, found)


def _declared_side(pair: tuple[int, int], arms: Sequence[str], declared: set[tuple[str, str]]) -> tuple[int, int]:
    """Turn a pair of columns the way the experiment names it."""
    a, b = pair
    return (b, a) if (arms[b], arms[a]) in declared else pair


def _honest(difference: PairedDifference) -> PairedDifference:
    """Take the interval away where there are too few documents to trust one."""
    if difference.clusters >= FEWEST_CLUSTERS:
        return difference
    return replace(difference, low=None, high=None, detectable=None)


def _adjusted(experiment: Experiment, found: Mapping[Comparison, PairedDifference]) -> tuple[Pair, ...]:
    """Adjust the declared comparisons for their number (Holm) and mark the rest exploratory."""
    declared = [comparison for comparison in experiment.comparisons if comparison in found]
    adjusted = holm([found[comparison].p_value for comparison in declared])
    first = [
        Pair(comparison, visible_among(found[comparison], len(declared)), p, is_decisive(found[comparison], p))
        for comparison, p in zip(declared, adjusted, strict=True)
    ]
    rest = [Pair(comparison, found[comparison]) for comparison in found if comparison not in set(declared)]
    return (*first, *rest)
