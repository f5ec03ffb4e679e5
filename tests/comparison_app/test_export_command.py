"""`versus export` and `versus train classifier`, through the command."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from comparison_app import cli
from comparison_app.classifier_training import open_classifier
from comparison_app.errors import ComparisonError
from comparison_app.exporting import card_scores
from comparison_app.workspace import BUNDLED_ADAPTERS, Workspace
from finetune.classifier import predict
from finetune.models import load_base
from finetune.training import train_adapter
from tests.finetune.test_training import recipe
from tests.finetune.tiny import questions, save_llama
from tests.finetune.tiny_gguf import STAND_IN


def _run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, object]:
    """Run `versus … --json` in this process and return what it printed."""
    code = cli.main([*map(str, arguments), "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    told: dict[str, object] = json.loads(printed.out)
    return told


@pytest.mark.slow
def test_the_bundled_adapter_goes_out_in_every_way_it_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Merged equals base and adapter, with both's memory and speed; int8 is smaller, its loss of token F1 measured."""
    workspace = Workspace(tmp_path / "ws")
    place = ("--workspace", workspace.path)
    merged = _run(capsys, "export", "tern-full", "--to", "merged", "--questions", "4", *place)
    before, after = (merged["figures"][side] for side in ("before", "after"))  # type: ignore[index]
    assert before["questions"] == after["questions"] == 4
    assert before["memory_bytes"] > after["memory_bytes"] > 0, "an adapter beside its base takes more than both in one"
    assert min(before["tokens_per_second"], after["tokens_per_second"]) > 0
    assert merged["largest_difference"] < 1e-2  # type: ignore[operator]
    assert (workspace.models / "tern-full-merged" / "model.safetensors").is_file()
    small = _run(capsys, "export", "tern-full", "--to", "int8", "--questions", "4", *place)
    embeddings = 2 * sum(table.numel() for table in load_base("pocket").base_model.embeddings.parameters())
    assert small["size_bytes"] - embeddings < 0.55 * (small["size_before"] - embeddings)  # type: ignore[operator]
    figures = small["figures"]
    assert isinstance(figures, dict)
    assert figures["before"]["questions"] == figures["after"]["questions"] == 4
    assert figures["f1_lost"] == pytest.approx(figures["before"]["token_f1"] - figures["after"]["token_f1"])
    assert min(figures[side]["tokens_per_second"] for side in ("before", "after")) > 0


def test_a_dry_run_shows_what_would_be_pushed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder holds the adapter with its card, named as the repository; nothing is asked of a network."""
    told = _run(capsys, "export", "tern-full", "--to", "hub", "--repo", "me/tern", "--dry-run", "--workspace", tmp_path)
    assert told["pushed"] is None
    card = (tmp_path / "models" / "tern-full-hub" / "README.md").read_text()
    assert card.startswith('---\nlicense: "other"\n')
    assert "# tern\n" in card
    weights = (tmp_path / "models" / "tern-full-hub" / "adapter_model.safetensors").read_bytes()
    assert weights == (BUNDLED_ADAPTERS / "tern-full" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "options", [("--to", "merged"), ("--to", "int8"), ("--to", "hub", "--dry-run"), ("--to", "ollama")]
)
def test_a_folder_of_other_things_is_never_exported_into(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    """`--into` names a folder that is replaced as a whole, so one that was not made here is refused."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "thesis.txt").write_text("years of work")
    arguments = ["export", "tern-full", *options, "--into", str(tmp_path / "docs"), "--workspace", str(tmp_path / "ws")]
    assert cli.main(arguments) == 1
    assert "holds what Versus did not make" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["docs", "thesis.txt"]


def test_an_adapter_is_never_replaced_by_what_is_made_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A merged model in the adapter's own folder would leave no adapter."""
    adapter = tmp_path / "mine"
    shutil.copytree(BUNDLED_ADAPTERS / "tern-full", adapter)
    before = {path.name: path.read_bytes() for path in adapter.iterdir()}
    arguments = ["export", str(adapter), "--to", "merged", "--into", str(adapter), "--workspace", str(tmp_path / "ws")]
    assert cli.main(arguments) == 1
    assert "is the adapter itself: name another folder" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in adapter.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", "gguf"), "llama.cpp has no architecture for BertGenerationDecoder"),
        (("--to", "ollama"), "llama.cpp has no architecture for BertGenerationDecoder"),
        (("--to", "hub"), "--to hub needs --repo OWNER/NAME"),
        (("--to", "hub", "--repo", "tern"), "is no OWNER/NAME"),
        (("--to", "hub", "--dry-run", "--run", "none"), "no run 'none'"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    """Each names what is wrong, and nothing is written."""
    assert cli.main(["export", "tern-full", *arguments, "--workspace", str(tmp_path / "ws")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "ws").exists()


@pytest.mark.slow
def test_a_classifier_is_trained_on_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the bundled embedder it tells apart what was labelled, and lies beside its ONNX; without --data it says so.

    Asked to go on, a head says that it starts anew, and does.
    """
    rows = {
        "price": ["How much is it?", "What does it cost?", "Is the price fixed?", "Any discount for cash?"],
        "place": ["Where can I see it?", "Which town are you in?", "Can I pick it up today?", "What is the address?"],
    }
    data = tmp_path / "intents.jsonl"
    lines = [json.dumps({"text": text, "label": label}) for label, texts in rows.items() for text in texts]
    data.write_text("\n".join(lines) + "\n")
    command = ["train", "classifier", "--data", data, "--onnx", "--resume", "--json", "--workspace", tmp_path / "ws"]
    assert cli.main([str(part) for part in command]) == 0
    printed = capsys.readouterr()
    assert "it starts anew" in printed.err
    told = json.loads(printed.out)
    folder = Path(str(told["path"]))
    assert told["onnx_difference"] < 1e-5
    assert (folder / "classifier.onnx").is_file()
    asked = ["What do you want for it?", "In which city is it?"]
    assert predict(open_classifier(folder), asked) == ["price", "place"]
    assert cli.main(["train", "classifier", "--workspace", str(tmp_path / "ws")]) == 1
    assert "--data FILE" in capsys.readouterr().err
    assert cli.main(["train", "pocket", "--data", str(data), "--workspace", str(tmp_path / "ws")]) == 1
    assert "belong to recipes of classifiers" in capsys.readouterr().err


def test_what_only_adapters_have_is_refused_for_other_recipes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Classifiers and embedders train in one process, classifiers on a file: other options are not left aside."""
    for name in ("classifier", "embedder"):
        assert cli.main(["train", name, "--leave-out-long", "--launch", "--workspace", str(tmp_path)]) == 1
        assert "--launch, --leave-out-long is for adapters: leave it out" in capsys.readouterr().err
    assert cli.main(["train", "classifier", "--max-seconds", "9", "--subset", "60", "--workspace", str(tmp_path)]) == 1
    assert "--subset, --max-seconds is not for classifiers" in capsys.readouterr().err


@pytest.mark.slow
def test_a_llama_goes_to_llama_cpp_and_ollama(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The merged model is handed to the converter; Ollama gets its safetensors and a Modelfile with its template."""
    script = tmp_path / "convert_hf_to_gguf.py"
    script.write_text(STAND_IN)
    monkeypatch.setenv("LLAMA_CPP", str(script))
    workspace = Workspace(tmp_path / "ws")
    model = save_llama(tmp_path / "llama")
    train_adapter(recipe(model, max_steps=1), questions(), workspace.adapters / "tiny")
    place = ("--workspace", workspace.path)
    made = _run(capsys, "export", "tiny", "--to", "gguf", "--type", "f32", *place)
    assert made["file"] == str(workspace.models / "tiny-gguf" / "tiny-f32.gguf")
    assert Path(str(made["file"])).read_bytes().startswith(b"GGUF")
    told = _run(capsys, "export", "tiny", "--to", "ollama", *place)
    assert (told["weights"], told["template"]) == (".", "versus")
    files = {path.name for path in (workspace.models / "tiny-ollama").iterdir()}
    assert {"Modelfile", "model.safetensors", "tokenizer.json", "config.json"} <= files


def test_scores_in_a_card_are_of_these_very_weights(tmp_path: Path) -> None:
    """A run's scores by slice are taken over; a run of other weights, or without the adapter, is refused."""
    workspace = Workspace(tmp_path)
    folder = workspace.runs / "r1"
    folder.mkdir(parents=True)
    experiment = 'name = "r"\ncorpus = "tern-manual"\nprimary_metric = "token_f1"\n[[arms]]\nname = "mine"\n'
    (folder / "experiment.toml").write_text(experiment + 'kind = "finetuned"\nadapter = "tern-full"\n')
    weights = (BUNDLED_ADAPTERS / "tern-full" / "adapter_model.safetensors").read_bytes()
    figures = {"token_f1": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 9}, "rouge_l": {"mean": 0.1, "n": 9}}
    summary = {
        "arms": {"mine": {"slices": {"paraphrase": figures}}},
        "environment": {"adapters": {"tern-full": {"weights_sha256": hashlib.sha256(weights).hexdigest()}}},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    scores = card_scores(workspace, "r1", "tern-full")
    assert [(s.slice, s.metric, s.mean, s.low, s.high, s.n) for s in scores] == [
        ("paraphrase", "token_f1", 0.5, 0.4, 0.6, 9)
    ]
    with pytest.raises(ComparisonError, match="no arm of this run used adapter tern-raft"):
        card_scores(workspace, "r1", "tern-raft")
    summary["environment"] = {"adapters": {"tern-full": {"weights_sha256": "0" * 64}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ComparisonError, match="another version of adapter tern-full"):
        card_scores(workspace, "r1", "tern-full")
