"""From which certainty on a closed-book answer should be given: a threshold on its mean log-probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune.errors import FinetuneError


@dataclass(frozen=True)
class Abstention:
    """A threshold and how it does on the questions it was calibrated on."""

    abstain_below: float
    """Answers with a mean log-probability under this are withheld."""
    kept: float
    """Share of the answers worth giving that are given (true positive rate)."""
    withheld: float
    """Share of the others that are withheld (true negative rate)."""
    roc_auc: float
    """Chance that an answer worth giving has the higher log-probability of a random pair; 0.5 is no use."""
    questions: int


def calibrate_abstention(mean_logprobs: Sequence[float], worth_giving: Sequence[bool]) -> Abstention:
    """Choose the threshold that maximises kept + withheld (Youden 1950), the lowest of equals.

    `worth_giving` says of each dev question whether its answer was right; answers to unanswerable questions never are.
    Raises FinetuneError if there is not at least one of each kind.
    """
    pairs = sorted(zip(mean_logprobs, worth_giving, strict=True))
    good = sum(worth for _, worth in pairs)
    bad = len(pairs) - good
    if not good or not bad:
        raise FinetuneError(
            f"abstention cannot be calibrated on {len(pairs)} dev questions of which {good} were answered well: it "
            "needs some that were and some that were not"
        )
    best = (float("-inf"), pairs[0][0])
    good_below = bad_below = 0
    values = [value for value, _ in pairs]
    for index, (value, worth) in enumerate(pairs):
        if index == 0 or value != values[index - 1]:
            score = (good - good_below) / good + bad_below / bad
            best = max(best, (score, value), key=lambda item: item[0])
        good_below += worth
        bad_below += not worth
    threshold = best[1]
    return Abstention(
        abstain_below=threshold,
        kept=sum(worth and value >= threshold for value, worth in pairs) / good,
        withheld=sum(not worth and value < threshold for value, worth in pairs) / bad,
        roc_auc=roc_auc(mean_logprobs, worth_giving),
        questions=len(pairs),
    )


def roc_auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Return the area under the ROC curve: P(score of a positive > of a negative) + half of P(equal).

    The Mann-Whitney U statistic divided by the number of pairs (Hanley and McNeil 1982).
    """
    ordered = sorted(zip(scores, positive, strict=True))
    positives = sum(positive)
    rank_sum = 0.0
    start = 0
    while start < len(ordered):
        end = start
        while end < len(ordered) and ordered[end][0] == ordered[start][0]:
            end += 1
        rank_sum += (start + end + 1) / 2 * sum(worth for _, worth in ordered[start:end])
        start = end
    return (rank_sum - positives * (positives + 1) / 2) / (positives * (len(ordered) - positives))
