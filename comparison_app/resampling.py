"""Clusters resampled and flipped: the bootstrap behind intervals, and the permutations behind tests.

Bias-corrected and accelerated bootstrap of clusters (Efron 1987, "Better bootstrap confidence intervals"), with
quantiles widened for few clusters as Hesterberg (2015, "What teachers should know about the bootstrap", section 5.3)
does: the normal quantile z is replaced by sqrt(E / (E - 1)) t(E - 1), where E is the effective number of clusters of
uneven size (Kish 1965): (sum of sizes)² / sum of squared sizes. Sign-flip permutation of cluster totals (Fisher 1935;
Winkler et al. 2014 for blocks): every pattern if there are few clusters, else drawn.
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
"""One minus the level of every interval, and the level of every test."""
EXACT_CLUSTERS = 13
"""Up to this many clusters that differ, all 2**C sign patterns are tried."""
_ROWS = 1_000


@dataclass(frozen=True)
class Totals:
    """Per cluster: weighted sums of k columns, shape (C, k), and the weights' sums, shape (C,)."""

    sums: Array
    sizes: Array

    @property
    def clusters(self) -> int:
        """How many clusters there are."""
        return len(self.sizes)

    @property
    def effective(self) -> float:
        """Kish's effective number of clusters: `clusters` if all weigh the same, fewer if a few outweigh the rest."""
        return max(1.05, float(self.sizes.sum() ** 2 / (self.sizes**2).sum()))

    @property
    def means(self) -> Array:
        """The mean of each column, shape (k,)."""
        result: Array = self.sums.sum(axis=0) / self.sizes.sum()
        return result

    @property
    def residuals(self) -> Array:
        """What each cluster has above its share of the mean, shape (C, k)."""
        result: Array = self.sums - self.means * self.sizes[:, None]
        return result


def finite_scores(values: ArrayLike, name: str) -> Array:
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


def cluster_totals(values: Array, clusters: Sequence[Hashable] | None, weights: ArrayLike | None) -> Totals:
    """Add up `values` (n, k) and the weights per cluster; clusters of no weight are left out."""
    n = len(values)
    if n == 0:
        raise StatisticsError("there is no score to compare")
    weight = np.ones(n) if weights is None else finite_scores(weights, "weights")
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
    return Totals(sums[sizes > 0], sizes[sizes > 0])


def _codes(clusters: Sequence[Hashable]) -> NDArray[np.intp]:
    """Number the clusters in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.intp)


def bca_bounds(totals: Totals, seed: int) -> tuple[Array, Array, Array]:
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


def _resampled_means(totals: Totals, seed: int) -> Array:
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


def _acceleration(totals: Totals) -> Array:
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


def flip_tests(sums: Array, seed: int) -> list[tuple[float, str]]:
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
