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


@pytest.mark.parametrize("path", sorted(Path("experiments").glob("*.toml")), ids=lambda path: path.stem)
def test_every_experiment_that_ships_can_be_loaded_by_its_name(path: Path) -> None:
    """The file's name is the experiment's."""
    assert load_experiment(find_experiment(path.stem)).name == path.stem


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


def test_several_trainings_of_one_arm_become_arms_of_a_family() -> None:
    """One entry with `adapters` is an arm for each; a comparison with the entry is one with each of them."""
    arms = [ARMS[0], {"name": "tuned", "kind": "finetuned", "adapters": ["s1", "s2", "s3"]}]
    data = {"name": "e", "corpus": "c", "arms": arms, "comparisons": [{"a": "rag", "b": "tuned"}]}
    experiment = experiment_from_mapping(data)
    assert [(arm.name, arm.adapter) for arm in experiment.arms[1:]] == [
        ("tuned-1", "s1"), ("tuned-2", "s2"), ("tuned-3", "s3"),
    ]  # fmt: skip
    assert experiment.families == {"tuned": ("tuned-1", "tuned-2", "tuned-3")}
    assert [pair.b for pair in experiment.comparisons] == ["tuned-1", "tuned-2", "tuned-3"]


def test_members_of_a_family_are_not_compared_with_each_other_by_default() -> None:
    """Two seeds of one training are no question."""
    arms = [ARMS[0], {"name": "tuned", "kind": "finetuned", "adapters": ["s1", "s2"]}]
    pairs = experiment_from_mapping({"name": "e", "corpus": "c", "arms": arms}).comparisons
    assert [(pair.a, pair.b) for pair in pairs] == [("rag", "tuned-1"), ("rag", "tuned-2")]


@pytest.mark.parametrize(
    ("arm", "says"),
    [
        ({"adapters": ["s1"]}, "at least two names"),
        ({"adapters": ["s1", "s1"]}, "names one adapter twice"),
        ({"adapters": ["s1", "s2"], "adapter": "s3"}, "either adapter or adapters"),
        ({"adapter": "x", "in_flight": 0}, "in_flight must be a whole number of at least 1"),
        ({"adapter": "x", "in_flight": 1.5}, "in_flight must be a whole number"),
    ],
)
def test_what_several_trainings_cannot_be_is_said(arm: dict[str, object], says: str) -> None:
    """With the arm's name."""
    with pytest.raises(ExperimentError, match=f"arm tuned: .*{says}"):
        experiment_from_mapping({"name": "e", "corpus": "c", "arms": [{"name": "tuned", "kind": "finetuned", **arm}]})


def test_a_price_table_fills_in_what_arms_and_machine_cost(tmp_path: Path) -> None:
    """Inside the experiment, or in a file beside it; an arm's own price stands above the table."""
    table = '{where}machine = 0.5\n{where}training_machine = 2.0\ncurrency = "EUR"\n'
    text = 'name = "e"\ncorpus = "c"\nprices = "prices.toml"\n[[arms]]\nname = "r"\nkind = "rag"\nmodel = "m"\n'
    path = tmp_path / "e.toml"
    path.write_text(text + 'endpoint = "http://localhost/v1"\ninput_price = 9.0\n')
    (tmp_path / "prices.toml").write_text(table.format(where="") + "[models.m]\ninput = 1.0\noutput = 2.0\n")
    experiment = load_experiment(path)
    assert (experiment.machine_price, experiment.training_price, experiment.currency) == (0.5, 2.0, "EUR")
    assert (experiment.arm("r").input_price, experiment.arm("r").output_price) == (9.0, 2.0)
    (tmp_path / "prices.toml").write_text("[models.m]\ninptu = 1.0\n")
    with pytest.raises(ExperimentError, match=r"prices\.toml: 1 to mend"):
        load_experiment(path)
    (tmp_path / "prices.toml").unlink()
    with pytest.raises(ExperimentError, match=r"prices\.toml: the price table cannot be read"):
        load_experiment(path)
    inline = {"name": "e", "corpus": "c", "arms": [ARMS[0]], "prices": {"machine": -1, "gpu": 2}}
    with pytest.raises(ExperimentError, match=r"(?s)unknown key 'gpu'.*machine must be a number"):
        experiment_from_mapping(inline)
