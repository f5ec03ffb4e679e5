"""Long work started by the app: watched, stopped, killed, and never two trainings at once."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from comparison_app.cli import main
from comparison_app.device_lock import only_training
from comparison_app.errors import ComparisonError, RunError
from comparison_app.experiment import ArmSpec, load_experiment
from comparison_app.experiment_form import estimate, slice_counts, write_experiment
from comparison_app.jobs import Job, Jobs, progress, training_progress, training_steps
from comparison_app.planning import ASSUMED_SECONDS
from comparison_app.run_table import NOBODY, TIE, chosen, read_rows
from comparison_app.workspace import Workspace, training_name
from data_prep.corpus import load_corpus
from finetune.models import default_device
from tests.comparison_app.command import assert_clear_error, versus
from tests.finetune.tiny import save_pocket_like


def _wait(jobs: Jobs, job: Job, state: str, seconds: float = 120) -> str:
    deadline = time.monotonic() + seconds
    while jobs.state(job).state != state and time.monotonic() < deadline:
        time.sleep(0.1)
    return jobs.state(job).state


@pytest.mark.slow
def test_a_killed_training_is_known_to_be_lost_and_can_be_resumed(small_corpus: Path, tmp_path: Path) -> None:
    """A second one is refused while it runs; killed, it counts as lost; resumed, it makes the adapter."""
    model = save_pocket_like(tmp_path / "model", positions=256)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(f'[model]\nname = "{model}"\n[optimisation]\nmax_steps = 4000\nbatch_size = 4\n')
    jobs = Jobs(Workspace(tmp_path / "workspace"))
    arguments = {"recipe": str(recipe), "corpus": str(small_corpus), "name": "tiny"}
    job = jobs.start("train", "tiny", arguments)
    with pytest.raises(ComparisonError, match="one job of the kind train"):
        jobs.start("train", "another", arguments)
    deadline = time.monotonic() + 120
    while len(progress(job)) < 30 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert progress(job)[-1]["step"] >= 30
    os.kill(json.loads((job.folder / "running.json").read_text())["pid"], signal.SIGKILL)
    assert _wait(jobs, job, "lost") == "lost"
    again = jobs.start("train", "tiny", {**arguments, "resume": True, "max_seconds": 1})
    assert _wait(jobs, again, "done") == "done", jobs.state(again)
    assert progress(again)[0]["step"] > 25
    assert jobs.state(again).result["adapter"] == "tiny"
    assert (tmp_path / "workspace" / "adapters" / "tiny" / "run_record.json").exists()


def test_a_job_that_fails_says_why(tmp_path: Path) -> None:
    """A scrape of something that is no address ends as failed, with the mend; the record stays."""
    jobs = Jobs(Workspace(tmp_path))
    job = jobs.start("scrape", "x", {"sources": ["file:///etc/passwd"], "into": "mine"})
    assert _wait(jobs, job, "failed", 60) == "failed"
    assert "http://" in jobs.state(job).message
    assert [item.id for item in Jobs(Workspace(tmp_path)).jobs("scrape")] == [job.id]
    assert jobs.find(job.id) == job
    assert jobs.find("nothing") is None


def test_two_trainings_do_not_share_a_device(tmp_path: Path) -> None:
    """The second is refused with who is first; another device is free, and so is this one once the first ends."""
    workspace = Workspace(tmp_path)
    with (
        only_training(workspace, "cpu", "lamp-live"),
        only_training(workspace, "cuda:0"),
        pytest.raises(ComparisonError, match=f"runs on cpu: process {os.getpid()} has trained lamp-live since 20"),
        only_training(workspace, "cpu"),
    ):
        pass
    with only_training(workspace, "cpu"):
        pass


_HOLD = """
import sys, time
from pathlib import Path
from comparison_app.device_lock import only_training
from comparison_app.workspace import Workspace
from finetune.models import default_device

with only_training(Workspace(Path(sys.argv[1])), default_device(), "from-the-app"):
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.mark.slow
def test_the_command_does_not_train_beside_another_process_and_does_once_it_was_killed(
    small_corpus: Path, tmp_path: Path
) -> None:
    """`versus train` names the process that trains; SIGKILL of that process frees the device."""
    model = save_pocket_like(tmp_path / "model", positions=256)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(f'[model]\nname = "{model}"\n[optimisation]\nmax_steps = 1\nbatch_size = 2\n')
    workspace = tmp_path / "workspace"
    command = ("train", recipe, "--corpus", small_corpus, "--name", "tiny", "--workspace", workspace, "--json")
    other = subprocess.Popen([sys.executable, "-c", _HOLD, str(workspace)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        assert_clear_error(versus(*command), "another training runs on", f"process {other.pid}", "from-the-app")
        assert not (workspace / "adapters" / "tiny" / "run_record.json").exists()
    finally:
        other.kill()
        other.wait(20)
    done = versus(*command)
    assert done.returncode == 0, done.stderr


def test_no_kind_of_training_runs_beside_another(
    small_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Preferences, pretraining, a classifier and an embedder are refused in one line, and no file is left."""
    workspace = Workspace(tmp_path / "workspace")
    votes, labels, text = tmp_path / "votes.jsonl", tmp_path / "labels.csv", tmp_path / "text.md"
    votes.write_text('{"prompt": "Is it blue?", "chosen": "No.", "rejected": "Yes."}\n')
    labels.write_text("text,label\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(40)))
    text.write_text("Press the button.\n" * 40)
    with only_training(workspace, default_device(), "lamp-live"):
        for arguments in (
            ["prefer", "pocket-dpo", "--corpus", small_corpus, "--data", votes, "--name", "x"],
            ["pretrain", "continual", "--text", text, "--name", "x"],
            ["train", "classifier", "--data", labels, "--name", "x"],
            ["train", "embedder", "--corpus", small_corpus, "--name", "x"],
        ):
            capsys.readouterr()
            assert main([*map(str, arguments), "--workspace", str(workspace.path), "--json"]) == 1
            assert f"process {os.getpid()} has trained lamp-live since" in capsys.readouterr().err, arguments
    assert not list(workspace.path.glob("adapters/*")) + list(workspace.path.glob("models/*"))


@pytest.mark.parametrize("name", ["", "../out", ".hidden", "a b", "x" * 81])
def test_names_cannot_leave_their_folder(name: str) -> None:
    """Names of adapters, runs and experiments are file names and no more."""
    with pytest.raises(ComparisonError, match="will not do"):
        training_name(name)


def test_an_experiment_is_put_together_and_estimated(small_corpus: Path, tmp_path: Path) -> None:
    """The file written is one that `versus compare` reads; an estimate appears once a run was measured."""
    workspace, corpus = Workspace(tmp_path / "workspace"), load_corpus(small_corpus)
    arms = [ArmSpec("rag-extractive", "rag-extractive", model=None), ArmSpec("rag", "rag", rag={"top_k": 3})]
    counts = slice_counts(corpus)
    path = write_experiment(workspace, "mine", corpus, arms, {name: min(2, count) for name, count in counts.items()})
    read = load_experiment(path)
    assert [arm.name for arm in read.arms] == ["rag-extractive", "rag"]
    assert dict(read.arm("rag").rag) == {"top_k": 3}
    assert read.new_documents == ("new-document" in counts)
    assert estimate(workspace, arms, 10).assumed == ("rag-extractive", "rag")
    with pytest.raises(ComparisonError, match="at least one slice"):
        write_experiment(workspace, "mine", corpus, arms, {})


def test_an_estimate_without_runs_is_by_prices_and_with_them_by_what_was_measured(tmp_path: Path) -> None:
    """Before any run an endpoint's answers cost at most what its limits allow; afterwards what was measured."""
    workspace = Workspace(tmp_path / "workspace")
    quotes = ArmSpec("quotes", "rag-extractive", model=None)
    there = {"model": "m", "endpoint": "http://127.0.0.1:9/v1", "max_new_tokens": 100}
    remote = ArmSpec("remote", "base", input_price=1.0, output_price=10.0, **there)  # type: ignore[arg-type]
    first = estimate(workspace, [quotes, remote], 10, "EUR")
    assert (first.assumed, first.untimed, first.unpriced, first.at_most) == (("quotes",), ("remote",), (), True)
    quoting = 10 * ASSUMED_SECONDS["rag-extractive"]
    assert first.cost == pytest.approx(10 * (84 * 1.0 + 100 * 10.0) / 1e6 + quoting * 0.10 / 3600)
    assert f"about {quoting:.0f} s (assumed for quotes), without remote: not run here yet" in first.in_words()
    assert first.in_words().endswith("; at most 0.0109 EUR.")
    assert "(assumed for QUOTES), without REMOTE" in first.in_words(str.upper)
    alone = estimate(workspace, [replace(remote, input_price=None, output_price=None)], 10)
    assert alone.in_words().endswith("how long they take is not known yet, nothing like it was run here.")
    told = {"model": None, "generator": quotes.generator, "latency": {"p50": 0.5, "p95": 1.0}}
    other = {"model": "m", "generator": remote.generator, "latency": {"p50": 2.0, "p95": 3.0}}
    priced = {"cost": {"per_question": 0.002, "currency": "EUR"}, "tokens": {"prompt": 400, "completion": 40}}
    summary = {"run": "one", "experiment": "e", "questions": 4, "arms": {"quotes": {**told, **priced}}, "pairs": []}
    summary["arms"] |= {"remote": {**other, **priced}}  # type: ignore[operator]
    summary |= {"primary_metric": "token_f1", "verdict": "", "environment": {}}
    (workspace.runs / "one").mkdir(parents=True)
    (workspace.runs / "one" / "summary.json").write_text(json.dumps(summary))
    then = estimate(workspace, [quotes, remote], 10, "EUR")
    assert (then.seconds, then.untimed, then.unpriced, then.at_most) == (25.0, (), (), False)
    assert then.cost == pytest.approx(10 * (100 * 1.0 + 10 * 10.0) / 1e6 + 5 * 0.10 / 3600)
    assert then.in_words() == "10 questions to 2 arms: 20 answers; about 25 s by earlier runs; about 0.0021 EUR."


def test_how_far_a_training_is_and_how_long_it_still_takes(tmp_path: Path) -> None:
    """By the pace of the steps so far; before the first step nothing is known."""
    job = Job("x", "train", "x", {}, "", tmp_path)
    assert training_progress(training_steps(job)) is None
    rows = [{"stage": "loading"}, {"step": 1, "total": 40, "loss": 3.0, "seconds": 9.0}]
    rows.append({"step": 10, "total": 40, "loss": 1.5, "seconds": 20.0})
    (tmp_path / "progress.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    far = training_progress(training_steps(job))
    assert far is not None
    assert (far.step, far.total, far.loss, far.seconds_left, far.share) == (10, 40, 1.5, 60.0, 0.25)


def test_finished_runs_are_listed_newest_first(tmp_path: Path) -> None:
    """A run without a summary is not finished; a comparison that kept its questions can be gone on from."""
    workspace = Workspace(tmp_path)
    for place, name in enumerate(("old", "new", "unfinished")):
        (workspace.runs / name).mkdir(parents=True)
        if name != "unfinished":
            (workspace.runs / name / "summary.json").write_text("{}")
            os.utime(workspace.runs / name / "summary.json", (place, place))
    assert workspace.finished_runs() == ["new", "old"]
    (workspace.runs / "unfinished" / "run.json").write_text("{}")
    begun = [Job("x", "compare", "x", {"name": name}, "", tmp_path) for name in ("unfinished", "old")]
    assert [Jobs(workspace).has_begun(job) for job in begun] == [True, False]


def test_a_run_is_read_question_by_question(tmp_path: Path) -> None:
    """Who won, ties, nobody; filters by slice, winner, error and words; a missing table names the mend."""
    _write_run(tmp_path / "one", {"q1": (1.0, 0.0), "q2": (0.5, 0.5), "q3": (0.0, 0.0)})
    rows = read_rows(tmp_path / "one")
    assert [row.winner for row in rows] == ["a", TIE, NOBODY]
    assert [row.id for row in chosen(rows, winner="a")] == ["q1"]
    assert [row.id for row in chosen(rows, errors=True)] == ["q3"]
    assert [row.id for row in chosen(rows, slices=["trained"], text="Q2 ")] == ["q2"]
    with pytest.raises(RunError, match="versus report"):
        read_rows(tmp_path)


def _write_run(folder: Path, credits: dict[str, tuple[float, float]]) -> None:
    folder.mkdir()
    fields = ["question_id", "slice", "document", "question", "gold", "arm", "answer", "declined", "error", "seconds"]
    with (folder / "questions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*fields, "credit"])
        for name, worth in credits.items():
            for arm, value in zip("ab", worth, strict=True):
                error = "lost" if name == "q3" else ""
                writer.writerow([name, "trained", "d", f"{name} asks", "gold", arm, "said", False, error, 0.1, value])
