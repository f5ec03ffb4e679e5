"""`versus compare --plan`: what a run could see, how long it takes, what it costs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from comparison_app.evaluation import evaluate
from comparison_app.experiment import Experiment, experiment_from_mapping, load_experiment
from comparison_app.planned_trainings import plan_trainings
from comparison_app.planning import ASSUMED_SECONDS, make_plan
from comparison_app.power import can_decide, holm_share, planned_detectable, smallest_p, visible_among
from comparison_app.statistics import paired_difference
from comparison_app.summary import summarise, write_summary
from comparison_app.workspace import Workspace
from data_prep.corpus import load_corpus
from finetune.run_record import RunRecord, write_run_record
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


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run of the made-up experiment."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "first").mkdir()
    predictions = made_predictions(made_arms(DOCUMENTS), QUESTIONS)
    found = evaluate(made_experiment(), QUESTIONS, predictions, made_texts(DOCUMENTS))
    write_summary(folder / "first" / "summary.json", summarise("first", found))
    (folder / "broken").mkdir()
    (folder / "broken" / "summary.json").write_text("{")
    return folder


def test_what_an_earlier_run_could_see_is_what_the_plan_says_for_the_same_questions(runs: Path) -> None:
    """The same experiment again sees the same; half the difference needs four times the questions."""
    plan = make_plan(made_experiment(), QUESTIONS, runs, 0.1)
    finished = evaluate(
        made_experiment(), QUESTIONS, made_predictions(made_arms(DOCUMENTS), QUESTIONS), made_texts(DOCUMENTS)
    )
    for planned, pair in zip(plan.comparisons, finished.declared(), strict=True):
        assert planned.source == "first"
        assert planned.detectable == pytest.approx(pair.found.detectable)
        assert planned.needed == math.ceil(planned.questions * (planned.detectable / 0.1) ** 2)
    half = make_plan(made_experiment(), QUESTIONS, runs, 0.05)
    assert half.comparisons[0].needed == pytest.approx(4 * plan.comparisons[0].needed, abs=4)


def test_time_and_cost_follow_from_earlier_seconds_and_the_machines_price(runs: Path) -> None:
    """Median seconds a question, times questions, at the hourly price."""
    plan = make_plan(made_experiment(machine_price=3600), QUESTIONS, runs)
    by_name = {arm.arm: arm for arm in plan.arms}
    assert by_name["rag"].seconds == pytest.approx(0.3 * 1.25 * len(QUESTIONS), rel=0.15)
    assert by_name["rag"].cost == pytest.approx(by_name["rag"].seconds)
    assert plan.seconds == pytest.approx(sum(arm.seconds for arm in plan.arms))
    assert plan.unknown == ()


def _two_arms(**remote: object) -> Experiment:
    arms = [{"name": "quotes", "kind": "rag-extractive"}, {"name": "remote", "kind": "rag", "model": "m", **remote}]
    return experiment_from_mapping({"name": "new", "corpus": "c", "new_documents": True, "arms": arms})


def test_without_an_earlier_run_the_spread_is_assumed_and_unknown_times_are_named(tmp_path: Path) -> None:
    """An endpoint's money is known from its prices alone, as an upper bound; the bundled arms' time is assumed."""
    plan = make_plan(
        _two_arms(endpoint="http://localhost/v1", input_price=1.0, output_price=2.0), QUESTIONS, tmp_path, 0.1
    )
    assert plan.comparisons[0].source == "assumed"
    assert 0.03 < plan.comparisons[0].detectable < 0.2
    assert plan.unknown == ("remote",)
    assert plan.arms[1].source == "prices, at most"
    assert 0.05 < plan.arms[1].cost < 1
    assert plan.arms[0].source == "assumed"
    assert plan.arms[0].seconds == pytest.approx(len(QUESTIONS) * ASSUMED_SECONDS["rag-extractive"])
    assert plan.arms[0].cost == pytest.approx(plan.arms[0].seconds * 0.10 / 3600)


def test_a_first_run_with_the_bundled_model_has_a_time_and_others_have_none(tmp_path: Path) -> None:
    """Every kind of arm is assumed for pocket; another model's speed is not guessed; the index counts where known."""
    plan = make_plan(made_experiment(), QUESTIONS, tmp_path, indexing=36.0)
    assert {arm.source for arm in plan.arms} == {"assumed"}
    assert plan.unknown == ()
    assert plan.seconds == pytest.approx(36 + sum(arm.seconds or 0 for arm in plan.arms))
    assert plan.cost == pytest.approx(plan.seconds * 0.10 / 3600)
    assert plan.as_dict()["indexing"] == 36.0
    other = make_plan(_two_arms(), QUESTIONS, tmp_path)
    assert (other.arms[1].seconds, other.unknown, other.indexing) == (None, ("remote",), None)


def test_too_few_documents_promise_nothing(tmp_path: Path) -> None:
    """A plan does not name a number that the report would refuse."""
    few = [question for question in QUESTIONS if question.evidence and question.evidence[0].document < "page-05"]
    plan = make_plan(_two_arms(), few, tmp_path)
    assert (plan.comparisons[0].detectable, plan.comparisons[0].needed) == (None, None)
    assert plan.comparisons[0].source == "too few documents"


def test_the_planned_difference_is_found_in_about_four_runs_of_five() -> None:
    """120 questions over 30 documents, simulated with the spread and likeness that the plan assumes."""
    sizes, spread, likeness = [4] * 30, 0.45, 0.2
    planned = planned_detectable(sizes, spread, likeness)
    assert planned is not None
    rng = np.random.default_rng(2)
    names = np.repeat(np.arange(30), 4)
    found = 0
    for _ in range(200):
        shared = rng.normal(0, spread * math.sqrt(likeness), 30)[names]
        gaps = planned + shared + rng.normal(0, spread * math.sqrt(1 - likeness), 120)
        found += paired_difference(gaps, np.zeros(120), names.tolist()).p_value < 0.05
    assert 0.7 <= found / 200 <= 0.9


def test_more_declared_comparisons_see_less() -> None:
    """One sees what one sees; ten need about a third more (z of 0.0025 for z of 0.025)."""
    assert holm_share(1) == 1
    assert holm_share(10) == pytest.approx((2.807 + 0.8416) / (1.96 + 0.8416), abs=1e-3)


def test_few_documents_among_many_comparisons_see_nothing() -> None:
    """The sign-flip test of 8 documents gives no p under 1/128: too much for one of eleven, enough for one of six."""
    gaps, names = np.linspace(0.5, 0.9, 16), np.repeat(np.arange(8), 2).tolist()
    found = paired_difference(gaps, np.zeros(16), names)
    assert found.p_value == smallest_p(8) == 1 / 128
    assert can_decide(8, 6) and not can_decide(8, 7)
    assert visible_among(found, 11).detectable is None
    assert visible_among(found, 6).detectable == pytest.approx(found.detectable * holm_share(6))


def test_a_plan_promises_no_decision_that_few_documents_could_not_bring(tmp_path: Path) -> None:
    """Eight documents may decide a single comparison, and none of eleven."""
    few = [question for question in QUESTIONS if question.evidence and question.evidence[0].document < "page-08"]
    assert make_plan(_two_arms(), few, tmp_path).comparisons[0].detectable
    many = make_plan(made_experiment(), few, tmp_path)
    overall = next(item for item in many.comparisons if item.slice == "overall")
    assert (len(many.comparisons), overall.documents) == (11, 8)
    assert (overall.detectable, overall.needed, overall.source) == (None, None, "too few documents")


@pytest.mark.slow
def test_the_command_asks_nothing_and_prints_the_plan(small_corpus: Path, tmp_path: Path) -> None:
    """No run folder is made, for people and for machines; a difference of nothing is refused."""
    arms = "".join(f'[[arms]]\nname = "{name}"\nkind = "rag-extractive"\n' for name in ("a", "b"))
    path = tmp_path / "lamp.toml"
    path.write_text(f'name = "lamp"\ncorpus = "{small_corpus}"\n{arms}')
    command = ("compare", path, "--plan", "--workspace", tmp_path / "ws")
    done = versus(*command, "--difference", "5", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["difference"] == 0.05 and plan["unknown"] == []
    shown = versus(*command)
    assert shown.returncode == 0 and "questions for 10 points" in " ".join(shown.stdout.split())
    assert not (tmp_path / "ws").exists()
    assert_clear_error(versus(*command, "--difference", "0"), "--difference must be more than 0")


@pytest.mark.slow
def test_adapters_that_the_run_will_train_are_planned_before_they_are_there(small_corpus: Path, tmp_path: Path) -> None:
    """Their time is the limit, or scaled from an earlier training; an adapter that nobody trains is an error."""
    workspace = Workspace(tmp_path / "ws")
    recipe = tmp_path / "tiny.toml"
    recipe.write_text("[optimisation]\nepochs = 10\n")
    arms = "".join(f'[[arms]]\nname = "{name}"\nkind = "finetuned"\nadapter = "{name}"\n' for name in ("a", "b"))
    head = f'name = "lamp"\ncorpus = "{small_corpus}"\nmachine_price = 3.6\n'
    tables = (
        f'[[training]]\nadapter = "a"\nrecipe = "{recipe}"\nmax_seconds = 150\n'
        f'[[training]]\nadapter = "b"\nrecipe = "{recipe}"\n'
    )
    path = tmp_path / "lamp.toml"
    path.write_text(head + tables + arms)
    done = versus("compare", path, "--plan", "--json", "--workspace", workspace.path)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert [(item["needed"], item["seconds"], item["source"]) for item in plan["trainings"]] == [
        (True, 150.0, "limit, at most"),
        (True, None, "none"),
    ]
    assert 150 < plan["seconds"] < 155, "the training, and the assumed times of the answers"
    assert plan["cost"] == pytest.approx(plan["seconds"] * 0.001) and "training b" in plan["unknown"]
    count = plan["trainings"][1]["questions"]
    record = RunRecord(
        {"name": "tiny"}, "pocket", "", "", tuple(map(str, range(count * 2))), 0, "cpu", "", "", 40.0, 9, 5.0, 1
    )
    (workspace.adapters / "old").mkdir(parents=True)
    write_run_record(workspace.adapters / "old", record)
    found = plan_trainings(load_experiment(path), load_corpus(small_corpus), workspace)
    assert [item.seconds for item in found] == [pytest.approx(40.0)] * 2
    shown = " ".join(versus("compare", path, "--plan", "--workspace", workspace.path).stdout.split())
    assert "will be trained" in shown and "an earlier training by tiny" in shown
    path.write_text(head + arms)
    assert_clear_error(versus("compare", path, "--plan", "--workspace", workspace.path), "adapter")
