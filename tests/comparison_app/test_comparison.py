"""A whole comparison on a small corpus: every slice asked, new documents taken in, slices checked."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from comparison_app.comparison import Comparison, questions_of
from comparison_app.experiment import experiment_from_mapping
from comparison_app.index_times import IndexWork, updated
from comparison_app.predictions import read_predictions, write_predictions
from comparison_app.runner import read_record
from comparison_app.summary import read_summary
from comparison_app.training import passages_for, training_questions
from comparison_app.workspace import Workspace
from data_prep.corpus import Corpus, load_corpus
from data_prep.errors import VersusError
from data_prep.questions import Question
from finetune.config import recipe_from_mapping
from rag.extractive import plain_text
from tests.comparison_app.command import VERSUS, assert_clear_error, versus
from tests.finetune.tiny import save_llama, save_pocket_like

TWO_ARMS = """
name = "lamp"
corpus = "{corpus}"
new_documents = true
batch_size = 2
[[arms]]
name = "quotes"
kind = "rag-extractive"
[[arms]]
name = "whole pages"
kind = "rag-extractive"
preset = "car-manual"
"""


def _experiment(folder: Path, text: str) -> Path:
    path = folder / "lamp.toml"
    path.write_text(text)
    return path


@pytest.mark.slow
def test_a_comparison_asks_every_slice_and_writes_its_run(small_corpus: Path, tmp_path: Path) -> None:
    """The new document's question is answered from it, though it was not in the index at first."""
    experiment = _experiment(tmp_path, TWO_ARMS.format(corpus=small_corpus))
    done = versus("compare", experiment, "--name", "first", "--workspace", tmp_path / "workspace", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert set(summary) == {
        "run", "experiment", "questions", "arms", "primary_metric", "pairs", "verdict", "environment",
    }  # fmt: skip
    arm = summary["arms"]["quotes"]
    assert set(arm) >= {"model", "generator", "overall", "slices", "latency", "tokens", "cost", "errors"}
    assert set(arm["slices"]) == {
        "trained", "paraphrase", "trained-page", "unseen-page", "new-document", "unanswerable",
    }  # fmt: skip
    assert set(arm["slices"]["trained"]["token_f1"]) == {"mean", "low", "high", "n"}
    folder = tmp_path / "workspace" / "runs" / "first"
    assert {"experiment.toml", "predictions.jsonl", "summary.json", "report.html"} <= {p.name for p in folder.iterdir()}
    asked = load_corpus(small_corpus).questions("test")
    new = [question.id for question in asked if question.slice == "new-document"]
    found = [p for p in read_predictions(folder / "predictions.jsonl") if p.question_id in new and p.arm == "quotes"]
    assert [prediction.documents[0].document for prediction in found] == ["recall"] * len(new)
    assert "10 days" in found[0].answer


@pytest.mark.slow
def test_a_killed_comparison_resumes_without_asking_twice(small_corpus: Path, tmp_path: Path) -> None:
    """SIGKILL after the first answers; --resume finishes, each question answered once by each arm."""
    experiment = _experiment(tmp_path, TWO_ARMS.format(corpus=small_corpus))
    arguments = ("compare", str(experiment), "--name", "killed", "--workspace", str(tmp_path / "workspace"))
    process = subprocess.Popen([*VERSUS, *arguments, "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    predictions = tmp_path / "workspace" / "runs" / "killed" / "predictions.jsonl"
    deadline = time.monotonic() + 120
    while not predictions.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {(p.arm, p.question_id) for p in read_predictions(predictions)}
    assert_clear_error(versus(*arguments), "continue it with --resume")
    assert versus(*arguments, "--resume").returncode == 0
    answered = [(p.arm, p.question_id) for p in read_predictions(predictions)]
    assert kept <= set(answered)
    assert len(answered) == len(set(answered)) == 2 * len(load_corpus(small_corpus).questions("test"))


@pytest.mark.slow
def test_what_a_resumed_run_finds_done_does_not_falsify_its_times(small_corpus: Path, tmp_path: Path) -> None:
    """Arms that had answered before a kill are timed all the same; the time of the re-indexing stays the true one.

    Each arm is charged for the index that it reads, and not for the other arm's.
    """
    comparison = Comparison.prepare(
        _experiment(tmp_path, TWO_ARMS.format(corpus=small_corpus)), Workspace(tmp_path / "workspace")
    )
    folder = comparison.run("first")
    record = read_record(folder)
    assert set(record["latency"]) == {"quotes", "whole pages"}
    assert record["started"] <= record["finished"]
    assert set(record["arms"]["whole pages"]["rag"]) > {"preset", "chunk_words", "top_k", "embedder_fingerprint"}
    for table in (record["indexing"], record["update"]):
        assert set(table["arms"]) == {"quotes", "whole pages"}
        assert table["seconds"] == pytest.approx(sum(table["arms"].values()))
        assert all(seconds > 0 for seconds in table["arms"].values())
    costs = {name: arm["cost"] for name, arm in read_summary(folder / "summary.json")["arms"].items()}
    assert {name: cost["indexing_seconds"] for name, cost in costs.items()} == record["indexing"]["arms"]
    assert {name: cost["update_seconds"] for name, cost in costs.items()} == record["update"]["arms"]
    path = folder / "predictions.jsonl"
    new = {question.id for question in comparison.questions if question.slice == "new-document"}
    kept = [p for p in read_predictions(path) if p.arm == "quotes" or p.question_id not in new]
    write_predictions(path, kept)
    (folder / "run.json").write_text(json.dumps({**record, "latency": {"whole pages": record["latency"]["quotes"]}}))
    resumed = read_record(comparison.run("first", resume=True))
    assert resumed["update"] == record["update"]
    assert resumed["latency"]["whole pages"] == record["latency"]["quotes"], "not timed a second time"
    assert resumed["latency"]["quotes"]["alone_p50"] > 0
    assert len(read_predictions(path)) == 2 * len(comparison.questions)
    (folder / "run.json").write_text(json.dumps({k: v for k, v in record.items() if k != "latency"}))
    assert set(read_record(comparison.run("first", resume=True))["latency"]) == {"quotes", "whole pages"}


def test_the_time_of_an_update_is_noted_where_something_was_taken_in() -> None:
    """One index of two arms is counted once; one that was current before keeps what was noted of it."""
    shared, current = IndexWork(2.0, 3), IndexWork(0.01, 0)
    first = updated(None, {"a": shared, "b": shared, "c": current}, 3)
    assert first == {"seconds": 2.0, "documents": 3, "arms": {"a": 2.0, "b": 2.0}}
    again = updated(first, {"a": current, "b": current, "c": IndexWork(1.0, 3)}, 3)
    assert again == {"seconds": 3.0, "documents": 3, "arms": {"a": 2.0, "b": 2.0, "c": 1.0}}
    assert updated(None, {"a": current}, 3) is None


@pytest.mark.slow
def test_two_runs_of_generating_arms_give_the_same_predictions(small_corpus: Path, tmp_path: Path) -> None:
    """Line for line, but for the times in them."""
    model = save_pocket_like(tmp_path / "model", positions=256)
    arms = "".join(
        f'[[arms]]\nname = "{kind}"\nkind = "{kind}"\nmodel = "{model}"\nmax_new_tokens = 12\n'
        for kind in ("base", "rag")
    )
    text = f'name = "lamp"\ncorpus = "{small_corpus}"\nbatch_size = 3\nlatency_probe = 0\n{arms}'
    comparison = Comparison.prepare(_experiment(tmp_path, text), Workspace(tmp_path / "workspace"))
    found = [
        [replace(p, seconds=0.0) for p in read_predictions(comparison.run(name) / "predictions.jsonl")]
        for name in ("one", "two")
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 2 * len(comparison.questions)
    assert all(p.error is None and p.completion_tokens for p in found[0])


@pytest.mark.slow
def test_labels_that_the_adapter_contradicts_stop_the_run(small_corpus: Path, tmp_path: Path) -> None:
    """An adapter trained on a subset makes the full labels wrong; naming the subset makes them right again."""
    model = save_pocket_like(tmp_path / "model", positions=256)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(f'[model]\nname = "{model}"\n[optimisation]\nmax_steps = 2\nbatch_size = 4\n')
    place = ("--workspace", tmp_path / "workspace")
    trained = versus("train", recipe, "--corpus", small_corpus, "--subset", "2", "--name", "tiny", *place, "--json")
    assert trained.returncode == 0, trained.stderr
    arm = f'[[arms]]\nname = "tuned"\nkind = "finetuned"\nmodel = "{model}"\nadapter = "tiny"\n'
    whole = _experiment(tmp_path, f'name = "lamp"\ncorpus = "{small_corpus}"\n{arm}')
    done = versus("compare", whole, *place)
    assert_clear_error(done, "labelled", "recomputed", "adapter tiny")
    subset = _experiment(tmp_path, f'name = "lamp"\ncorpus = "{small_corpus}"\nsubset = "2"\n{arm}')
    summary = json.loads(versus("compare", subset, *place, "--json").stdout)
    assert summary["arms"]["tuned"]["slices"]["trained"]["token_f1"]["n"] >= 1
    other = save_pocket_like(tmp_path / "other", seed=1, positions=256)
    wrong = _experiment(tmp_path, subset.read_text().replace(str(model), str(other)))
    assert_clear_error(versus("compare", wrong, *place), "tiny", "made for base model", "train it again")


@pytest.mark.slow
def test_what_training_left_out_is_not_asked_as_if_it_had_been_trained(small_corpus: Path, tmp_path: Path) -> None:
    """A question too long to train is named in the run record; no test question is asked whose label needs it."""
    model = save_pocket_like(tmp_path / "model", positions=256)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(f'[model]\nname = "{model}"\n[optimisation]\nmax_steps = 2\nbatch_size = 4\n')
    path = small_corpus / "questions" / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    fact = next(row["fact"] for row in rows if row["answers"])
    for row in rows:
        if row["fact"] == fact:
            row["answers"] = [row["answers"][0] + " very" * 400]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = ("--corpus", small_corpus, "--workspace", tmp_path / "workspace", "--name", "tiny", "--json")
    assert_clear_error(versus("train", recipe, *place), "longer than", "--leave-out-long")
    trained = versus("train", recipe, *place, "--leave-out-long")
    assert json.loads(trained.stdout)["left_out"] == sum(row["fact"] == fact for row in rows)
    text = f'name = "lamp"\ncorpus = "{small_corpus}"\n[[arms]]\nname = "t"\nkind = "finetuned"\nadapter = "tiny"\n'
    experiment = _experiment(tmp_path, text + f'model = "{model}"\n')
    asked = Comparison.prepare(experiment, Workspace(tmp_path / "workspace")).questions
    assert {question.slice for question in asked} >= {"trained", "paraphrase", "unseen-page"}
    assert not [question.id for question in asked if question.fact == fact and question.slice != "new-document"]


def test_a_subset_keeps_only_the_questions_whose_slice_holds_for_it(small_corpus: Path) -> None:
    """Paraphrases of facts outside the subset are left out; unseen pages stay."""
    corpus = load_corpus(small_corpus)
    arms = [{"name": "q", "kind": "rag-extractive"}]
    whole = experiment_from_mapping({"name": "e", "corpus": "c", "arms": arms})
    part = experiment_from_mapping({"name": "e", "corpus": "c", "arms": arms, "subset": "2"})
    facts = corpus.subset("2")
    kept = questions_of(part, corpus)
    assert len(kept) < len(questions_of(whole, corpus))
    assert {q.fact for q in kept if q.slice == "paraphrase"} <= facts
    assert [q for q in kept if q.slice == "unseen-page"] == [
        q for q in questions_of(whole, corpus) if q.slice == "unseen-page"
    ]
    assert {question.fact for question in training_questions(corpus, "2")} == set(facts)


@pytest.mark.slow
@pytest.mark.parametrize("short_context", [True, False])
def test_passages_for_training_hold_the_gold_one_among_distractors(
    small_corpus: Path, tmp_path: Path, short_context: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without withholding every answerable question sees its evidence; with it, some do not.

    A model of short context is shown sentences, any other whole chunks. They are looked for three questions at a time.
    """
    monkeypatch.setattr("comparison_app.training.AT_ONCE", 3)
    corpus, workspace = load_corpus(small_corpus), Workspace(tmp_path / "workspace")
    model = "pocket" if short_context else str(save_llama(tmp_path / "llama", positions=4096))

    def held(without_gold: float) -> list[bool]:
        data = {"context": True, "distractors": 1, "without_gold": without_gold, "reply": "answer-and-quote"}
        tables = {"model": {"name": model}, "data": data, "optimisation": {"max_steps": 1}}
        recipe = recipe_from_mapping(tables, name="r", source="test")
        passages = passages_for(recipe, corpus.questions("train"), corpus, workspace)
        texts = {document.id: document.content or "" for document in corpus.documents()}
        asked = [question for question in corpus.questions("train") if question.answerable]
        if short_context:
            assert all(1 <= len(passages(question).passages) <= 2 for question in asked)
            assert not any("›" in passage for question in asked for passage in passages(question).passages)
        else:
            assert all(len(passages(question).passages) == 2 for question in asked)
        seen = [
            any(
                texts[e.document][e.start : e.end] in passage
                for e in question.evidence
                for passage in passages(question).passages
            )
            for question in asked
        ]
        assert seen == [passages(question).holds_answer for question in asked]
        assert seen == [bool(passages(question).quote) for question in asked]
        return seen

    assert all(held(0.0))
    assert not all(held(0.6))


@pytest.mark.slow
def test_evidence_that_no_shown_sentence_holds_is_trained_in_the_first_place(
    small_corpus: Path, tmp_path: Path
) -> None:
    """Asked in words that lead elsewhere, a question still sees its evidence, and before what was found instead."""
    corpus, workspace = load_corpus(small_corpus), Workspace(tmp_path / "workspace")
    (own, other), texts = _of_two_documents(corpus), {doc.id: doc.content or "" for doc in corpus.documents()}
    astray = replace(own, question=other.question)
    data = {"context": True, "reply": "quote"}
    recipe = recipe_from_mapping({"model": {"name": "pocket"}, "data": data}, name="r", source="test")
    context = passages_for(recipe, [astray], corpus, workspace)(astray)
    evidence = own.evidence[0]
    assert len(context.passages) == 2
    assert context.passages[0] == context.quote == plain_text(texts[evidence.document][evidence.start : evidence.end])
    assert context.passages[1] != context.passages[0]


def _of_two_documents(corpus: Corpus) -> tuple[Question, Question]:
    """Return two train questions whose evidence stands in two documents."""
    asked = [question for question in corpus.questions("train") if question.answerable]
    other = next(each for each in asked if each.evidence[0].document != asked[0].evidence[0].document)
    return asked[0], other


def test_an_experiment_over_a_missing_corpus_is_refused(tmp_path: Path) -> None:
    """Nothing is made in the workspace."""
    path = _experiment(tmp_path, TWO_ARMS.format(corpus="nowhere"))
    with pytest.raises(VersusError, match="no corpus 'nowhere'"):
        Comparison.prepare(path, Workspace(tmp_path / "workspace"))
    assert not (tmp_path / "workspace").exists()
