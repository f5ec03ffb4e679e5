"""The command as its users meet it: help, one clear line for whatever is wrong, and a workspace that stays usable."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
from contextlib import closing
from pathlib import Path

import pytest

from comparison_app.cli import COMMANDS, build_parser
from tests.comparison_app.command import VERSUS, assert_clear_error, take_interrupts, versus
from tests.finetune.tiny import save_pocket_like


def test_every_command_has_help_with_an_example_and_stands_in_the_readme(
    capsys: pytest.CaptureFixture[str], repository: Path
) -> None:
    """`versus COMMAND --help` ends in an example; the README's table names the command."""
    readme = (repository / "README.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        parts = [name, "import"] if name == "questions" else [name]
        with pytest.raises(SystemExit) as stopped:
            build_parser().parse_args([*parts, "--help"])
        assert stopped.value.code == 0
        assert f"versus {name}" in capsys.readouterr().out.split("example:")[1]
        assert f"`versus {name}" in readme


def test_the_version_is_the_projects(capsys: pytest.CaptureFixture[str], repository: Path) -> None:
    """`versus --version` prints what pyproject.toml says, and needs no command."""
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(["--version"])
    declared = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"versus {declared}\n"


def test_usage_errors_exit_with_two() -> None:
    """An unknown command is a usage error, not a failure."""
    done = versus("fly")
    assert done.returncode == 2
    assert "invalid choice" in done.stderr


def test_help_imports_no_model_library() -> None:
    """`versus --help` loads neither torch nor haystack."""
    code = (
        "import sys\nfrom comparison_app.cli import build_parser\nbuild_parser().format_help()\n"
        "print([name for name in ('torch', 'haystack', 'transformers', 'rich', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_corpus_is_indexed_searched_and_asked(small_corpus: Path, tmp_path: Path) -> None:
    """Index, index again, search, ask: each says what it did, in JSON too; sources come with place and pictures."""
    battery = small_corpus / "documents" / "battery.md"
    battery.write_text(battery.read_text().replace("## Storage", "![The plug](../assets/plug.svg)\n\n## Storage"))
    (small_corpus / "assets").mkdir()
    (small_corpus / "assets" / "plug.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    place = ("--workspace", tmp_path / "workspace")
    first = json.loads(versus("index", small_corpus, "--json", *place).stdout)
    assert (first["added"], first["unchanged"]) == (4, 0)
    again = json.loads(versus("index", small_corpus, "--json", *place).stdout)
    assert (again["added"], again["unchanged"], again["embedded"]) == (0, 4, 0)
    found = json.loads(versus("search", "night mode", "--corpus", small_corpus, "--json", *place).stdout)["found"]
    assert found[0]["document"] == "brightness"
    asked = ("ask", "How long must the lamp charge before first use?", "--corpus", small_corpus, *place)
    answers = json.loads(versus(*asked, "--arms", "rag-extractive", "--json").stdout)["answers"]
    assert "4 hours" in answers[0]["answer"]
    span = answers[0]["documents"][0]
    assert span["document"] == "battery"
    assert [(each["status"], each["citations"]) for each in answers[0]["sentences"]] == [("supported", [1])]
    source = answers[0]["sources"][0]
    assert (source["title"], source["section"], source["page"]) == ("Battery", "Charging", None)
    assert "4 hours" in source["quotes"][0]
    assert [(each["title"], Path(each["path"]).name) for each in source["pictures"]] == [("The plug", "plug.svg")]
    shown = versus(*asked, "--arms", "rag-extractive").stdout
    assert "4 hours" in shown
    assert "Battery › Charging" in shown
    assert "picture: The plug, assets/plug.svg" in shown


def test_retrieval_is_measured_on_a_question_file(small_corpus: Path, tmp_path: Path) -> None:
    """The figures are of distinct documents; the new document's question cannot be found before it is taken in."""
    arguments = ("search", "--questions", small_corpus / "questions" / "test.jsonl", "--corpus", small_corpus, "--json")
    figures = json.loads(versus(*arguments, "--workspace", tmp_path / "workspace").stdout)
    assert 0.5 < figures["recall@1"] <= figures["recall@5"] < 1.0
    assert figures["seconds_per_query"] > 0
    assert {"mrr@10", "ndcg@10", "recall@10", "questions"} <= figures.keys()


def test_bad_input_is_one_clear_line(small_corpus: Path, tmp_path: Path) -> None:
    """A missing corpus, an empty one, unknown arms, an unknown adapter, an unknown run, an empty question."""
    place = ("--workspace", tmp_path / "workspace")
    assert_clear_error(versus("index", "nowhere", *place), "no corpus 'nowhere'", "versus scrape")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "corpus.toml").write_text("format_version = 1\n")
    assert_clear_error(versus("index", tmp_path / "empty", *place), "holds no documents")
    about = ("--corpus", small_corpus, *place)
    assert_clear_error(versus("ask", "Why?", "--arms", "magic", *about), "magic", "rag-extractive")
    assert_clear_error(
        versus("ask", "Why?", "--arms", "finetuned", *about), "no adapter was trained on", "versus train"
    )
    assert_clear_error(versus("ask", " ", *about), "the question is empty")
    assert_clear_error(versus("report", "nothing", *place), "no run 'nothing'")
    assert_clear_error(versus("search", *about), "give a query")


def test_broken_questions_stop_a_comparison_before_anything_is_asked(small_corpus: Path, tmp_path: Path) -> None:
    """File and line are named; no run folder is left."""
    with (small_corpus / "questions" / "test.jsonl").open("a") as file:
        file.write('{"id": "broken"\n')
    experiment = tmp_path / "e.toml"
    experiment.write_text(f'name = "e"\ncorpus = "{small_corpus}"\n[[arms]]\nname = "q"\nkind = "rag-extractive"\n')
    done = versus("compare", experiment, "--workspace", tmp_path / "workspace")
    assert_clear_error(done, "test.jsonl, line")
    assert not (tmp_path / "workspace" / "runs").exists()


def test_evidence_outside_its_document_stops_a_comparison(small_corpus: Path, tmp_path: Path) -> None:
    """File, line and document are named; no run folder is left."""
    path = small_corpus / "questions" / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    row = next(row for row in rows if row["evidence"])
    row["evidence"] = [{**row["evidence"][0], "start": 5, "end": 1_000_000}]
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    experiment = tmp_path / "e.toml"
    experiment.write_text(f'name = "e"\ncorpus = "{small_corpus}"\n[[arms]]\nname = "q"\nkind = "rag-extractive"\n')
    done = versus("compare", experiment, "--workspace", tmp_path / "workspace")
    assert_clear_error(done, "test.jsonl, line", "outside the document", row["evidence"][0]["document"])
    assert not (tmp_path / "workspace" / "runs").exists()


def test_an_index_of_another_embedder_is_refused_until_it_is_made_anew(small_corpus: Path, tmp_path: Path) -> None:
    """Indexing and searching both say so and name the way out, which works."""
    place = ("--workspace", tmp_path / "workspace")
    assert versus("index", small_corpus, *place).returncode == 0
    with closing(sqlite3.connect(tmp_path / "workspace" / "indexes" / small_corpus.name / "index.sqlite")) as store:
        store.execute("UPDATE settings SET value = 'another-model' WHERE key = 'embedder'")
        store.commit()
    for command in (("index", small_corpus), ("search", "night mode", "--corpus", small_corpus)):
        assert_clear_error(versus(*command, *place), "another-model", "--rebuild")
    assert versus("index", small_corpus, "--rebuild", *place).returncode == 0
    assert versus("search", "night mode", "--corpus", small_corpus, *place).returncode == 0


def test_an_unknown_recipe_key_is_named_with_the_file(small_corpus: Path, tmp_path: Path) -> None:
    """The message names the recipe file and the key."""
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[lora]\nrnak = 8\n[optimisation]\nepochs = 1\n")
    done = versus("train", recipe, "--corpus", small_corpus, "--workspace", tmp_path / "workspace")
    assert_clear_error(done, "mine.toml", "rnak")


def test_a_workspace_that_cannot_be_written_is_named(small_corpus: Path, tmp_path: Path) -> None:
    """A file stands where the workspace should be."""
    (tmp_path / "taken").write_text("")
    done = versus("index", small_corpus, "--workspace", tmp_path / "taken" / "workspace")
    assert_clear_error(done, str(tmp_path / "taken"))


def test_a_full_disk_leaves_the_last_index_readable(small_corpus: Path, tmp_path: Path) -> None:
    """Writes past a limit fail as on a full disk; afterwards the index of before still answers."""
    place = ("--workspace", tmp_path / "workspace")
    assert versus("index", small_corpus, *place).returncode == 0
    with (small_corpus / "documents" / "battery.md").open("a") as file:
        file.write("\n".join(f"\n## Part {n}\n\nThe part number {n} is kept in box {n * 7}.\n" for n in range(300)))

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))

    command = [*VERSUS, "index", str(small_corpus), "--workspace", str(tmp_path / "workspace")]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert_clear_error(done)
    found = json.loads(versus("search", "night mode", "--corpus", small_corpus, "--json", *place).stdout)["found"]
    assert found[0]["document"] == "brightness"


@pytest.mark.slow
def test_ctrl_c_while_indexing_is_one_line_and_the_same_command_goes_on(small_corpus: Path, tmp_path: Path) -> None:
    """Interrupted in the middle, exit code 1; run again, the index is whole."""
    for number in range(150):
        text = "\n\n".join(f"Paragraph {n} of page {number} tells of bolt {n * number}." for n in range(12))
        (small_corpus / "documents" / f"page-{number}.md").write_text(f"# Page {number}\n\n{text}\n")
    command = [*VERSUS, "index", str(small_corpus), "--workspace", str(tmp_path / "workspace"), "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=take_interrupts
    )
    index = tmp_path / "workspace" / "indexes" / small_corpus.name / "index.sqlite"
    deadline = time.monotonic() + 120
    while not index.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert_clear_error(subprocess.CompletedProcess(command, process.returncode, output, errors), "stopped")
    again = json.loads(versus("index", small_corpus, "--workspace", tmp_path / "workspace", "--json").stdout)
    assert again["added"] + again["unchanged"] == 154


@pytest.mark.slow
def test_ctrl_c_while_training_leaves_no_adapter_and_a_usable_workspace(small_corpus: Path, tmp_path: Path) -> None:
    """Interrupted between two steps: one line, no adapter that could be loaded; the next training works."""
    model = save_pocket_like(tmp_path / "model", positions=256)
    recipe = tmp_path / "long.toml"
    recipe.write_text(f'[model]\nname = "{model}"\n[optimisation]\nmax_steps = 100000\nbatch_size = 4\n')
    arguments = ("train", recipe, "--corpus", small_corpus, "--name", "a", "--workspace", tmp_path / "workspace")
    command = [*VERSUS, *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=take_interrupts
    )
    scratch = tmp_path / "workspace" / "adapters" / ".a.training"
    deadline = time.monotonic() + 120
    while not scratch.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(6)
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert_clear_error(subprocess.CompletedProcess(command, process.returncode, output, errors), "stopped")
    assert not (tmp_path / "workspace" / "adapters" / "a").exists()
    assert versus(*arguments, "--max-seconds", "10").returncode == 0
    assert (tmp_path / "workspace" / "adapters" / "a" / "run_record.json").exists()
