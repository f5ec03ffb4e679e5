"""Work that the pages start and watch, without a browser: trainings, comparisons, scrapes; and who may come in."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import streamlit as st

from comparison_app.experiment import load_experiment
from comparison_app.jobs import Job, Jobs
from comparison_app.workspace import Workspace
from data_prep.atomic import write_text
from finetune.run_record import RunRecord, write_run_record
from tests.comparison_app.pages import html_of, job_at_work, labelled, lamp_workspace, opened, pages_of, press
from tests.small_corpus import write_small_corpus


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with the lamp's manual in it."""
    return lamp_workspace(tmp_path_factory.mktemp("jobs"))


@pytest.fixture(autouse=True)
def environment(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment that `versus app` gives its pages."""
    with pages_of(workspace, monkeypatch):
        yield
    for name in ("jobs", "runs", "adapters"):
        shutil.rmtree(workspace.path / name, ignore_errors=True)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are noted and never done: their processes are not started."""
    monkeypatch.setattr(Jobs, "_launch", lambda self, job: None)


@pytest.mark.usefixtures("idle")
def test_while_a_training_runs_no_second_one_is_started(workspace: Workspace) -> None:
    """A page opened before shows the one at work instead of starting another: step, loss, time left, Stop."""
    app = opened("train")
    steps = [{"step": n, "total": 10, "loss": 2.0 / n, "seconds": 3.0 * n} for n in (1, 2, 5)]
    with job_at_work(workspace, "train", steps):
        press(app, "Start training")
        assert len(Jobs(workspace).jobs("train")) == 1
        assert "Start training" not in {button.label for button in app.button}
        assert "Stop" in {button.label for button in app.button}
        told = "".join(str(item.proto) for item in app.get("progress"))
        assert "Step 5 of 10" in told and "loss 0.400" in told and "15 s left" in told
    app.run()
    assert [item for item in app.expander if item.label.replace("\\", "").startswith("the first: lost")]
    press(app, "Resume")
    assert Jobs(workspace).jobs("train")[0].arguments["resume"] is True


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(("kind", "page", "goes_on"), [("train", "train", True), ("compare", "compare", False)])
def test_a_click_on_resume_counts_though_the_page_begins_anew_and_twice_is_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, kind: str, page: str, goes_on: bool
) -> None:
    """A page that is cut short before it comes to the button has resumed the job all the same; twice is once."""
    with job_at_work(workspace, kind, []):
        pass  # and killed
    (lost,) = Jobs(workspace).jobs(kind)
    app = opened(page)
    with monkeypatch.context() as cut:
        cut.setattr("comparison_app.web.look.page_title", lambda *words: st.stop())
        press(app, "Resume")
    resumed = Jobs(workspace).resume(lost)
    assert [job.id for job in Jobs(workspace).jobs(kind)] == [resumed.id, lost.id]
    assert resumed.arguments == {"name": "first", "resume": goes_on}


@pytest.mark.usefixtures("idle")
def test_a_training_with_a_bad_name_is_refused_in_words(workspace: Workspace) -> None:
    """Nothing is started; the page says what a name may hold. With a good one the job holds what was chosen."""
    app = opened("train")
    labelled(app.text_input, "Name of the adapter").set_value("../../etc")
    press(app, "Start training")
    assert "will not do" in app.error[0].value
    assert not Jobs(workspace).jobs("train")
    labelled(app.text_input, "Name of the adapter").set_value("mine")
    labelled(app.number_input, "Stop after seconds (0: as the recipe says)").set_value(30)
    press(app, "Start training")
    (job,) = Jobs(workspace).jobs("train")
    assert job.arguments == {
        "recipe": "pocket-live",
        "corpus": str((workspace.corpora / "lamp").resolve()),
        "name": "mine",
        "subset": None,
        "max_seconds": 30,
    }


def test_adapters_stand_there_with_their_run_records(workspace: Workspace) -> None:
    """The table tells what each was trained on; a record that cannot be read is named, and the others stay."""
    record = RunRecord(
        recipe={"name": "pocket-live"},
        base_model="pocket",
        base_fingerprint="f00d",
        data_sha256="beef",
        trained_ids=("q1", "q2"),
        seed=7,
        device="cpu",
        started="2026-01-02T10:00:00",
        finished="2026-01-02T10:01:00",
        seconds=60.0,
        steps=40,
        epochs=2.0,
        trained_tokens=900,
        losses=((1, 3.5), (40, 0.25)),
    )
    for name, found in (("mine", record), ("read", replace(record, context=True))):
        write_run_record(workspace.adapters / name, found)
    (workspace.adapters / "torn").mkdir()
    (workspace.adapters / "torn" / "run_record.json").write_text("{")
    app = opened("train")
    assert not app.exception
    shown = html_of(app)
    shown = shown.replace(" class=wide", "")
    assert "<td>mine</td><td>pocket</td><td>closed book</td><td>2</td><td>40</td><td>0.250</td><td>60 s</td>" in shown
    assert "<td>read</td><td>pocket</td><td>with context</td>" in shown
    assert "torn" in app.warning[0].value and "<td>torn</td>" not in shown
    labelled(app.selectbox, "Run record of").select("mine").run()
    assert not app.exception
    told = json.loads(app.json[0].value)
    assert (told["data_sha256"], told["base"], told["seed"], told["device"]) == ("beef", "f00d", 7, "cpu")


@pytest.mark.usefixtures("idle")
def test_a_comparison_is_put_together_and_started(workspace: Workspace) -> None:
    """The arms, slices and numbers chosen are those of the experiment written; with no arm it is refused in words."""
    app = opened("compare", tab="New comparison")
    labelled(app.button_group, "Arms").set_value([])
    press(app, "Start the comparison")
    assert "choose at least one arm" in app.error[0].value
    assert not Jobs(workspace).jobs("compare")
    labelled(app.button_group, "Arms").set_value(["rag-extractive", "base"])
    labelled(app.button_group, "Slices").set_value(["trained", "unanswerable"])
    app.slider[0].set_value(2)
    labelled(app.text_input, "Name").set_value("small")
    app.run()
    assert "4 questions to 2 arms: 8 answers" in app.caption[0].value.replace("\\", "")
    press(app, "Start the comparison")
    (job,) = Jobs(workspace).jobs("compare")
    experiment = load_experiment(Path(job.arguments["experiment"]))
    assert [arm.name for arm in experiment.arms] == ["rag-extractive", "base"]
    assert dict(experiment.sample) == {"trained": 2, "unanswerable": 2}
    assert job.title.startswith("small-") and job.title in "".join(item.value for item in app.markdown)


def test_an_address_of_what_is_gone_says_so(workspace: Workspace) -> None:
    """Neither another corpus nor another run is shown as if it were the one asked for."""
    _finished_run(workspace, "done")
    app = opened("compare", tab="Questions", run="gone-run", corpus="lamp")
    assert "no finished run gone-run" in app.warning[0].value.replace("\\", "") and app.selectbox[0].value == "done"
    app = opened("documents", corpus="gone")
    assert "There is no corpus gone here" in app.warning[0].value and app.selectbox[0].value == "lamp"
    assert not opened("documents", corpus="lamp").warning


def _finished_run(workspace: Workspace, name: str) -> None:
    """Write a run of three questions: quotes wins one, both fail at one, one arm has an error."""
    rows = [
        ("q1", "trained", "What is <b>wiped</b>?", "quotes", "The shade.", 1.0, ""),
        ("q1", "trained", "What is <b>wiped</b>?", "memory", "The box.", 0.0, ""),
        ("q2", "unseen-page", "What glows?", "quotes", "Nothing.", 0.0, ""),
        ("q2", "unseen-page", "What glows?", "memory", "", 0.0, "no <i>endpoint</i>"),
        ("q3", "trained", "What charges?", "quotes", "The lamp.", 1.0, ""),
        ("q3", "trained", "What charges?", "memory", "The lamp.", 1.0, ""),
    ]
    names = ("question_id", "slice", "question", "arm", "answer", "credit", "error", "gold", "declined", "seconds")
    run = workspace.runs / name
    run.mkdir(parents=True)
    (run / "summary.json").write_text("{}")
    with (run / "questions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([*row, "gold", False, 0.5] for row in rows)


def test_questions_of_a_run_are_filtered(workspace: Workspace) -> None:
    """By slice, by who won, by errors, by words; each question shows all answers as text; nothing left is said."""
    _finished_run(workspace, "done")
    app = opened("compare", tab="Questions", run="done")
    assert not app.exception and app.caption[0].value == "3 of 3 questions"
    assert "no &lt;i&gt;endpoint" in html_of(app) and "<i>endpoint" not in html_of(app)
    labelled(app.multiselect, "Slices").set_value(["trained"]).run()
    assert app.caption[0].value == "2 of 3 questions"
    labelled(app.selectbox, "Who won").set_value("quotes").run()
    assert app.caption[0].value == "1 of 3 questions" and "wiped" in app.expander[0].label
    labelled(app.checkbox, "Errors only").set_value(True).run()
    assert "No question fits" in html_of(app)
    labelled(app.selectbox, "Who won").set_value(None)
    labelled(app.multiselect, "Slices").set_value([]).run()
    assert app.caption[0].value == "1 of 3 questions" and "glows" in app.expander[0].label
    labelled(app.checkbox, "Errors only").set_value(False)
    labelled(app.text_input, "Words in the question").set_value("CHARGES").run()
    assert not app.exception and "charges" in app.expander[0].label


def test_a_site_is_fetched_into_a_new_corpus(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job holds address and name; when it is done the page says what comes next; a bad name starts nothing."""

    def fetched(jobs: Jobs, job: Job) -> None:
        write_small_corpus(workspace.corpora / job.arguments["into"])
        write_text(job.folder / "result.json", json.dumps({"state": "done", "message": "", "result": {}}))

    monkeypatch.setattr(Jobs, "_launch", fetched)
    app = opened("documents", tab="Add")
    labelled(app.text_input, "Into which corpus?").set_value("../site")
    labelled(app.text_input, "Address").set_value("https://example.com/manual")
    press(app, "Fetch the pages")
    assert "will not do" in app.error[0].value and not Jobs(workspace).jobs("scrape")
    labelled(app.text_input, "Into which corpus?").set_value("site")
    press(app, "Fetch the pages")
    (job,) = Jobs(workspace).jobs("scrape")
    assert job.arguments == {"sources": ["https://example.com/manual"], "into": "site"}
    assert any("done; index the corpus to ask it" in item.value for item in app.caption)
    found = opened("documents", corpus="site")
    assert found.selectbox[0].value == "site" and "<h1>" in html_of(found)


def test_the_whole_app_is_behind_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a page's title nor the arms are shown before it; after it the page is there, at the first look too."""
    monkeypatch.setenv("VERSUS_APP_PASSWORD", "open sesame")
    monkeypatch.setattr("comparison_app.web.session.warm_up", lambda: None)
    app = opened("app")
    assert not app.exception
    assert [title.value for title in app.title] == ["Versus"] and not app.selectbox
    app.text_input[0].set_value("guess")
    press(app, "Log in")
    assert "not the password" in app.error[0].value and not app.selectbox
    app.text_input[0].set_value("open sesame")
    press(app, "Log in")
    assert [title.value for title in app.title] == ["Ask"]
    assert app.text_input(key="question") is not None


def test_a_mistake_of_the_apps_own_is_said_without_what_it_was(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """The page says how to go on; what went wrong stands in the log alone."""

    def broken() -> None:
        raise KeyError("a secret")

    monkeypatch.setattr("comparison_app.web.session.warm_up", lambda: None)
    monkeypatch.setattr("comparison_app.web.session.pick_corpus", broken)
    app = opened("app")
    assert not app.exception
    assert "The page Ask met a mistake of Versus itself" in app.error[0].value and "secret" not in app.error[0].value
    assert "a secret" in caplog.text
