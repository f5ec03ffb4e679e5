"""Experiment files: what is read, what is refused, and which questions are drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from comparison_app.errors import ExperimentError
from comparison_app.experiment import (
    KINDS,
    Comparison,
    draw_sample,
    experiment_from_mapping,
    find_experiment,
    load_experiment,
)
from data_prep.questions import Question
from tests.comparison_app.synthetic import made_documents, made_experiment, made_questions

ARMS = [{"name": "rag", "kind": "rag"}, {"name": "tuned", "kind": "finetuned", "adapter": "live"}]


@pytest.mark.parametrize("name", ["manual-demo", "manual-full"])
def test_the_experiments_that_ship_are_found_by_name_and_hold_every_kind_of_arm(name: str) -> None:
    """Six arms on one base model, and declared comparisons."""
    experiment = load_experiment(find_experiment(name))
    assert {arm.kind for arm in experiment.arms} == set(KINDS)
    assert {arm.model for arm in experiment.arms if arm.kind != "rag-extractive"} == {"pocket"}
    assert experiment.comparisons
    assert experiment.corpus == "tern-manual"


def test_the_demo_asks_about_180_questions_and_24_of_new_documents() -> None:
    """It must fit six minutes on two cores."""
    sample = load_experiment(find_experiment("manual-demo")).sample
    assert sample is not None
    assert sum(sample.values()) - sample["new-document"] == 180
    assert sample["new-document"] == 24


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    """One error names the file and lists all: an unknown key with its neighbour, a kind, an adapter, a slice."""
    path = tmp_path / "mine.toml"
    path.write_text(
        """
name = "mine"
corpus = "c"
[sample]
traned = 3
paraphrase = -1
[[arms]]
name = "rag"
kind = "rags"
[[arms]]
name = "rag"
kind = "finetuned"
modle = "pocket"
[[arms]]
name = "quotes"
kind = "rag-extractive"
model = "pocket"
""",
        encoding="utf-8",
    )
    with pytest.raises(ExperimentError) as caught:
        load_experiment(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    for part in (
        "unknown key 'traned' (did you mean 'trained'?)",
        "paraphrase must be a whole number",
        "kind 'rags' is not one of base, finetuned",
        "unknown key 'modle' (did you mean 'model'?)",
        "needs an adapter",
        "the name is given to 2 arms",
        "rag-extractive has no model",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"nmae": "x"}, "unknown key 'nmae'"),
        ({"arms": []}, "arms is missing"),
        ({"seed": True}, "seed must be a int"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"primary_metric": "bleu"}, "primary_metric 'bleu'"),
        ({"sample": {"new-document": 3}}, "new_documents = true"),
        ({"slice_weights": {"trained": -1}}, "trained must be a number"),
        ({"comparisons": [{"a": "rag", "b": "gone"}]}, "b = 'gone' is no arm"),
        ({"comparisons": [{"a": "rag", "b": "rag"}]}, "the same arm"),
        ({"comparisons": [{"a": "rag", "b": "tuned", "slices": ["all"]}]}, "slices must be a list of overall"),
        ({"comparisons": [{"a": "rag", "b": "tuned", "metric": "bleu"}]}, "metric 'bleu'"),
        ({"comparisons": ["rag"]}, r"write \[\[comparisons\]\]"),
    ],
)
def test_a_wrong_value_is_named(changes: dict[str, object], says: str) -> None:
    """With what is allowed in its place."""
    with pytest.raises(ExperimentError, match=says):
        experiment_from_mapping({"name": "n", "corpus": "c", "arms": ARMS, **changes})


@pytest.mark.parametrize(("text", "says"), [("name = ", "not TOML"), (b"\xff\xfe", "not UTF-8")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str | bytes, says: str) -> None:
    """Broken TOML, another encoding, no file."""
    path = tmp_path / "broken.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ExperimentError, match=says):
        load_experiment(path)
    with pytest.raises(ExperimentError, match="manual-demo, manual-full"):
        find_experiment(str(tmp_path / "gone.toml"))


def test_comparisons_spread_over_slices_and_decline_is_judged_where_nothing_can_be_answered() -> None:
    """On unanswerable questions the metric is abstention accuracy."""
    declared = [{"a": "rag", "b": "tuned", "slices": ["overall", "unanswerable"]}]
    experiment = experiment_from_mapping({"name": "n", "corpus": "c", "arms": ARMS, "comparisons": declared})
    assert experiment.comparisons == (
        Comparison("rag", "tuned", "overall", "token_f1"),
        Comparison("rag", "tuned", "unanswerable", "abstention_accuracy"),
    )


def test_without_declared_comparisons_every_pair_is_compared_overall() -> None:
    """Nobody has to declare anything to get a result."""
    experiment = experiment_from_mapping({"name": "n", "corpus": "c", "arms": ARMS})
    assert experiment.comparisons == (Comparison("rag", "tuned", "overall", "token_f1"),)


def test_the_sample_is_stratified_fixed_by_its_seed_and_nested() -> None:
    """The same seed draws the same questions whatever their order, and a larger sample holds the smaller."""
    questions = made_questions(made_documents())
    small = made_experiment(sample={"trained": 5, "unseen-page": 7})
    large = made_experiment(sample={"trained": 9, "unseen-page": 7})
    drawn = draw_sample(small, questions)
    assert Counter(question.slice for question in drawn) == {"trained": 5, "unseen-page": 7}
    assert {q.id for q in drawn} == {q.id for q in draw_sample(small, questions[::-1])}
    assert {q.id for q in drawn} < {q.id for q in draw_sample(large, questions)}
    other = made_experiment(sample={"trained": 5, "unseen-page": 7}, seed=6)
    assert {q.id for q in drawn} != {q.id for q in draw_sample(other, questions)}


def test_without_a_sample_all_is_asked_and_new_documents_only_where_wanted() -> None:
    """The slice new-document needs the second indexing."""
    questions = made_questions(made_documents(), per_slice=3)
    assert draw_sample(made_experiment(), questions) == questions
    asked = draw_sample(made_experiment(new_documents=False), questions)
    assert "new-document" not in {question.slice for question in asked}


def test_a_question_without_slice_and_an_empty_draw_are_errors() -> None:
    """Nothing is asked that could not be reported."""
    with pytest.raises(ExperimentError, match="q1 has no slice"):
        draw_sample(made_experiment(), [Question(id="q1", question="?")])
    with pytest.raises(ExperimentError, match="asks none of the 1 questions"):
        draw_sample(made_experiment(sample={"paraphrase": 2}), [Question(id="q1", question="?", slice="trained")])
