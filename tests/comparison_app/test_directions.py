"""Published findings against made-up runs in which the truth is known, and the adapters that an experiment brings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comparison_app.cli import main
from comparison_app.directions import (
    CONTEXT,
    HOLDS,
    OPEN,
    PARTLY,
    PUBLISHED,
    RAG_ABOVE,
    REVERSED,
    SHRINKS,
    SUPPORT,
    UNTESTED,
    WORDINGS,
    directions,
    forgetting_rows,
    wordings_trained,
)
from comparison_app.errors import ExperimentError
from comparison_app.evaluation import Evaluation, align
from comparison_app.experiment import experiment_from_mapping, find_experiment, load_experiment
from comparison_app.metrics.scoring import score_all
from comparison_app.preparing import (
    Training,
    first_wordings,
    general_checks,
    prepare_adapters,
    questions_for,
    trainings_of,
)
from comparison_app.report.directions import directions_markdown, directions_section
from comparison_app.workspace import Workspace
from data_prep.corpus import load_corpus
from data_prep.questions import SLICES, Question
from finetune.run_record import RunRecord, read_run_record
from tests.comparison_app.synthetic import FakeArm, made_documents, made_predictions, made_questions, made_texts
from tests.finetune.tiny import save_pocket_like

DOCUMENTS = made_documents()
QUESTIONS = made_questions(DOCUMENTS)
#            trained paraphrase trained-page unseen new unanswerable
CHANCES = {
    "one": ("finetuned", "pocket", "one", (0.9, 0.2, 0.1, 0.05, 0.05, 0.3)),
    "two": ("finetuned", "pocket", "two", (0.9, 0.7, 0.1, 0.05, 0.05, 0.3)),
    "rag": ("rag", "pocket", None, (0.6, 0.6, 0.6, 0.7, 0.7, 0.9)),
    "both": ("finetuned-rag", "pocket", "two", (0.2, 0.2, 0.2, 0.2, 0.2, 0.2)),
    "raft": ("raft", "pocket", "raft", (0.9, 0.9, 0.9, 0.95, 0.9, 0.9)),
    "rag-large": ("rag", "large", None, (0.9, 0.9, 0.9, 0.9, 0.9, 0.9)),
    "raft-large": ("raft", "large", "raft-large", (0.9, 0.9, 0.9, 0.9, 0.9, 0.9)),
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "one": {"wordings": 1.0, "forgetting": {"before": 0.3, "after": 0.25, "questions": 50}},
    "two": {"wordings": 2.0},
    "raft": {"forgetting": None},
}
MODELS = {"pocket": {"parameters": 14e6}, "large": {"parameters": 7e9}}


def _run(names: tuple[str, ...], **chances: tuple[float, ...]) -> Evaluation:
    """Return the run of these arms, some of them with other chances."""
    entries: list[dict[str, Any]] = []
    arms = []
    for name in names:
        kind, model, adapter, usual = CHANCES[name]
        given = chances.get(name, usual)
        entries.append({"name": name, "kind": kind, "model": model} | ({"adapter": adapter} if adapter else {}))
        arms.append(FakeArm(name, DOCUMENTS, dict(zip(SLICES, given, strict=True)), retrieves=kind != "finetuned"))
    data = {"name": "made-up", "corpus": "c", "new_documents": True, "directions": True, "arms": entries}
    experiment, texts = experiment_from_mapping(data), made_texts(DOCUMENTS)
    predictions, _ = align(experiment, QUESTIONS, made_predictions(arms, QUESTIONS))
    scores = score_all(QUESTIONS, predictions, {arm.name: arm.retrieves for arm in experiment.arms}, texts)
    return Evaluation(experiment, tuple(QUESTIONS), predictions, texts, scores, estimates={}, pairs=())


def _outcomes(evaluation: Evaluation) -> dict[str, str]:
    return {item["key"]: item["outcome"] for item in directions(evaluation, ADAPTERS, MODELS)}


def test_findings_that_are_true_of_the_arms_hold() -> None:
    """All five, where the made-up arms were given the published strengths."""
    found = directions(_run(tuple(CHANCES)), ADAPTERS, MODELS)
    assert {item["key"]: item["outcome"] for item in found} == {item.key: HOLDS for item in PUBLISHED}
    parts = [part for item in found for part in item["parts"]]
    assert len(parts) == 2 + 2 + 1 + 2 + 1
    for part in parts:
        assert part["low"] <= part["difference"] <= part["high"]
        assert part["adjusted_p"] < 0.05
    shrinks = next(item for item in found if item["key"] == SHRINKS)
    assert shrinks["parts"][0]["text"] == "gain of raft over rag, on pocket minus on large"


def test_findings_that_are_false_are_reversed_or_open() -> None:
    """A strong closed-book arm turns the first round; equal arms leave the others open, with what was to be seen."""
    right, same = (0.95,) * 6, CHANCES["rag"][3]
    turned = _run(("one", "two", "rag", "both", "raft"), two=right, one=right, rag=(0.3,) * 6, both=same, raft=same)
    found = _outcomes(turned)
    assert found[RAG_ABOVE] == REVERSED
    assert found[WORDINGS] == OPEN
    half = _run(("rag", "both", "raft"), raft=CHANCES["both"][3])
    assert _outcomes(half)[CONTEXT] == PARTLY
    row = next(item for item in directions(turned, ADAPTERS, MODELS) if item["key"] == WORDINGS)["parts"][0]
    assert row["outcome"] == OPEN
    assert row["detectable"] > 0


def test_what_an_experiment_cannot_test_is_said_to_be_untested() -> None:
    """The fifth without a second base; wordings without two counts; everything without arms of a base."""
    found = _outcomes(_run(("one", "two", "rag", "both", "raft")))
    assert found[SHRINKS] == UNTESTED
    assert HOLDS in (found[RAG_ABOVE], found[SUPPORT])
    unknown = {item["key"]: item["outcome"] for item in directions(_run(("one", "two")), {}, {})}
    assert set(unknown.values()) == {UNTESTED}
    assert {item["key"]: item["outcome"] for item in directions(_run(("rag",)), {}, {})} == dict.fromkeys(
        (item.key for item in PUBLISHED), UNTESTED
    )


def test_too_few_documents_decide_nothing() -> None:
    """Five documents: no interval, and so no finding, however large the difference."""
    run = _run(("one", "rag"))
    few = sorted(DOCUMENTS)[:5]
    kept = [row for row, question in enumerate(QUESTIONS) if question.documents and question.documents[0] in few]
    part = replace(
        run,
        questions=tuple(run.questions[row] for row in kept),
        scores={metric: table[kept] for metric, table in run.scores.items()},
    )
    parts = next(item for item in directions(part, ADAPTERS, MODELS) if item["key"] == RAG_ABOVE)["parts"]
    assert parts
    assert all(row["low"] is None and row["outcome"] == OPEN for row in parts)


def test_the_report_lists_the_findings_and_what_was_forgotten() -> None:
    """Escaped; the source beside each; forgetting only where it was measured; nothing where none was asked for."""
    run = _run(("one", "two", "rag"))
    rows = forgetting_rows(run, ADAPTERS)
    assert [(row["adapter"], row["wordings"], row["before"], row["after"]) for row in rows] == [
        ("one", 1.0, 0.3, 0.25),
        ("two", 2.0, None, None),
    ]
    found = directions(run, ADAPTERS, MODELS)
    found[0]["claim"] = "<b>odd</b>"
    html = str(directions_section({"directions": found, "forgetting": rows}))
    text = directions_markdown({"directions": found, "forgetting": rows})
    assert "<b>odd" not in html + text
    assert "arXiv 2312.05934" in html
    assert "Not tested: it needs rag and raft arms of two bases" in html
    assert "30 %" in html
    assert "not asked" in html
    assert "30 % of 50 general questions right before training, 25 % after" in text
    assert directions_section({}) == ""


def test_wordings_are_counted_from_what_an_adapter_was_trained_on() -> None:
    """Two of each fact, and three made up beside them; unanswerable questions do not count."""
    known = {
        question.id: question
        for question in (
            Question(id="a1", question="?", answers=("x",), fact="a"),
            Question(id="a2", question="??", answers=("x",), fact="a"),
            Question(id="b1", question="???", answers=("y",), fact="b"),
            Question(id="b2", question="????", answers=("y",), fact="b"),
            Question(id="u1", question="?????", fact="u"),
        )
    }
    record = RunRecord({"data": {"rewordings": 3}}, "m", "f", "d", tuple(known), 0, "cpu", "", "", 1.0, 1, 1.0, 1)
    assert wordings_trained(record, known) == 5
    assert wordings_trained(replace(record, recipe={}, trained_ids=("a1", "b2")), known) == 1
    assert [question.id for question in first_wordings(list(known.values()), 1)] == ["a1", "b1", "u1"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"adapter": "x"}, "recipe is missing"),
        ({"adapter": "x", "recipe": "pocket", "wording": 1}, "unknown key wording"),
        ({"adapter": "x", "recipe": "pocket", "wordings": 0, "max_seconds": -1}, "max_seconds must be"),
        ({"adapter": "", "recipe": "pocket"}, "adapter must be"),
    ],
)
def test_mistakes_in_a_training_table_are_named(table: dict[str, Any], words: str) -> None:
    """Before anything is trained."""
    arms = [{"name": "q", "kind": "rag-extractive"}]
    experiment = experiment_from_mapping({"name": "e", "corpus": "c", "arms": arms, "training": [table]})
    with pytest.raises(ExperimentError, match=words):
        trainings_of(experiment)


def test_the_shipped_experiment_trains_what_its_arms_use() -> None:
    """Every adapter of an arm is brought along, within a bounded time; wordings grow; the corpus has the checks."""
    experiment = load_experiment(find_experiment("directions"))
    trainings = {training.adapter: training for training in trainings_of(experiment)}
    assert {arm.adapter for arm in experiment.arms if arm.adapter} == set(trainings)
    assert all(training.max_seconds is not None and training.max_seconds <= 150 for training in trainings.values())
    workspace = Workspace.resolve(None)
    corpus = workspace.corpus(experiment.corpus)
    sizes = [len(questions_for(t, experiment, corpus)) for t in trainings.values()]
    assert sizes[0] < sizes[1]
    assert len(general_checks(workspace)) == 50
    assert general_checks(workspace, "xx") == []


@contextmanager
def _silent(label: str) -> Iterator[Callable[[Any], None]]:
    yield lambda step: None


@pytest.mark.slow
def test_adapters_are_trained_once_and_again_only_if_something_changed(
    small_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run record tells the wordings and what was forgotten; the command reports them; a change trains anew."""
    model = save_pocket_like(tmp_path / "model", positions=256)
    (tmp_path / "tiny.toml").write_text(f'[model]\nname = "{model}"\n[optimisation]\nmax_steps = 2\nbatch_size = 4\n')
    workspace, corpus = Workspace(tmp_path / "workspace"), load_corpus(small_corpus)
    data = {
        "name": "e",
        "corpus": str(small_corpus),
        "sample": {"unseen-page": 2},
        "directions": True,
        "training": [{"adapter": "tiny", "recipe": str(tmp_path / "tiny.toml"), "wordings": 1}],
        "arms": [{"name": "t", "kind": "finetuned", "model": str(model), "adapter": "tiny"}],
    }
    said: list[str] = []
    experiment = experiment_from_mapping(data)
    prepare_adapters(experiment, corpus, workspace, _silent, said.append)
    made = read_run_record(workspace.adapters / "tiny")
    assert len(made.trained_ids) == len(questions_for(Training("tiny", "r", wordings=1), experiment, corpus))
    assert made.forgetting is not None
    assert made.forgetting["questions"] == 50
    prepare_adapters(experiment, corpus, workspace, _silent, said.append)
    assert said[-1] == "adapter tiny is as it was: used again"
    assert read_run_record(workspace.adapters / "tiny") == made
    path = tmp_path / "e.toml"
    path.write_text(
        f'name = "e"\ncorpus = "{small_corpus}"\nsample = {{unseen-page = 2}}\ndirections = true\nlatency_probe = 0\n'
        f'[[training]]\nadapter = "tiny"\nrecipe = "{tmp_path / "tiny.toml"}"\nwordings = 1\n'
        f'[[arms]]\nname = "t"\nkind = "finetuned"\nmodel = "{model}"\nadapter = "tiny"\n'
        '[[arms]]\nname = "q"\nkind = "rag-extractive"\n'
    )
    assert main(["compare", str(path), "--workspace", str(workspace.path), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert [item["outcome"] for item in summary["directions"]] == [UNTESTED] * 5
    assert [(row["adapter"], row["wordings"], row["steps"]) for row in summary["forgetting"]] == [("tiny", 1, 2)]
    assert 0 <= summary["forgetting"][0]["after"] <= 1
    assert read_run_record(workspace.adapters / "tiny") == made
    changed = {**data, "training": [{**data["training"][0], "wordings": 2}]}  # type: ignore[index]

    class AgainError(Exception):
        """Training began."""

    @contextmanager
    def stop(label: str) -> Iterator[Callable[[Any], None]]:
        raise AgainError
        yield

    with pytest.raises(AgainError):
        prepare_adapters(experiment_from_mapping(changed), corpus, workspace, stop, said.append)
    assert said[-1].startswith("training tiny")
    assert read_run_record(workspace.adapters / "tiny") == made
