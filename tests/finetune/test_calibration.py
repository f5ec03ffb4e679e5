"""The threshold under which a closed-book answer is withheld."""

from __future__ import annotations

import random

import pytest

from finetune.calibration import calibrate_abstention, roc_auc
from finetune.errors import FinetuneError


def test_a_clean_separation_is_found() -> None:
    """Where all good answers are surer than all bad ones, none is lost and none slips through."""
    found = calibrate_abstention([-0.1, -0.2, -0.3, -1.0, -2.0], [True, True, True, False, False])
    assert found.abstain_below == -0.3
    assert (found.kept, found.withheld, found.roc_auc) == (1.0, 1.0, 1.0)


def test_the_trade_off_is_the_best_of_all_thresholds() -> None:
    """No other threshold has a higher sum of answers kept and withheld."""
    chance = random.Random(3)
    scores = [chance.gauss(-1, 0.5) + (0.4 if worth else 0) for worth in [True, False] * 60]
    worth = [True, False] * 60
    found = calibrate_abstention(scores, worth)

    def value(threshold: float) -> float:
        kept = sum(score >= threshold for score, good in zip(scores, worth, strict=True) if good) / 60
        withheld = sum(score < threshold for score, good in zip(scores, worth, strict=True) if not good) / 60
        return kept + withheld

    assert found.kept + found.withheld == pytest.approx(max(value(score) for score in scores))
    assert value(found.abstain_below) == pytest.approx(found.kept + found.withheld)


def test_the_area_under_the_curve_agrees_with_counting_pairs() -> None:
    """The rank formula gives what counting every pair gives, ties counted half."""
    chance = random.Random(5)
    scores = [float(chance.randint(0, 9)) for _ in range(80)]
    positive = [chance.random() < 0.4 for _ in range(80)]
    pairs = [
        (good > bad) + 0.5 * (good == bad)
        for good, is_good in zip(scores, positive, strict=True)
        if is_good
        for bad, is_bad in zip(scores, positive, strict=True)
        if not is_bad
    ]
    assert roc_auc(scores, positive) == pytest.approx(sum(pairs) / len(pairs))


def test_one_kind_of_answers_cannot_be_calibrated_on() -> None:
    """All right or all wrong is an error, not a threshold."""
    with pytest.raises(FinetuneError, match="2 dev questions of which 0"):
        calibrate_abstention([-1.0, -2.0], [False, False])
