"""Who wins when people vote: Bradley–Terry strengths with bootstrap intervals, and the votes still needed.

Bradley and Terry 1952: arm i beats arm j with probability p_i / (p_i + p_j). Strengths are fitted by Hunter's MM
iteration (Annals of Statistics 32, 2004); a tie, "both bad" included, counts as half a win for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from comparison_app.votes import Vote

Counts = NDArray[np.float64]

MIDDLE = 1000.0
"""Points of an arm of mean strength; 400 points are odds of ten to one."""
PRIOR = 0.25
"""Wins that every arm is lent against every other, both ways: strengths stay finite while one side never lost."""
MOST_NEEDED = 9_999
FEWEST = 10
"""Votes of an arm under which resampling them says nothing of how sure its points are."""
_Z_TEST, _Z_POWER = 1.959964, 0.841621
"""Normal quantiles of a two-sided test at 5 % and of a power of 80 %."""


@dataclass(frozen=True)
class Standing:
    """One arm's place: `points` with a 95 % interval (None under `FEWEST` votes), its votes, wins, losses and ties.

    `needed`: further votes against the arm one place above until a difference as large as the one fitted would be
    found (two-sided test at 5 %, power 80 %); 0 when there are enough, None for the first, `MOST_NEEDED` where the two
    are too close to tell.
    """

    arm: str
    points: float
    low: float | None
    high: float | None
    votes: int
    wins: int
    losses: int
    ties: int
    needed: int | None


def leaderboard(votes: Sequence[Vote], *, rounds: int = 1000, seed: int = 0) -> list[Standing]:
    """Return the arms, best first; none without votes. Intervals are percentiles of `rounds` resamples of the votes."""
    arms = sorted({arm for vote in votes for arm in vote.arms})
    if not arms:
        return []
    places = np.array([[arms.index(arm) for arm in vote.arms] for vote in votes])
    credit = np.array([{"a": 1.0, "b": 0.0}.get(vote.outcome, 0.5) for vote in votes])
    points = _points(_wins(places, credit, np.ones((1, len(votes))), len(arms)))[0]
    weights = np.random.default_rng(seed).multinomial(len(votes), [1 / len(votes)] * len(votes), rounds)
    resampled = _points(_wins(places, credit, weights.astype(np.float64), len(arms)))
    low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
    order = np.argsort(-points, kind="stable")
    return [
        _standing(votes, arms, [int(i) for i in order], rank, points, (float(low[i]), float(high[i])))
        for rank, i in enumerate(order)
    ]


def votes_needed(win_rate: float, cast: int) -> int:
    """Return how many more votes would show a win rate other than one half, if it truly is `win_rate`."""
    gap = abs(win_rate - 0.5)
    if gap == 0:
        return MOST_NEEDED
    whole = ((_Z_TEST * 0.5 + _Z_POWER * sqrt(max(win_rate * (1 - win_rate), 0.0))) / gap) ** 2
    return min(MOST_NEEDED, max(0, ceil(whole) - cast))


def _wins(places: NDArray[np.intp], credit: Counts, weights: Counts, size: int) -> Counts:
    """Return wins, shape (rounds, arms, arms): how often the row's arm beat the column's."""
    wins = np.zeros((len(weights), size, size))
    for a, b in {(int(a), int(b)) for a, b in places}:
        here = (places[:, 0] == a) & (places[:, 1] == b)
        won = weights[:, here] @ credit[here]
        wins[:, a, b] += won
        wins[:, b, a] += weights[:, here].sum(axis=1) - won
    return wins


def _points(wins: Counts, iterations: int = 300) -> Counts:
    """Fit strengths to wins of shape (rounds, arms, arms); returns points of shape (rounds, arms)."""
    size = wins.shape[1]
    lent = wins + PRIOR * (1 - np.eye(size))
    games = lent + lent.transpose(0, 2, 1)
    won = lent.sum(axis=2)
    strength = np.ones(wins.shape[:2])
    for _ in range(iterations):
        pairs = games / (strength[:, :, None] + strength[:, None, :])
        strength = won / np.maximum(pairs.sum(axis=2), 1e-300)
        strength /= np.exp(np.log(strength).mean(axis=1, keepdims=True))
    points: Counts = MIDDLE + 400 * np.log(strength) / np.log(10)
    return points


def _standing(
    votes: Sequence[Vote],
    arms: Sequence[str],
    order: Sequence[int],
    rank: int,
    points: Counts,
    interval: tuple[float, float],
) -> Standing:
    arm = arms[order[rank]]
    mine = [vote for vote in votes if arm in vote.arms]
    wins = sum(vote.outcome in ("a", "b") and vote.arms["ab".index(vote.outcome)] == arm for vote in mine)
    ties = sum(vote.outcome not in ("a", "b") for vote in mine)
    needed = None
    if rank:
        above = order[rank - 1]
        cast = sum({arm, arms[above]} == set(vote.arms) for vote in votes)
        needed = votes_needed(expected_score(float(points[above] - points[order[rank]])), cast)
    losses = len(mine) - wins - ties
    low, high = interval if len(mine) >= FEWEST else (None, None)
    return Standing(arm, float(points[order[rank]]), low, high, len(mine), wins, losses, ties, needed)


def expected_score(points_ahead: float) -> float:
    """Return the chance that an arm so many points ahead wins."""
    return 1 / (1 + 10 ** (-points_ahead / 400))
