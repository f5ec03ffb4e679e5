"""Intervals of scores near their bounds, where a bootstrap has next to nothing to resample.

An arm that is right, or wrong, on nearly all questions shows few errors or none; how many more there could be follows
from the score being bounded, not from what was drawn. A mean's interval is Wilson's (1927) with the design's effective
sample size and t quantiles (Dean and Pagano 2015); that of a paired difference is put together from both arms' by
Newcombe's (1998, "Improved confidence intervals for the difference between binomial proportions based on paired
data", method 10), with the correlation of the cluster totals.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from comparison_app.resampling import ALPHA, Array, Totals

FEW_OUTCOMES = 8
"""With fewer right (or fewer wrong) answers than this, intervals are cautious."""


def few_outcomes(totals: Totals, n: int) -> NDArray[np.bool_]:
    """Tell for each column of scores in 0 to 1 whether few of `n` answers were right, or few wrong, shape (k,).

    Partly right answers count in part; a column on which all clusters agree counts as well.
    """
    share = np.clip(totals.means, 0.0, 1.0)
    flat = np.ptp(totals.sums / totals.sizes[:, None], axis=0) < 1e-12
    result: NDArray[np.bool_] = flat | (n * np.minimum(share, 1 - share) < FEW_OUTCOMES)
    return result


def wilson_bounds(totals: Totals, n: int) -> Array:
    """Return low and high ends, shape (2, k), of Wilson's intervals of the means of `n` clustered scores in 0 to 1.

    The effective sample size is share (1 - share) over the variance of the mean between clusters, at most `n`; the
    number of clusters where they do not vary.
    """
    from scipy.special import stdtrit

    clusters, share = totals.clusters, np.clip(totals.means, 0.0, 1.0)
    variance = (totals.residuals**2).sum(axis=0) / totals.sizes.sum() ** 2 * clusters / max(1, clusters - 1)
    spread = share * (1 - share)
    varies = variance > 1e-15
    size = np.minimum(np.divide(spread, variance, out=np.full_like(spread, clusters), where=varies), n)
    t = stdtrit(max(0.05, totals.effective - 1), 1 - ALPHA / 2)
    centre = (share + t**2 / (2 * size)) / (1 + t**2 / size)
    half = t / (1 + t**2 / size) * np.sqrt(spread / size + t**2 / (4 * size**2))
    return np.array([centre - half, centre + half])


def newcombe_bounds(a: Totals, b: Totals, n: int) -> Array:
    """Return low and high ends, shape (2, k), of Newcombe's intervals of a - b, scores in 0 to 1 on `n` questions."""
    below_a, above_a = np.abs(wilson_bounds(a, n) - a.means)
    below_b, above_b = np.abs(wilson_bounds(b, n) - b.means)
    both = np.sqrt((a.residuals**2).sum(axis=0) * (b.residuals**2).sum(axis=0))
    shared = (a.residuals * b.residuals).sum(axis=0)
    alike = np.divide(shared, both, out=np.zeros_like(shared), where=both > 1e-15)
    down = below_a**2 - 2 * alike * below_a * above_b + above_b**2
    up = above_a**2 - 2 * alike * above_a * below_b + below_b**2
    gaps = a.means - b.means
    return np.array([gaps - np.sqrt(np.maximum(down, 0.0)), gaps + np.sqrt(np.maximum(up, 0.0))])
