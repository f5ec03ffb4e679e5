"""Intervals, tests and adjustments, against hand-computed values, scipy and statsmodels."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from comparison_app.errors import StatisticsError
from comparison_app.statistics import (
    holm,
    is_decisive,
    mcnemar_exact,
    mean_estimates,
    paired_difference,
    paired_differences,
)


def _clustered(n: int, clusters: int, gap: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    names = rng.integers(0, clusters, n)
    base = rng.random(n) * 0.5 + rng.random(clusters)[names] * 0.2
    return base + gap + rng.normal(0, 0.05, n), base, names.tolist()


def test_identical_arms_differ_by_exactly_nothing() -> None:
    """Difference and interval are 0, p is 1, and nothing is decided."""
    scores = np.random.default_rng(0).random(50)
    found = paired_difference(scores, scores, clusters=list(range(25)) * 2)
    assert (found.difference, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert found.detectable is None
    assert not is_decisive(found, 0.0)


def test_a_clear_difference_is_decisive_and_turns_with_its_sides() -> None:
    """Turned round, the figures are mirrored."""
    a, b, names = _clustered(80, 20, 0.2)
    found, turned = paired_difference(a, b, names), paired_difference(b, a, names)
    assert found.low is not None and found.high is not None
    assert 0 < found.low < found.difference < found.high
    assert found.p_value < 0.001
    assert is_decisive(found, found.p_value)
    assert turned.difference == pytest.approx(-found.difference)
    assert turned.p_value == pytest.approx(found.p_value)


def test_the_interval_is_near_students_for_many_unclustered_normal_scores() -> None:
    """BCa and t agree where the t interval is exact."""
    from scipy import stats

    rng = np.random.default_rng(3)
    gaps = rng.normal(0.1, 0.3, 200)
    found = paired_difference(gaps, np.zeros(200))
    low, high = stats.t.interval(0.95, 199, loc=gaps.mean(), scale=stats.sem(gaps))
    assert found.low == pytest.approx(low, abs=0.006)
    assert found.high == pytest.approx(high, abs=0.006)


def test_questions_of_one_document_are_not_counted_as_independent() -> None:
    """The same scores in few documents give a wider interval than as single questions."""
    rng = np.random.default_rng(1)
    names = np.repeat(np.arange(15), 10)
    a = rng.normal(0, 1, 15)[names] + rng.normal(0, 0.1, 150)
    grouped, single = paired_difference(a, np.zeros(150), names.tolist()), paired_difference(a, np.zeros(150))
    assert grouped.high is not None and grouped.low is not None and single.high is not None and single.low is not None
    assert grouped.high - grouped.low > 2 * (single.high - single.low)


def test_few_clusters_are_flipped_in_every_way() -> None:
    """Totals 3, 2, 1: of 8 sign patterns only +++ and --- reach 6, so p = 2/8."""
    found = paired_difference([3.0, 2.0, 1.0], [0.0, 0.0, 0.0])
    assert found.p_value == pytest.approx(0.25)
    assert found.test == "sign-flip permutation by question (exact)"


def test_drawn_sign_flips_agree_with_scipys_permutation_test() -> None:
    """Thirty paired scores, within the error of the draw."""
    from scipy import stats

    rng = np.random.default_rng(5)
    gaps = rng.normal(0.15, 0.5, 30)
    found = paired_difference(gaps, np.zeros(30))
    reference = stats.permutation_test(
        (gaps, np.zeros(30)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    )
    assert found.p_value == pytest.approx(reference.pvalue, abs=0.015)
    assert "9,999 draws" in found.test


def test_mcnemar_agrees_with_statsmodels() -> None:
    """All tables with up to twelve discordant questions."""
    from statsmodels.stats.contingency_tables import mcnemar

    for only_a in range(7):
        for only_b in range(7):
            a = np.array([1] * only_a + [0] * only_b + [1, 0, 1], dtype=float)
            b = np.array([0] * only_a + [1] * only_b + [1, 0, 1], dtype=float)
            expected = mcnemar([[2, only_a], [only_b, 1]], exact=True).pvalue
            assert mcnemar_exact(a, b) == pytest.approx(min(1.0, expected)), (only_a, only_b)


GORILLA = [
    (0, 14, 0.0001220703125),
    (0, 182, 3.2626522339992623e-55),
    (0, 18, 7.62939453125e-06),
    (0, 13, 0.000244140625),
    (0, 144, 8.96831017167883e-44),
    (0, 168, 5.345529420184391e-51),
    (11, 15, 0.557197093963623),
    (1, 0, 1.0),
    (3, 133, 9.62796454058168e-36),
    (164, 0, 8.552847072295026e-50),
    (169, 0, 2.6727647100921956e-51),
    (40, 2, 4.1109160520136356e-10),
    (15, 10, 0.42435622215270996),
    (2, 128, 1.251313736450325e-35),
    (2, 133, 4.2157084511325866e-37),
]
"""(right only by a, right only by b, exact McNemar p) of the 15 pairs of six systems on 186 TorchHub questions."""


@pytest.mark.parametrize(("only_a", "only_b", "p_value"), GORILLA)
def test_the_mcnemar_values_of_the_gorilla_answers_are_reproduced(only_a: int, only_b: int, p_value: float) -> None:
    """Saved outcomes of 186 questions, p-values computed elsewhere; with each question its own cluster."""
    a, b = np.zeros(186), np.zeros(186)
    a[:only_a] = 1
    b[only_a : only_a + only_b] = 1
    assert paired_difference(a, b).mcnemar_p == pytest.approx(p_value, rel=1e-9)


def test_mcnemar_stands_beside_binary_scores_only() -> None:
    """The unclustered reading makes no sense for graded scores."""
    assert paired_difference([1, 1, 1, 0], [0, 0, 0, 0]).mcnemar_p == pytest.approx(0.25)
    assert paired_difference([0.5, 1, 1, 0], [0, 0, 0, 0]).mcnemar_p is None


def test_holm_adjusts_as_worked_out_by_hand_and_as_statsmodels_does() -> None:
    """0.01, 0.04, 0.03, 0.005 become 0.03, 0.06, 0.06, 0.02."""
    from statsmodels.stats.multitest import multipletests

    values = [0.01, 0.04, 0.03, 0.005]
    assert holm(values) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(values) == pytest.approx(multipletests(values, method="holm")[1])
    assert holm([]) == []


def test_one_question_or_one_document_has_no_interval() -> None:
    """It is said by None, and nothing is decided."""
    one = paired_difference([1.0], [0.0])
    same = paired_difference([1.0, 0.5, 1.0], [0.0, 0.1, 0.2], clusters=["page"] * 3)
    for found in (one, same):
        assert (found.low, found.high, found.detectable, found.p_value) == (None, None, None, 1.0)
        assert not is_decisive(found, found.p_value)
    assert mean_estimates(np.ones((1, 1)))[0].low is None


@pytest.mark.parametrize(
    ("a", "b", "clusters", "says"),
    [
        ([], [], None, "no score"),
        ([1.0], [1.0, 0.0], None, "pair them by question"),
        ([1.0, float("nan")], [1.0, 0.0], None, "not a finite number at 1"),
        ([1.0, 0.0], [float("inf"), 0.0], None, "b: not a finite number at 0"),
        ([[1.0]], [[1.0]], None, "shape"),
        ([1.0, 0.0], [1.0, 0.0], ["x"], "1 clusters were given for 2"),
        (["x"], [1.0], None, "must be numbers"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(a: list, b: list, clusters: list | None, says: str) -> None:
    """The error names the array and the mend."""
    with pytest.raises(StatisticsError, match=says):
        paired_difference(a, b, clusters)


def test_the_same_seed_gives_the_same_figures() -> None:
    """And another seed nearly the same."""
    a, b, names = _clustered(60, 20, 0.05)
    assert paired_difference(a, b, names, seed=1) == paired_difference(a, b, names, seed=1)
    assert paired_difference(a, b, names, seed=2).low == pytest.approx(
        paired_difference(a, b, names, seed=1).low, abs=0.01
    )


def test_an_arm_that_is_always_right_still_has_an_interval() -> None:
    """Wilson: with 20 of 20 right the low end is n / (n + t²), t the 97.5 % quantile of 19 degrees of freedom."""
    low = 20 / (20 + 2.0930**2)
    found = mean_estimates(np.ones((20, 1)))[0]
    assert (found.mean, found.high, found.cautious) == (1.0, pytest.approx(1.0), True)
    assert found.low == pytest.approx(low, abs=1e-3)
    assert mean_estimates(np.zeros((20, 1)))[0].high == pytest.approx(1 - low, abs=1e-3)


def test_a_mean_with_hardly_any_errors_has_a_cautious_interval_that_holds_wilsons() -> None:
    """Two errors of 40 over 40 documents: at least statsmodels' Wilson interval, and said to be cautious."""
    from statsmodels.stats.proportion import proportion_confint

    scores = np.ones((40, 1))
    scores[:2] = 0.0
    found = mean_estimates(scores)[0]
    low, high = proportion_confint(38, 40, method="wilson")
    assert found.cautious
    assert found.low is not None and found.high is not None
    assert found.low == pytest.approx(low, abs=0.01) or found.low < low
    assert found.high >= high - 0.01
    assert not mean_estimates(np.tile([[1.0], [0.0]], (20, 1)))[0].cautious


def test_a_difference_of_two_arms_with_hardly_any_errors_has_a_cautious_interval_that_holds_newcombes() -> None:
    """Four and six errors of 400, hardly related: at least statsmodels' Newcombe interval, and said to be cautious."""
    from statsmodels.stats.proportion import confint_proportions_2indep

    a, b = np.ones(400), np.ones(400)
    a[:4], b[4:10] = 0.0, 0.0
    found = paired_difference(a, b)
    low, high = confint_proportions_2indep(396, 400, 394, 400, method="newcomb")
    assert found.cautious and found.low is not None and found.high is not None
    assert found.low <= low + 1e-3 and found.high >= high - 1e-3
    turned = paired_difference(b, a)
    assert (turned.low, turned.high) == (pytest.approx(-found.high, abs=2e-3), pytest.approx(-found.low, abs=2e-3))


def test_a_difference_is_cautious_only_where_both_arms_hardly_vary_and_yet_differ() -> None:
    """One arm in the middle, scores beyond 0 to 1, or no difference at all: the bootstrap's interval stands."""
    good, even = np.ones(60), np.tile([1.0, 0.0], 30)
    good[:2] = 0.0
    assert not paired_difference(good, even).cautious
    assert not paired_difference(10 * good, 10 * np.ones(60)).cautious
    same = paired_difference(good, good)
    assert (same.low, same.high, same.cautious) == (0.0, 0.0, False)


def test_weights_shift_the_mean() -> None:
    """Three to one."""
    values = np.array([[1.0], [0.0]] * 10)
    found = mean_estimates(values, weights=np.array([3.0, 1.0] * 10))[0]
    assert found.mean == pytest.approx(0.75)


def test_the_smallest_detectable_difference_is_seen_four_times_in_five() -> None:
    """Runs with just that true difference reach p < 0.05 in about 80 %."""
    rng = np.random.default_rng(9)
    spread = 0.3
    planned = paired_difference(rng.normal(0, spread, 40), np.zeros(40)).detectable
    assert planned is not None
    runs = [paired_difference(rng.normal(planned, spread, 40), np.zeros(40)).p_value < 0.05 for _ in range(150)]
    assert 0.65 <= np.mean(runs) <= 0.95


def test_many_pairs_at_once_are_what_each_is_alone() -> None:
    """The vectorised path gives the single path's figures."""
    a, b, names = _clustered(60, 20, 0.1)
    c, d, _ = _clustered(60, 20, 0.0, seed=4)
    both = paired_differences(np.column_stack([a, c]), np.column_stack([b, d]), names)
    for together, alone in zip(both, [paired_difference(a, b, names), paired_difference(c, d, names)], strict=True):
        assert (together.low, together.high) == pytest.approx((alone.low, alone.high))
        assert together.p_value == alone.p_value


def test_a_large_run_is_judged_in_seconds() -> None:
    """2,000 questions, ten pairs of five arms, one metric: the whole run has 56 such calls and 20 s."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2_000, 10)), rng.random((2_000, 10))
    names = rng.integers(0, 300, 2_000).tolist()
    paired_differences(a, b, names)
    started = time.process_time()
    paired_differences(a, b, names)
    assert time.process_time() - started < 20 / 56 * 3


def _simulation(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulation", repository / "benchmarks" / "statistics_simulation.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["simulation"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_intervals_cover_and_decisive_does_not_lie_at_forty_questions_over_fifteen_documents(repository: Path) -> None:
    """A short run of the simulation in benchmarks/; 300 runs tell coverage to within 2.5 points."""
    simulation = _simulation(repository)
    for binary in (True, False):
        row = simulation.simulate(simulation.Case("short", 40, 15, 0.0, binary, uneven=True), 300)
        assert 0.91 <= row["coverage_difference"] <= 0.985
        assert row["called_decisive"] <= 0.08


@pytest.mark.parametrize("seed", [1, 2])
def test_the_bootstrap_agrees_with_scipys_bca(seed: int) -> None:
    """200 documents of three skewed scores each: both ends within 4 % of the interval's width.

    Ours is about 1 % wider, for the number of documents (Hesterberg 2015); the rest is the draw.
    """
    from scipy.stats import bootstrap

    rng = np.random.default_rng(seed)
    gaps = rng.gamma(0.4, 0.3, 600) + np.repeat(rng.gamma(0.5, 0.2, 200), 3) - 0.1
    found = paired_difference(gaps, np.zeros(600), np.repeat(np.arange(200), 3).tolist(), seed=seed)
    means = gaps.reshape(200, 3).mean(axis=1)
    theirs = bootstrap((means,), np.mean, method="BCa", n_resamples=9_999, rng=np.random.default_rng(seed + 9))
    low, high = theirs.confidence_interval
    assert found.low is not None and found.high is not None
    assert abs(found.low - low) < 0.04 * (high - low)
    assert abs(found.high - high) < 0.04 * (high - low)
    assert 0.98 < (found.high - found.low) / (high - low) < 1.05
