"""How sure a difference is: intervals, tests and what could have been seen, with questions grouped by document.

Questions of one page are not independent, so a *cluster* (a document) is the unit that is resampled and flipped.

Intervals: bias-corrected and accelerated bootstrap of clusters (Efron 1987, "Better bootstrap confidence
intervals"), with quantiles widened for few clusters as Hesterberg (2015, "What teachers should know about the
bootstrap", section 5.3) does: the normal quantile z is replaced by sqrt(E / (E - 1)) t(E - 1), where E is the
effective number of clusters of uneven size (Kish 1965): (sum of sizes)² / sum of squared sizes. Where an arm is right,
or wrong, on nearly all questions, the bootstrap has next to nothing to resample: there the interval also takes in that
of Wilson (1927) with the design's effective sample size and t quantiles (Dean and Pagano 2015), and is called cautious.
Tests: sign-flip permutation of cluster totals (Fisher 1935; Winkler et al. 2014 for blocks), every pattern if there
are few clusters, else drawn; exact McNemar (1947) for binary scores as the unclustered reading; Holm (1979).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from comparison_app.errors import StatisticsError

Array = NDArray[np.float64]

RESAMPLES = 9_999
"""Bootstrap resamples, and sign patterns drawn where not all can be tried."""
ALPHA = 0.05
POWER = 0.8
EXACT_CLUSTERS = 13
"""Up to this many clusters that differ, all 2**C sign patterns are tried."""
FEWEST_CLUSTERS = 6
"""Below it no sign-flip p can fall under 0.05 (2 / 2**5 = 0.0625), so a report shows no interval."""
FEW_OUTCOMES = 8
"""With fewer right (or fewer wrong) answers than this, intervals of a mean are cautious."""
_ROWS = 1_000


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
    where the arms never differ. `mcnemar_p` is given for binary scores, and ignores the clusters.
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

    @property
    def excludes_zero(self) -> bool:
        """Whether an interval exists and 0 lies outside it."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class _Totals:
    """Per cluster: weighted sums of k columns, shape (C, k), and the weights' sums, shape (C,)."""

    sums: Array
    sizes: Array

    @property
    def clusters(self) -> int:
        return len(self.sizes)

    @property
    def effective(self) -> float:
        """Kish's effective number of clusters: `clusters` if all weigh the same, fewer if a few outweigh the rest."""
        return max(1.05, float(self.sizes.sum() ** 2 / (self.sizes**2).sum()))

    @property
    def means(self) -> Array:
        result: Array = self.sums.sum(axis=0) / self.sizes.sum()
        return result


def paired_difference(
    a: ArrayLike, b: ArrayLike, clusters: Sequence[Hashable] | None = None, seed: int = 0
) -> PairedDifference:
    """Compare two arms on the same questions: `a`, `b` are scores of shape (n,), `clusters` names n documents.

    Without `clusters` every question is its own. Raises `StatisticsError` if the arrays are empty, of different
    length, or hold something that is not a finite number.
    """
    first, second = _scores(a, "a"), _scores(b, "b")
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

    The mean is weighted; so are the cluster totals that are resampled and flipped.
    """
    gaps = a - b
    totals = _cluster_totals(gaps, clusters, weights)
    low, high, error = _bca(totals, seed)
    p_values = _flip_tests(totals.sums, seed)
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
        )
        for column, (p, how) in enumerate(p_values)
    ]


def mean_estimates(
    values: Array,
    clusters: Sequence[Hashable] | None = None,
    *,
    weights: ArrayLike | None = None,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> list[Estimate]:
    """Estimate the mean of each of k columns of `values`, shape (n, k), scores between `bounds`.

    Where fewer than `FEW_OUTCOMES` answers were right (or wrong, partly right ones counted in part), or all clusters
    agree, the interval is widened to hold Wilson's as well.
    """
    totals = _cluster_totals(values, clusters, weights)
    low, high, _ = _bca(totals, seed)
    means = totals.means
    share = np.clip((means - bounds[0]) / (bounds[1] - bounds[0]), 0.0, 1.0)
    flat = np.ptp(totals.sums / totals.sizes[:, None], axis=0) < 1e-12
    cautious = flat | (len(values) * np.minimum(share, 1 - share) < FEW_OUTCOMES)
    wilson = bounds[0] + (bounds[1] - bounds[0]) * _wilson(totals, share, bounds, len(values))
    low = np.where(cautious, np.fmin(low, wilson[0]), low)
    high = np.where(cautious, np.fmax(high, wilson[1]), high)
    enough = totals.clusters > 1
    return [
        Estimate(
            float(means[k]),
            _number(low[k]) if enough else None,
            _number(high[k]) if enough else None,
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


def _scores(values: ArrayLike, name: str) -> Array:
    """Return `values` as a one-dimensional array of finite numbers, or say what is wrong with them."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StatisticsError(f"{name}: scores must be numbers ({error})") from error
    if array.ndim != 1:
        raise StatisticsError(f"{name}: scores must have shape (n,), not {array.shape}")
    if not len(array):
        raise StatisticsError(f"{name}: there is no score to compare")
    wrong = np.flatnonzero(~np.isfinite(array))
    if len(wrong):
        places = ", ".join(str(place) for place in wrong[:5])
        raise StatisticsError(f"{name}: not a finite number at {places}; give a missing or failed answer the score 0")
    return array


def _cluster_totals(values: Array, clusters: Sequence[Hashable] | None, weights: ArrayLike | None) -> _Totals:
    """Add up `values` (n, k) and the weights per cluster; clusters of no weight are left out."""
    n = len(values)
    if n == 0:
        raise StatisticsError("there is no score to compare")
    weight = np.ones(n) if weights is None else _scores(weights, "weights")
    if clusters is not None and len(clusters) != n:
        raise StatisticsError(f"{len(clusters)} clusters were given for {n} scores: name one per score")
    if clusters is None:
        sums: Array = values * weight[:, None]
        sizes: Array = weight
    else:
        codes = _codes(clusters)
        sums = np.zeros((codes.max() + 1, values.shape[1]))
        np.add.at(sums, codes, values * weight[:, None])
        sizes = np.bincount(codes, weights=weight).astype(np.float64)
    return _Totals(sums[sizes > 0], sizes[sizes > 0])


def _codes(clusters: Sequence[Hashable]) -> NDArray[np.intp]:
    """Number the clusters in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.intp)


def _bca(totals: _Totals, seed: int) -> tuple[Array, Array, Array]:
    """Return low, high and standard error of each column's mean, shape (k,); NaN bounds for a single cluster."""
    from scipy.special import ndtr, ndtri, stdtrit

    clusters, columns = totals.clusters, totals.sums.shape[1]
    if clusters < 2:
        nothing = np.full(columns, np.nan)
        return nothing, nothing, nothing
    means = totals.means
    drawn = _resampled_means(totals, seed)
    tie = 1e-12 * np.maximum(1.0, np.abs(means))
    below = np.mean(drawn < means - tie, axis=0) + 0.5 * np.mean(np.abs(drawn - means) <= tie, axis=0)
    bias = ndtri(np.clip(below, 0.5 / RESAMPLES, 1 - 0.5 / RESAMPLES))
    acceleration = _acceleration(totals)
    few = totals.effective
    wide = np.sqrt(few / (few - 1)) * stdtrit(few - 1, 1 - ALPHA / 2)
    drawn.sort(axis=0)
    bounds = []
    for z in (-wide, wide):
        shifted = bias + z
        stretch = np.maximum(1 - acceleration * shifted, 0.05)
        bounds.append(_quantiles(drawn, ndtr(bias + shifted / stretch)))
    error = drawn.std(axis=0) * np.sqrt(clusters / (clusters - 1))
    return bounds[0], bounds[1], error


def _wilson(totals: _Totals, share: Array, bounds: tuple[float, float], n: int) -> Array:
    """Return low and high ends, shape (2, k), of Wilson's intervals of `share` in 0 to 1, from `n` clustered scores.

    The effective sample size is share (1 - share) over the variance of the mean between clusters, at most `n`; the
    number of clusters where they do not vary.
    """
    from scipy.special import stdtrit

    clusters = totals.clusters
    gaps = (totals.sums - totals.means * totals.sizes[:, None]) / (bounds[1] - bounds[0])
    variance = (gaps**2).sum(axis=0) / totals.sizes.sum() ** 2 * clusters / max(1, clusters - 1)
    spread = share * (1 - share)
    varies = variance > 1e-15
    size = np.minimum(np.divide(spread, variance, out=np.full_like(spread, clusters), where=varies), n)
    t = stdtrit(max(0.05, totals.effective - 1), 1 - ALPHA / 2)
    centre = (share + t**2 / (2 * size)) / (1 + t**2 / size)
    half = t / (1 + t**2 / size) * np.sqrt(spread / size + t**2 / (4 * size**2))
    return np.array([centre - half, centre + half])


def _resampled_means(totals: _Totals, seed: int) -> Array:
    """Return the means of `RESAMPLES` draws of C clusters with replacement, shape (RESAMPLES, k)."""
    counts = _draw_counts(totals.clusters, seed)
    both = np.column_stack([totals.sums, totals.sizes])
    blocks = [counts[row : row + _ROWS].astype(np.float64) @ both for row in range(0, len(counts), _ROWS)]
    drawn = np.concatenate(blocks)
    return drawn[:, :-1] / drawn[:, -1:]


@lru_cache(maxsize=4)
def _draw_counts(clusters: int, seed: int) -> NDArray[np.uint16]:
    """Return how often each cluster is drawn in each resample, shape (RESAMPLES, clusters)."""
    generator = np.random.default_rng([seed, clusters, 1])
    counts = np.empty((RESAMPLES, clusters), dtype=np.uint16)
    for row in range(0, RESAMPLES, _ROWS):
        rows = min(_ROWS, RESAMPLES - row)
        picks = generator.integers(0, clusters, size=(rows, clusters)) + clusters * np.arange(rows)[:, None]
        counts[row : row + rows] = np.bincount(picks.ravel(), minlength=rows * clusters).reshape(rows, clusters)
    return counts


def _acceleration(totals: _Totals) -> Array:
    """Return BCa's acceleration of each column from the jackknife over clusters, shape (k,)."""
    left_out = (totals.sums.sum(axis=0) - totals.sums) / (totals.sizes.sum() - totals.sizes)[:, None]
    gaps = left_out.mean(axis=0) - left_out
    spread = (gaps**2).sum(axis=0) ** 1.5
    skew = (gaps**3).sum(axis=0)
    result: Array = np.divide(skew, 6 * spread, out=np.zeros_like(skew), where=spread > 1e-15)
    return result


def _quantiles(ordered: Array, shares: Array) -> Array:
    """Return the quantile `shares[k]` of each sorted column k of `ordered`, linear between neighbours."""
    place = np.clip(shares * (len(ordered) + 1) - 1, 0, len(ordered) - 1)
    lower = np.floor(place).astype(np.intp)
    upper = np.minimum(lower + 1, len(ordered) - 1)
    columns = np.arange(ordered.shape[1])
    part = place - lower
    result: Array = ordered[lower, columns] * (1 - part) + ordered[upper, columns] * part
    return result


def _flip_tests(sums: Array, seed: int) -> list[tuple[float, str]]:
    """Return, per column of cluster totals (C, k), the two-sided sign-flip p and how it was found."""
    differs = np.abs(sums) > 1e-12
    few = differs.sum(axis=0) <= EXACT_CLUSTERS
    drawn = _drawn_flips(sums[:, ~few], seed) if not few.all() else np.empty(0)
    result: list[tuple[float, str]] = []
    position = 0
    for column in range(sums.shape[1]):
        if few[column]:
            result.append((_exact_flips(sums[differs[:, column], column]), "exact"))
        else:
            result.append((float(drawn[position]), f"{RESAMPLES:,} draws"))
            position += 1
    return result


def _exact_flips(totals: Array) -> float:
    """Return the share of all sign patterns of `totals`, shape (C,), whose sum is as far from 0 as seen."""
    if not len(totals):
        return 1.0
    sums = np.zeros(1)
    for total in totals[1:]:  # the first sign is fixed: the mirrored half has the same absolute sums
        sums = np.concatenate([sums + total, sums - total])
    sums = np.abs(sums + totals[0])
    return float(np.mean(sums >= np.abs(totals.sum()) - 1e-9))


def _drawn_flips(sums: Array, seed: int) -> Array:
    """Return p of each column (C, k) from `RESAMPLES` random sign patterns and the one seen."""
    generator = np.random.default_rng([seed, len(sums), 2])
    seen = np.abs(sums.sum(axis=0)) - 1e-9
    hits = np.zeros(sums.shape[1])
    for row in range(0, RESAMPLES, _ROWS):
        rows = min(_ROWS, RESAMPLES - row)
        signs = generator.integers(0, 2, size=(rows, len(sums)), dtype=np.int8) * 2.0 - 1.0
        hits += np.sum(np.abs(signs @ sums) >= seen, axis=0)
    result: Array = (hits + 1) / (RESAMPLES + 1)
    return result


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
