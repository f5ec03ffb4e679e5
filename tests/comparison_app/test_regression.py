"""`versus report RUN --against OTHER`: what changed between two runs of one experiment."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from comparison_app.errors import RunError
from comparison_app.evaluation import Evaluation, evaluate
from comparison_app.predictions import Prediction, write_predictions
from comparison_app.regression import compare_runs
from comparison_app.runner import open_run
from data_prep.corpus import load_corpus
from tests.comparison_app.command import assert_clear_error, versus
from tests.comparison_app.synthetic import (
    made_arms,
    made_documents,
    made_experiment,
    made_predictions,
    made_questions,
    made_texts,
)

DOCUMENTS = made_documents()
QUESTIONS = made_questions(DOCUMENTS)
PREDICTIONS = made_predictions(made_arms(DOCUMENTS), QUESTIONS)


def _evaluate(predictions: list[Prediction], **changes: object) -> Evaluation:
    return evaluate(made_experiment(**changes), QUESTIONS, predictions, made_texts(DOCUMENTS))


@pytest.fixture(scope="module")
def first() -> Evaluation:
    """The run that others are measured by."""
    return _evaluate(PREDICTIONS)


def test_the_same_answers_change_nothing(first: Evaluation) -> None:
    """Every difference exactly 0, none decisive, no word of what was made differently."""
    found = compare_runs(("then", first, {"seed": 1}), ("now", first, {"seed": 1}))
    assert {change.found.difference for change in found.changes} == {0.0}
    assert not found.falls and not found.provenance and not found.notes
    assert found.questions == len(QUESTIONS)


def test_an_arm_that_got_worse_has_fallen_and_no_other(first: Evaluation) -> None:
    """Half of the answers lost; turned round it is a rise."""
    worse = [replace(p, error="down") if p.arm == "raft" and p.question_id[-1] in "02468" else p for p in PREDICTIONS]
    second = _evaluate(worse)
    found = compare_runs(("then", first, {}), ("now", second, {}))
    assert {change.arm for change in found.falls} == {"raft"}
    assert any(change.slice == "overall" for change in found.falls)
    back = compare_runs(("then", second, {}), ("now", first, {}))
    assert not back.falls
    assert {change.arm for change in back.changes if change.decisive} == {"raft"}


def test_what_was_made_differently_is_told_and_times_are_not(first: Evaluation) -> None:
    """Versions, corpus and weights; not when and how long."""
    then = {"started": "a", "versions": {"torch": "1"}, "adapters": {"x": {"seconds": 1.0, "weights_sha256": "aa"}}}
    now = {"started": "b", "versions": {"torch": "2"}, "adapters": {"x": {"seconds": 2.0, "weights_sha256": "bb"}}}
    found = compare_runs(("then", first, then), ("now", first, now))
    assert found.provenance == {"versions.torch": ("1", "2"), "adapters.x.weights_sha256": ("aa", "bb")}


def test_questions_of_one_run_alone_are_left_out_and_said(first: Evaluation) -> None:
    """Also a question whose gold answer changed."""
    changed = [replace(q, answers=("other",)) if q.id == "trained-000" else q for q in QUESTIONS[:-4]]
    second = evaluate(made_experiment(), changed, PREDICTIONS, made_texts(DOCUMENTS))
    found = compare_runs(("then", first, {}), ("now", second, {}))
    assert found.questions == len(QUESTIONS) - 5
    assert found.notes[0] == "1 questions changed between the runs and are left out"


def test_runs_of_other_experiments_are_refused(first: Evaluation) -> None:
    """Another name, corpus or metric measures something else."""
    with pytest.raises(RunError, match="primary_metric 'rouge_l', not 'token_f1'"):
        compare_runs(("then", _evaluate(PREDICTIONS, primary_metric="rouge_l"), {}), ("now", first, {}))
    with pytest.raises(RunError, match="has experiment 'other'"):
        compare_runs(("then", _evaluate(PREDICTIONS, name="other"), {}), ("now", first, {}))


@pytest.mark.slow
def test_the_command_exits_with_1_on_a_decisive_fall_only_if_told_to(small_corpus: Path, tmp_path: Path) -> None:
    """Two runs written by hand: all right, then all wrong; the gate shuts in one direction alone."""
    path = tmp_path / "gate.toml"
    path.write_text(f'name = "gate"\ncorpus = "{small_corpus}"\n[[arms]]\nname = "quotes"\nkind = "rag-extractive"\n')
    base = load_corpus(small_corpus).questions("test")
    questions = [
        replace(question, id=f"{question.id}-{copy}", about=f"page-{copy}", evidence=(), slice="trained")
        for question in base
        if question.answers
        for copy in range(2)
    ]
    for name, right in (("good", True), ("bad", False)):
        run = open_run(tmp_path / "ws" / "runs" / name, path, questions)
        said = [Prediction(q.id, "quotes", q.answers[0] if right else "no idea at all") for q in questions]
        write_predictions(run.predictions_path, said)
        text = (run.folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.dumps({**json.loads(line), "about": f"page-{number}"}) for number, line in enumerate(text)]
        (run.folder / "questions.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    place = ("--workspace", tmp_path / "ws", "--json")
    fell = versus("report", "bad", "--against", "good", "--fail-on-regression", *place)
    assert fell.returncode == 1, fell.stderr
    found = json.loads(fell.stdout)
    assert found["regressions"] >= 1 and found["changes"][0]["difference"] == pytest.approx(-1, abs=0.2)
    assert versus("report", "bad", "--against", "good", *place).returncode == 0
    assert versus("report", "good", "--against", "bad", "--fail-on-regression", *place).returncode == 0
    assert_clear_error(versus("report", "good", "--fail-on-regression", *place), "needs --against")
    assert json.loads((tmp_path / "ws" / "runs" / "bad" / "against.json").read_text())["against"] == "good"
