"""`versus tokenizer` and `versus pretrain`: from somebody's text to a base model that every command takes by name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from comparison_app.cli import main
from finetune.models import MODELS_VARIABLE, model_folder
from finetune.run_record import read_run_record
from tests.comparison_app.command import VERSUS, assert_clear_error, take_interrupts
from tests.finetune.tiny import save_llama, save_pocket_like

RECIPE = """
[model]
name = "{model}"
dtype = "float32"
[text]
files = ["{text}"]
validation_share = 0.1
[pretraining]
steps = {steps}
rows = 2
row_length = 32
learning_rate = 3e-3
warmup_steps = 2
checkpoint_every = 5
"""


@pytest.fixture
def manuals(tmp_path: Path) -> Path:
    """A folder of Russian text."""
    folder = tmp_path / "manuals"
    folder.mkdir()
    for number in range(30):
        text = f"Нажмите кнопку {number} и удерживайте её, пока не загорится синий индикатор. " * 4
        (folder / f"{number}.md").write_text(f"# Страница {number}\n\n{text}\n")
    return folder


def write_recipe(folder: Path, model: Path | str, text: Path, steps: int = 12) -> Path:
    """Write a small recipe and return its path."""
    path = folder / "small.toml"
    path.write_text(RECIPE.format(model=model, text=text, steps=steps))
    return path


def test_a_base_model_is_adapted_step_by_step(
    manuals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vocabulary, swap, fertility, pretraining: each finds by name what the step before made."""
    monkeypatch.setenv(MODELS_VARIABLE, "")
    place = ["--workspace", str(tmp_path / "workspace"), "--json"]
    base = save_llama(tmp_path / "llama")

    def run(*arguments: object) -> dict[str, object]:
        capsys.readouterr()
        assert main([*map(str, arguments), *place]) == 0
        found: dict[str, object] = json.loads(capsys.readouterr().out)
        return found

    made = run("tokenizer", "train", manuals, "--name", "russian", "--vocabulary", 400, "--positions", 128)
    assert made["documents"] == 30
    swapped = run("tokenizer", "swap", base, "russian", "--name", "llama-russian")
    assert swapped["new_vocabulary"] == made["vocabulary"]
    table = run("tokenizer", "fertility", f"ru={manuals}", "--tokenizers", f"{base},llama-russian,russian")["ru"]
    assert isinstance(table, dict)
    assert table["russian"] == table["llama-russian"]
    assert table["russian"]["words_per_token"] > 1.5 * table[str(base)]["words_per_token"]
    recipe = write_recipe(tmp_path, "llama-russian", manuals)
    trained = run("pretrain", recipe, "--name", "russian-manuals")
    assert trained["steps"] == 12
    assert isinstance(trained["after"], dict)
    assert isinstance(trained["before"], dict)
    assert trained["after"]["bits_per_character"] < trained["before"]["bits_per_character"]
    assert model_folder("russian-manuals") == (tmp_path / "workspace" / "models" / "russian-manuals").resolve()
    again = run("pretrain", recipe, "--model", "russian-manuals", "--steps", 4, "--name", "twice")
    assert again["steps"] == 4


def save_encoder(folder: Path) -> Path:
    """Save a BERT encoder of two layers with random weights and a WordPiece vocabulary, as MiniLM is one."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "aeiourst"),
    ]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=128, **size)).save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=128).save_pretrained(folder)
    return folder


def test_an_encoder_becomes_a_causal_model_by_three_commands(
    manuals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vocabulary, swap and pretraining of an encoder, as pocket was made; the record says what was forgotten."""
    from comparison_app.preparing import general_checks
    from comparison_app.workspace import Workspace
    from finetune.forgetting import multiple_choice_score
    from finetune.models import load_base, load_tokenizer

    monkeypatch.setenv(MODELS_VARIABLE, "")
    encoder, workspace = save_encoder(tmp_path / "encoder"), tmp_path / "workspace"
    for line in (
        ("tokenizer", "train", f"{manuals}=0.9", "--name", "words", "--vocabulary", 300, "--positions", 128),
        ("tokenizer", "swap", encoder, "words", "--as-decoder", "--layers", "0,1,1", "--name", "decoder"),
        ("pretrain", write_recipe(tmp_path, "decoder", manuals, steps=8), "--name", "made"),
    ):
        capsys.readouterr()
        assert main([*map(str, line), "--workspace", str(workspace), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["after"]["bits_per_character"] < told["before"]["bits_per_character"]
    checks = general_checks(Workspace.resolve(str(workspace)))
    scores = [
        multiple_choice_score(load_base(name, dtype="float32"), load_tokenizer(name), checks, max_length=128)
        for name in ("decoder", "made")
    ]
    assert told["general"] == {"before": scores[0], "after": scores[1], "questions": len(checks)}
    assert read_run_record(workspace / "models" / "made").forgetting == told["general"]
    model, tokenizer = load_base("made"), load_tokenizer("made")
    assert type(model).__name__ == "BertGenerationDecoder"
    assert model.config.num_hidden_layers == 3
    with pytest.raises(SystemExit, match="2"):
        main(["tokenizer", "swap", "a", "b", "--as-decoder", "--layers", "one", "--name", "c"])
    assert "not a list of layers such as 0,2,4,5" in capsys.readouterr().err
    prompt = tokenizer("Нажмите", return_tensors="pt")["input_ids"]
    assert model.generate(input_ids=prompt, max_new_tokens=3, do_sample=False).shape[1] > prompt.shape[1]


def test_a_model_without_a_chat_template_is_not_asked_and_the_record_says_so(
    manuals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base model is pretrained all the same."""
    monkeypatch.setenv(MODELS_VARIABLE, "")
    base = save_llama(tmp_path / "llama")
    for name in ("chat_template.jinja", "chat_template.json"):
        (base / name).unlink(missing_ok=True)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    recipe = write_recipe(tmp_path, base, manuals, steps=4)
    assert main(["pretrain", str(recipe), "--name", "x", "--workspace", str(tmp_path / "workspace")]) == 0
    assert "the model has no chat template" in capsys.readouterr().out.replace("\n", " ")
    record = read_run_record(tmp_path / "workspace" / "models" / "x")
    assert record.forgetting is None
    assert record.forgetting_unasked == "the model has no chat template to ask them in"


def test_people_get_tables(
    manuals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --json: what was trained, where embeddings came from, how much a token holds, what training brought."""
    monkeypatch.setenv(MODELS_VARIABLE, "")
    monkeypatch.setenv("COLUMNS", "120")
    place = ["--workspace", str(tmp_path / "workspace")]
    base = str(save_pocket_like(tmp_path / "base"))
    for arguments, words in (
        (["tokenizer", "train", str(manuals), "--name", "ru", "--vocabulary", "300"], ["300 tokens", "30 documents"]),
        (
            ["tokenizer", "swap", base, "ru", "--name", "m", "--initialisation", "random"],
            ["mean of pieces", "pretrain"],
        ),
        (["tokenizer", "fertility", str(manuals), "--tokenizers", f"{base},ru"], ["ru", "words/token"]),
        (["pretrain", str(write_recipe(tmp_path, "m", manuals, 6))], ["bits per character", "m-small", "6 steps"]),
    ):
        assert main([*arguments, *place]) == 0
        shown = capsys.readouterr().out
        assert all(word in shown for word in words), shown


def test_wrong_input_is_one_line_and_leaves_nothing(
    manuals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text, tokenizer, model and recipe that are not there or not right."""
    monkeypatch.setenv(MODELS_VARIABLE, "")
    workspace = tmp_path / "workspace"
    recipe = tmp_path / "wrong.toml"
    recipe.write_text(f'[text]\nfiles = ["{manuals}"]\nfield = 3\n[pretraining]\nsteps = 0\nlearn_rate = 1\n')
    base = str(save_llama(tmp_path / "llama"))
    for arguments, words in (
        (["tokenizer", "train", str(tmp_path / "gone"), "--name", "x"], ["no such file"]),
        (["tokenizer", "train", str(manuals), "--name", "x", "--vocabulary", "100"], ["at least 261"]),
        (["tokenizer", "train", str(manuals), "--name", "x", "--share", "2"], ["share is 2.0"]),
        (["tokenizer", "train", f"{manuals}=1.5", "--name", "x"], ["share is 1.5"]),
        (["tokenizer", "swap", base, "./gone", "--name", "x"], ["./gone", "no model there"]),
        (["tokenizer", "fertility", str(manuals), "--tokenizers", "./gone"], ["no model there"]),
        (["pretrain", "continaul", "--text", str(manuals)], ["continaul", "continual"]),
        (["pretrain", "continual"], ["names no text"]),
        (["pretrain", str(recipe)], ["wrong.toml", "text.field must be text", "steps must be", "learn_rate"]),
        (["pretrain", "continual", "--text", str(manuals), "--general", str(manuals)], ["replay is 0"]),
        (["pretrain", "continual", "--text", str(manuals), "--model", base], ["row_length is 256", "lower it"]),
    ):
        assert main([*arguments, "--workspace", str(workspace), "--json"]) == 1
        errors = capsys.readouterr().err
        lines = [line for line in errors.splitlines() if line.startswith("versus: error: ")]
        assert len(lines) == 1, errors
        assert all(word in lines[0] for word in words), lines[0]
    assert not list(workspace.glob("*/[!.]*"))


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "{}/elsewhere"])
@pytest.mark.parametrize(
    "command",
    [
        ["tokenizer", "train", "texts"],
        ["tokenizer", "swap", "pocket", "pocket"],
        ["train", "pocket-live"],
        ["prefer", "pocket-dpo"],
        ["pretrain", "continual"],
        ["compare", "quick"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_name_that_is_no_name_is_refused_before_anything_is_read(
    command: list[str], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty name would be the folder of all tokenizers, models or adapters; a path leaves the workspace."""
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--name", name.format(tmp_path), "--workspace", str(tmp_path / "workspace")])
    assert stopped.value.code == 2
    assert "argument --name: the name" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("command", "tables"), [("train", "[optimisation]\nepochs = 1\n"), ("pretrain", "")])
def test_processes_of_a_launch_take_any_default_name(
    command: str, tables: str, small_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe's file may be called what no `--name` may; its processes find the name as one process does."""
    recipe = tmp_path / "my recipe.toml"
    recipe.write_text(f'{tables}[model]\nname = "pocket"\n')
    lines: list[list[str]] = []
    monkeypatch.setattr(f"comparison_app.commands.{command}.launch", lambda _, __, line: lines.append(line) or 0)
    given = ["--corpus", str(small_corpus)] if command == "train" else ["--text", str(recipe), "--steps", "60"]
    place = ["--workspace", str(tmp_path / "workspace")]
    assert main([command, str(recipe), *given, *place, "--launch", "--processes", "1"]) == 0
    assert "--name" not in lines[0]
    assert main([command, str(recipe), *given, *place, "--launch", "--processes", "1", "--name", "mine"]) == 0
    assert lines[1][lines[1].index("--name") + 1] == "mine"


@pytest.mark.slow
def test_two_processes_pretrain_what_one_does(
    manuals: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --launch the losses, tokens and figures are those of one process; nothing else is left behind."""
    monkeypatch.setenv(MODELS_VARIABLE, "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    model = save_llama(tmp_path / "llama")
    place = ["--workspace", str(tmp_path / "workspace"), "--json"]
    models = tmp_path / "workspace" / "models"

    def run(steps: int, *arguments: str) -> dict[str, Any]:
        capfd.readouterr()
        recipe = write_recipe(tmp_path, model, manuals, steps)
        code = main(["pretrain", str(recipe), *arguments, *place])
        out, err = capfd.readouterr()
        assert code == 0, err
        assert ("accelerate launch --multi_gpu --num_processes 2" in err) == ("--launch" in arguments)
        found: dict[str, Any] = json.loads(out)
        return found

    alone = run(8, "--name", "alone")
    together = run(8, "--name", "together", "--launch", "--processes", "2")
    records = [read_run_record(models / name) for name in ("alone", "together")]
    assert [record.processes for record in records] == [1, 2]
    losses = [[loss for _, loss in record.losses] for record in records]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert together["tokens"] == alone["tokens"]
    assert together["after"]["bits_per_character"] == pytest.approx(alone["after"]["bits_per_character"], abs=1e-3)
    assert sorted(path.name for path in models.iterdir()) == ["alone", "together"]


def test_what_a_launch_of_pretraining_cannot_do_is_said(
    manuals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sharing the weights out with nobody, and more processes than rows."""
    arguments = ["pretrain", "continual", "--text", str(manuals), "--workspace", str(tmp_path)]
    assert main([*arguments, "--sharded"]) == 1
    assert "--sharded is for several processes: add --launch" in capsys.readouterr().err
    assert main([*arguments, "--launch", "--processes", "16"]) == 1
    assert "set pretraining.rows to 16 or more" in capsys.readouterr().err


def test_killed_and_interrupted_it_goes_on_to_the_same_end(
    manuals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL, then --resume, then Ctrl-C, then --resume: the steps and the loss of an unbroken run."""
    monkeypatch.setenv(MODELS_VARIABLE, "")
    recipe = write_recipe(tmp_path, save_llama(tmp_path / "llama"), manuals, steps=150)
    place = ("--workspace", tmp_path / "workspace", "--json")

    def run(*arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["pretrain", str(recipe), *arguments, *map(str, place)]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    unbroken = run("--name", "unbroken")
    command = [*VERSUS, "pretrain", str(recipe), "--name", "broken", *map(str, place)]
    checkpoint = tmp_path / "workspace" / "models" / ".broken.training" / "checkpoint.pt"
    for number, more in ((signal.SIGKILL, []), (signal.SIGINT, ["--resume"])):
        former = checkpoint.stat().st_mtime_ns if checkpoint.is_file() else None
        process = subprocess.Popen(
            [*command, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            preexec_fn=take_interrupts,
        )
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            if checkpoint.is_file() and checkpoint.stat().st_mtime_ns != former:
                break
            time.sleep(0.01)
        os.kill(process.pid, number)
        output, errors = process.communicate(timeout=120)
        assert not (tmp_path / "workspace" / "models" / "broken").exists()
    done = subprocess.CompletedProcess(command, process.returncode, output, errors)
    assert_clear_error(done, "stopped", "--resume")
    kept = checkpoint.read_bytes()
    assert main(["pretrain", str(recipe), "--name", "broken", *map(str, place)]) == 1
    assert "was interrupted and kept a checkpoint: resume it (--resume)" in capsys.readouterr().err
    assert checkpoint.read_bytes() == kept
    resumed = run("--name", "broken", "--resume")
    assert resumed["steps"] == unbroken["steps"] == 150
    assert resumed["tokens"] == unbroken["tokens"]
    assert resumed["last_loss"] == pytest.approx(unbroken["last_loss"], abs=1e-3)
    assert resumed["before"] == unbroken["before"]
