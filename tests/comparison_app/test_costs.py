"""What arms cost: to set up, to answer, to stay fresh, and from where one is cheaper than another."""

from __future__ import annotations

import re
from typing import Any

import pytest

from comparison_app.costs import ArmCost, SetupTimes, arm_cost, break_even, break_evens, learning
from comparison_app.experiment import ArmSpec
from comparison_app.predictions import Prediction
from comparison_app.prices import money_in_words
from comparison_app.verdict import recommendation, standings
from tests.comparison_app.test_summary import PREDICTIONS, _evaluate

TUNED = ArmSpec("t", "finetuned", adapter="a")
READER = ArmSpec("r", "rag")


def test_training_is_paid_at_the_training_machines_price() -> None:
    """An hour of training at 2.00 and half an hour of indexing at 0.10."""
    setup = SetupTimes(training_seconds=3600, indexing_seconds=1800)
    tuned = ArmSpec("t", "finetuned-rag", adapter="a")
    answers = [Prediction("q", "t", "x", seconds=36.0)] * 2
    cost = arm_cost(answers, tuned, 1.5, setup, machine_price=0.10, currency="EUR", training_price=2.0)
    assert cost.setup == pytest.approx(2.05)
    assert cost.per_question == pytest.approx(0.001)
    assert cost.per_correct == pytest.approx(0.002 / 1.5)
    same = arm_cost(answers, tuned, 1.5, setup, machine_price=0.10, currency="EUR")
    assert same.setup == pytest.approx(0.15)


def test_a_hundred_new_documents_are_indexed_again_or_trained_again() -> None:
    """Eight took 0.8 s, so a hundred take 10 s; a closed-book arm is trained as long as before."""
    indexed = learning(READER, SetupTimes(update_seconds=0.8, update_documents=8), 3.6, None)
    assert indexed is not None
    assert (indexed.how, indexed.seconds, indexed.cost) == ("re-indexing", pytest.approx(10), pytest.approx(0.01))
    trained = learning(TUNED, SetupTimes(training_seconds=150), 3.6, 36.0)
    assert trained is not None
    assert (trained.how, trained.seconds, trained.cost) == ("training", 150, pytest.approx(1.5))
    assert learning(READER, SetupTimes(update_seconds=0.8), 1.0, None) is None
    assert learning(ArmSpec("b", "base"), SetupTimes(), 1.0, None) is None


def test_break_evens_are_told_for_the_dearer_set_up() -> None:
    """10 more to set up and 0.5 less a question: from the twentieth question on; the other way round never."""
    costs = {"tuned": ArmCost(0.5, 0, 10, None, "EUR"), "plain": ArmCost(1.0, 0, 0, None, "EUR")}
    assert break_evens(costs) == {"tuned": {"plain": 20}, "plain": {}}


def test_a_set_up_that_was_not_measured_is_not_free() -> None:
    """It has no cost, no share in break-evens and no sentence; an arm that needs none has 0."""
    answers = [Prediction("q", "t", "x", seconds=36.0)]

    def setup(spec: ArmSpec, times: SetupTimes) -> float | None:
        return arm_cost(answers, spec, 1.0, times, machine_price=0.10, currency="EUR").setup

    both = ArmSpec("b", "finetuned-rag", adapter="a")
    assert setup(both, SetupTimes(training_seconds=3600)) is None
    assert setup(both, SetupTimes(indexing_seconds=3600)) is None
    assert setup(both, SetupTimes(3600, 3600)) == pytest.approx(0.2)
    assert setup(TUNED, SetupTimes(3600)) == pytest.approx(0.1)
    assert setup(READER, SetupTimes()) is None
    assert setup(ArmSpec("base", "base"), SetupTimes()) == 0
    costs = {"tuned": ArmCost(0.5, 0, None, None, "EUR"), "plain": ArmCost(1.0, 0, 0, None, "EUR")}
    assert break_evens(costs) == {"tuned": {}, "plain": {}}
    assert break_even(costs["tuned"], costs["plain"]) is None


def test_the_recommendation_tells_cost_and_freshness() -> None:
    """With the run's own figures, and without them where there are none."""
    cost = {"per_question": 0.0005, "currency": "EUR", "setup": 2.5, "update_documents": 8, "update_seconds": 0.84}
    arms: dict[str, dict[str, Any]] = {
        arm: {"cost": dict(cost), "latency": {"p50": 0.02, "p95": 0.04}}
        for arm in ("base", "finetuned", "rag", "finetuned-rag", "raft", "rag-extractive")
    }
    text = recommendation(_evaluate(PREDICTIONS), arms)
    assert "0.50 EUR a thousand answers after 2.50 EUR to set it up" in text
    assert "by re-indexing, without training (8 documents took 0.84 s)" in text
    assert "EUR" not in recommendation(_evaluate(PREDICTIONS))
    trained = dict.fromkeys(("paraphrase", "trained-page", "unseen-page", "new-document", "unanswerable"), 0.0)
    tuned = _evaluate(PREDICTIONS, slice_weights=trained | {"trained": 1.0})
    arms["finetuned"]["cost"]["training_seconds"] = 150.0
    assert "only by training (the last took 150 s)" in recommendation(tuned, arms)


def test_the_recommendation_tells_what_one_user_waits() -> None:
    """The time of questions asked alone where they were timed; a share of a batch only under its name."""
    run = _evaluate(PREDICTIONS)
    best = standings(run)[0].arm
    timed = {best: {"cost": None, "latency": {"p50": 0.04, "p95": 0.06, "alone_p50": 0.27}}}
    assert "(a right refusal earns 100) in 0.27 s;" in recommendation(run, timed)
    untimed = {best: {"cost": None, "latency": {"p50": 0.04, "p95": 0.06, "alone_p50": None}}}
    assert re.search(r"earns 100\) in [\d.]+ s in batches;", recommendation(run, untimed))


def test_amounts_are_written_without_exponents() -> None:
    """Cents from one on, two telling digits below, a dash for what is not known."""
    written = {0: "0.00", 1234.5: "1234.50", 0.45: "0.45", 0.00045: "0.00045", 0.000075: "0.000075", None: "–"}
    assert {money: money_in_words(money) for money in written} == written
