"""Several trainings of one arm: seeds as spread, training sizes as a learning curve, never averaged away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from comparison_app.evaluation import Evaluation, evaluate
from comparison_app.report import render_html
from comparison_app.report.trainings import learning_curves, seed_spreads
from comparison_app.summary import summarise
from comparison_app.verdict import verdict
from data_prep.questions import SLICES
from tests.comparison_app.synthetic import (
    FakeArm,
    made_documents,
    made_experiment,
    made_predictions,
    made_questions,
    made_texts,
)

DOCUMENTS = made_documents()
QUESTIONS = made_questions(DOCUMENTS)
RECORD = {"adapters": {"a60": {"trained_questions": 60}, "a240": {"trained_questions": 240}, "s1": {"seconds": 9.0}}}


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """Three seeds of one training, two sizes of another, and retrieval."""
    arms = [
        {"name": "rag", "kind": "rag"},
        {"name": "tuned", "kind": "finetuned", "adapters": ["s1", "s2", "s3"]},
        {"name": "tuned 60", "kind": "finetuned-rag", "adapter": "a60", "subset": "60"},
        {"name": "tuned 240", "kind": "finetuned-rag", "adapter": "a240"},
    ]
    comparisons = [{"a": "rag", "b": "tuned", "slices": ["unseen-page"]}]
    experiment = made_experiment(arms=arms, comparisons=comparisons)
    chances = {"rag": 0.6, "tuned-1": 0.3, "tuned-2": 0.4, "tuned-3": 0.5, "tuned 60": 0.4, "tuned 240": 0.8}
    fakes = [FakeArm(name, DOCUMENTS, dict.fromkeys(SLICES, chance), name == "rag") for name, chance in chances.items()]
    return evaluate(experiment, QUESTIONS, made_predictions(fakes, QUESTIONS), made_texts(DOCUMENTS))


def test_every_seed_keeps_its_own_score_and_the_spread_is_drawn(evaluation: Evaluation) -> None:
    """Three dots a slice; the description names every value."""
    (drawn,) = seed_spreads(evaluation)
    assert drawn.heading == "tuned"
    values = [round(100 * evaluation.estimates["token_f1", "overall"][f"tuned-{n}"].mean) for n in (1, 2, 3)]
    assert len(set(values)) == 3
    assert "overall " + ", ".join(map(str, values)) in drawn.drawing
    assert drawn.drawing.count("<circle") == 3 * (1 + len(evaluation.slices))
    assert "tuned-1, tuned-2, tuned-3" in drawn.note


def test_the_verdict_tells_the_spread_and_compares_each_seed(evaluation: Evaluation) -> None:
    """A comparison with the family is one with each of its members."""
    assert len(evaluation.declared()) == 3
    text = verdict(evaluation)
    assert "3 trainings of tuned that differ only in the seed earned" in text
    assert "average" not in text


def test_a_learning_curve_is_drawn_where_several_sizes_were_trained(evaluation: Evaluation) -> None:
    """One curve a slice, a spot for each size; seeds of one size make none."""
    (drawn,) = learning_curves(evaluation, RECORD)
    assert drawn.heading == "finetuned-rag"
    assert drawn.drawing.count("<circle") == 2 * len(evaluation.slices)
    assert drawn.drawing.count('class="curve ') == len(evaluation.slices)
    mean = evaluation.estimates["token_f1", "unseen-page"]["tuned 240"].mean
    assert f"240: {100 * mean:.0f}" in drawn.drawing
    assert not learning_curves(evaluation, {"adapters": {"a60": {"trained_questions": 60}}})
    same = {"adapters": {"a60": {"trained_questions": 60}, "a240": {"trained_questions": 60}}}
    assert not learning_curves(evaluation, same)


def test_the_page_has_the_section_only_where_there_is_something_to_show(evaluation: Evaluation) -> None:
    """Its heading and its link in the navigation."""
    page = render_html(evaluation, summarise("run", evaluation, RECORD))
    assert 'id="trainings"' in page and 'href="#trainings"' in page
    arms = tuple(replace(arm, family=None, adapter=None, kind="base") for arm in evaluation.experiment.arms)
    plain = replace(evaluation, experiment=replace(evaluation.experiment, arms=arms))
    assert "trainings" not in render_html(plain, summarise("run", plain))
