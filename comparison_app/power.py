"""What a run can see: the difference it would find four times in five, alone or among several declared comparisons.

A difference is found in 80 % of runs at two-sided p < 0.05 if it is (t(0.975) + t(0.8)) standard errors large (Cohen
1988, chapter 2). Declared comparisons are adjusted for their number, which asks for more; and no sign-flip test of few
documents can give a small p at all, however large the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from comparison_app.resampling import ALPHA, EXACT_CLUSTERS, RESAMPLES
from comparison_app.statistics import POWER, PairedDifference, detectable_difference


def smallest_p(clusters: int) -> float:
    """Return the smallest p that the sign-flip test of `clusters` documents can give: 2 of 2**C patterns, or draws."""
    return 2.0 ** (1 - clusters) if clusters <= EXACT_CLUSTERS else 1 / (RESAMPLES + 1)


def can_decide(clusters: int, comparisons: int) -> bool:
    """Tell whether any difference over `clusters` documents could pass Holm's first step among `comparisons`."""
    return smallest_p(clusters) * max(1, comparisons) < ALPHA


def visible_among(found: PairedDifference, comparisons: int) -> PairedDifference:
    """Say what could have been seen as one of several declared comparisons: more than alone, or nothing at all."""
    if found.detectable is None or not can_decide(found.clusters, comparisons):
        return replace(found, detectable=None)
    return replace(found, detectable=found.detectable * holm_share(comparisons))


def holm_share(comparisons: int) -> float:
    """Return by how much the smallest visible difference grows if it must pass Holm's first step among `comparisons`.

    That step asks for p < 0.05 / comparisons: (z(1 - 0.025 / m) + z(0.8)) / (z(0.975) + z(0.8)).
    """
    from scipy.special import ndtri

    strict, plain = ndtri(1 - ALPHA / (2 * max(1, comparisons))), ndtri(1 - ALPHA / 2)
    return float((strict + ndtri(POWER)) / (plain + ndtri(POWER)))


def planned_detectable(sizes: Sequence[int], spread: float, likeness: float) -> float | None:
    """Return the difference that questions in documents of these `sizes` would show in 80 % of runs; before any run.

    `spread`: standard deviation of one question's difference; `likeness`: correlation of two of one document. The
    variance of the mean is s² / n (1 + r (sum of sizes² / n - 1)) (Kish 1965).
    """
    n = sum(sizes)
    squares = sum(size**2 for size in sizes)
    if n == 0 or len(sizes) < 2:
        return None
    error = spread * float(np.sqrt((1 + likeness * (squares / n - 1)) / n))
    return detectable_difference(error, max(1.05, n**2 / squares))
