"""How sure a difference is: intervals, tests and what could have been seen, with questions grouped by document.

Questions of one page are not independent, so a *cluster* (a document) is the unit that is resampled and flipped.

Intervals: the bootstrap of clusters (`comparison_app.resampling`). Where the arms are right, or wrong, on nearly all
questions, they also take in those that follow from the scores' bounds (`comparison_app.score_intervals`), and are
called cautious: they hold the truth more often than 95 %. Tests: sign-flip permutation of cluster totals; exact
McNemar (1947) for binary scores as the unclustered reading; Holm (1979).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from comparison_app.errors import StatisticsError
from comparison_app.resampling import ALPHA, Array, bca_bounds, cluster_totals, finite_scores, flip_tests
from comparison_app.score_intervals import few_outcomes, newcombe_bounds, wilson_bounds

POWER = 0.8
FEWEST_CLUSTERS = 6
"""Below it no sign-flip p can fall under 0.05 (2 / 2**5 = 0.0625), so a report shows no interval."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval; `low` and `high` are None where one cluster is all there is.

    A `cautious` interval holds the truth more often than 95 %: few answers were right, or few wrong.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    clusters: int
    cautious: bool = False


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a - b over `n` questions, its 95 % interval, and the test of "no difference".

    `low`, `high` are None where one cluster is all there is. `test` names the test behind `p_value`.
    `detectable` is the smallest true difference that a run like this would find in 80 % of cases at p < 0.05; None
    where the arms never differ. `mcnemar_p` is given for binary scores, and ignores the clusters. A `cautious` interval
    holds the truth more often than 95 %: both arms were hardly ever right, or hardly ever wrong.
    """

    difference: float
    low: float | None
    high: float | None
    p_value: float
    test: str
    n: int
    clusters: int
    detectable: float | None = None
    mcnemar_p: float | None = None
    cautious: bool = False

    @property
    def excludes_zero(self) -> bool:
        """Whether an interval exists and 0 lies outside it."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def paired_difference(
    a: ArrayLike, b: ArrayLike, clusters: Sequence[Hashable] | None = None, seed: int = 0
) -> PairedDifference:
    """Compare two arms on the same questions: `a`, `b` are scores of shape (n,), `clusters` names n documents.

    Without `clusters` every question is its own. Raises `StatisticsError` if the arrays are empty, of different
    length, or hold something that is not a finite number.
    """
    first, second = finite_scores(a, "a"), finite_scores(b, "b")
    if first.shape != second.shape:
        raise StatisticsError(f"a has {len(first)} scores and b has {len(second)}: pair them by question first")
    return paired_differences(first[:, None], second[:, None], clusters, seed=seed)[0]


def paired_differences(
    a: Array,
    b: Array,
    clusters: Sequence[Hashable] | None = None,
    *,
    weights: ArrayLike | None = None,
    seed: int = 0,
) -> list[PairedDifference]:
    """Compare k pairs at once: `a`, `b` of shape (n, k), same questions and clusters; `weights` of shape (n,).

    The mean is weighted; so are the cluster totals that are resampled and flipped. Where all scores of a pair lie
    between 0 and 1, and both arms have few right or few wrong answers, its interval is widened to hold Newcombe's too.
    """
    gaps = a - b
    totals = cluster_totals(gaps, clusters, weights)
    low, high, error = bca_bounds(totals, seed)
    cautious = _hardly_vary(a, b, clusters, weights)
    if cautious.any():
        sides = [cluster_totals(side[:, cautious], clusters, weights) for side in (a, b)]
        ends = newcombe_bounds(sides[0], sides[1], len(gaps))
        low[cautious], high[cautious] = np.minimum(low[cautious], ends[0]), np.maximum(high[cautious], ends[1])
    p_values = flip_tests(totals.sums, seed)
    unit = "question" if clusters is None else "document"
    return [
        PairedDifference(
            difference=float(totals.means[column]),
            low=_number(low[column]),
            high=_number(high[column]),
            p_value=p,
            test=f"sign-flip permutation by {unit} ({how})",
            n=len(gaps),
            clusters=totals.clusters,
            detectable=detectable_difference(float(error[column]), totals.effective),
            mcnemar_p=mcnemar_exact(a[:, column], b[:, column]) if _binary(a[:, column], b[:, column]) else None,
            cautious=bool(cautious[column]),
        )
        for column, (p, how) in enumerate(p_values)
    ]


def _hardly_vary(
    a: Array, b: Array, clusters: Sequence[Hashable] | None, weights: ArrayLike | None
) -> NDArray[np.bool_]:
    """Tell for each pair whether its interval must be cautious; where the arms never differ there is none to widen."""
    shares = ((a >= 0) & (a <= 1) & (b >= 0) & (b <= 1)).all(axis=0)
    few = [few_outcomes(cluster_totals(side, clusters, weights), len(side)) for side in (a, b)]
    result: NDArray[np.bool_] = shares & few[0] & few[1] & (np.abs(a - b) > 1e-12).any(axis=0)
    return result


def mean_estimates(
    values: Array,
    clusters: Sequence[Hashable] | None = None,
    *,
    weights: ArrayLike | None = None,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> list[Estimate]:
    """Estimate the mean of each of k columns of `values`, shape (n, k), scores between `bounds`.

    Where few answers were right (or few wrong), or all clusters agree, the interval is widened to hold Wilson's too.
    """
    lowest, width = bounds[0], bounds[1] - bounds[0]
    totals = cluster_totals((values - lowest) / width, clusters, weights)
    low, high, _ = bca_bounds(totals, seed)
    cautious = few_outcomes(totals, len(values))
    ends = wilson_bounds(totals, len(values))
    low = np.where(cautious, np.minimum(low, ends[0]), low)
    high = np.where(cautious, np.maximum(high, ends[1]), high)
    return [
        Estimate(
            lowest + width * float(totals.means[k]),
            _number(lowest + width * low[k]),
            _number(lowest + width * high[k]),
            len(values),
            totals.clusters,
            bool(cautious[k]),
        )
        for k in range(values.shape[1])
    ]


def mcnemar_exact(a: ArrayLike, b: ArrayLike) -> float:
    """Exact two-sided McNemar test of two binary arrays: the binomial tail of the questions on which they differ."""
    from scipy.special import bdtr

    first, second = np.asarray(a) > 0.5, np.asarray(b) > 0.5
    only_a, only_b = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    if only_a == only_b:
        return 1.0
    return float(min(1.0, 2 * bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust `p_values` for their number (Holm 1979), in the order given; at most 1."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return [float(value) for value in adjusted]


def is_decisive(difference: PairedDifference, adjusted_p: float | None) -> bool:
    """Tell whether a declared difference is real: adjusted p under 0.05 and 0 outside the interval."""
    return adjusted_p is not None and adjusted_p < ALPHA and difference.excludes_zero


def detectable_difference(error: float, clusters: float) -> float | None:
    """Return the difference found with 80 % power at two-sided 5 %: (t(0.975) + t(0.8)) standard errors.

    `error`: standard error of the mean; `clusters`: their effective number. None where nothing varies.
    """
    from scipy.special import stdtrit

    if not error > 1e-12:
        return None
    freedom = clusters - 1
    return float((stdtrit(freedom, 1 - ALPHA / 2) + stdtrit(freedom, POWER)) * error)


def _binary(*arrays: Array) -> bool:
    """Tell whether every score is 0 or 1."""
    return all(bool(np.isin(array, (0.0, 1.0)).all()) for array in arrays)


def _number(value: float) -> float | None:
    """Return `value` as a plain float, None for NaN."""
    return None if np.isnan(value) else float(value)
