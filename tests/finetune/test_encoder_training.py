"""An encoder trained whole as a classifier: killed and resumed, and what cannot be trained."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.classifier import load_classifier, train_classifier
from finetune.classifier_data import ClassifierRecipe, LabelledText, split_dev
from finetune.encoder_training import train_encoder
from finetune.errors import AdapterError, TrainingDataError, TrainingError
from finetune.trainer import since_lowest
from tests.finetune.test_classifier import examples
from tests.finetune.tiny import tiny_tokenizer

POSITIONS = 64
KILLED = """
import os, signal, sys
from pathlib import Path
from finetune.classifier import train_classifier
from tests.finetune.test_classifier import examples
from tests.finetune.test_encoder_training import plan

def kill(step, total, loss):
    if step == 22:
        os.kill(os.getpid(), signal.SIGKILL)

train_classifier(plan(sys.argv[1]), examples(), Path(sys.argv[2]), on_step=kill)
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer BERT with random weights, in bfloat16, and its tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    folder, tokenizer = tmp_path_factory.mktemp("encoder"), tiny_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=POSITIONS, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    BertModel(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def plan(model: Path | str, **changes: object) -> ClassifierRecipe:
    """Return a recipe of 4 epochs of 8 steps, with a checkpoint after each epoch and after every fifth step."""
    steps = {"epochs": 4, "patience": 4, "batch_size": 8, "learning_rate": 3e-3, "max_length": 32, "save_every": 5}
    return ClassifierRecipe("tiny", mode="full", model=str(model), seed=3, **{**steps, **changes})  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_loss(encoder: Path, tmp_path: Path, repository: Path) -> None:
    """After SIGKILL amid the third epoch nothing is loadable; resumed, it ends at the losses of an unbroken one.

    So it does in steps and weights. Another recipe, and other data, are refused by name; how often is saved may change.
    """
    import torch
    from safetensors.torch import load_file

    whole = train_classifier(plan(encoder), examples(), tmp_path / "whole")
    output = tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(encoder), str(output)], cwd=repository, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    left = tmp_path / ".killed.training"
    assert [path.name for path in tmp_path.glob("*killed*")] == [left.name]
    assert "checkpoint-20" in {path.name for path in left.iterdir()}
    for folder in (output, left, left / "checkpoint-20"):
        with pytest.raises(AdapterError, match="there is no classifier"):
            load_classifier(folder)
    with pytest.raises(TrainingError, match=r"epochs = 4 \(now 5\), learning_rate = 0.003 \(now 0.001\).*--resume"):
        train_classifier(plan(encoder, epochs=5, learning_rate=1e-3), examples(), output, resume=True)
    with pytest.raises(TrainingError, match="other data"):
        train_classifier(plan(encoder), examples()[:-1], output, resume=True)
    steps: list[int] = []
    record = train_classifier(
        plan(encoder, save_every=7),
        examples(),
        output,
        resume=True,
        on_step=lambda step, total, loss: steps.append(step),
    )
    assert steps == list(range(21, 33))
    assert record.steps == whole.steps == 32
    assert record.epochs == whole.epochs == 4
    assert [row[0] for row in record.losses] == [1, 2, 3, 4]
    assert [row[1:] for row in record.losses] == [pytest.approx(row[1:], abs=1e-3) for row in whole.losses]
    assert record.dev_accuracy == whole.dev_accuracy
    mine, other = (load_file(folder / "model.safetensors") for folder in (output, tmp_path / "whole"))
    assert all(torch.equal(mine[name], other[name]) for name in other)
    assert all(weight.dtype == torch.float32 for weight in mine.values() if weight.is_floating_point())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


@pytest.mark.slow
def test_a_training_killed_as_it_ended_is_not_trained_on(encoder: Path, tmp_path: Path) -> None:
    """Where held-out texts had ended it and only the writing was left, a resume takes no step and ends the same."""
    recipe = plan(encoder, epochs=30, patience=1, learning_rate=0.05)
    train, dev = split_dev(examples(), recipe.dev_share, recipe.seed)
    labels, scratch = ("condition", "delivery", "price"), tmp_path / ".x.training"
    first = train_encoder(recipe, train, dev, labels, scratch, data_sha256="a")
    assert len(first.losses) < 30
    steps: list[int] = []
    again = train_encoder(
        recipe, train, dev, labels, scratch, data_sha256="a", resume=True, on_step=lambda *step: steps.append(step[0])
    )
    assert steps == []
    assert (again.losses, again.steps, again.accuracy) == (first.losses, first.steps, first.accuracy)
    best = min(range(len(first.losses)), key=lambda place: first.losses[place][2]) + 1
    weights = scratch / f"checkpoint-{best * 8}" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(TrainingError, match="the best checkpoint is damaged"):
        train_encoder(recipe, train, dev, labels, scratch, data_sha256="a", resume=True)


def test_patience_counts_from_the_first_lowest_loss() -> None:
    """Measurements since the lowest; an equal one is no improvement; training losses do not count."""
    rows = [{"loss": 9.0}, {"eval_loss": 2.0}, {"eval_loss": 1.0}, {"loss": 0.1}, {"eval_loss": 1.0}]
    assert since_lowest(rows) == 1
    assert since_lowest(rows[:3]) == 0
    assert since_lowest([*rows, {"eval_loss": 3.0}]) == 2
    assert since_lowest(rows[:1]) == 0


@pytest.mark.slow
def test_what_breaks_amid_a_training_leaves_what_stood_there(encoder: Path, tmp_path: Path) -> None:
    """A loss that is no number, and memory that runs out, are told with the setting to lower."""
    output = tmp_path / "x"
    output.mkdir()
    (output / "labels.json").write_text("{}")
    (output / "run_record.json").write_text("{}")  # a folder that a training made, which another may replace
    with pytest.raises(TrainingError, match=r"at step \d+: nothing was overwritten; lower learning_rate"):
        train_classifier(plan(encoder, learning_rate=1e30), examples(), output)

    def full(step: int, total: int, loss: float) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(TrainingError, match=r"lower batch_size from 8 to 4 .* or lower max_length from 32 to 16; or"):
        train_classifier(plan(encoder), examples(), output, on_step=full)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (output / "labels.json").read_text() == "{}"


@pytest.mark.slow
def test_long_texts_are_cut_and_counted_up_to_what_the_encoder_holds(encoder: Path, tmp_path: Path) -> None:
    """Two texts are enough to train on; a length beyond the position table is refused, RoBERTa's offset counted."""
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    two = [LabelledText("Is it cold? " * 40, "long"), LabelledText("No.", "short")]
    record = train_classifier(plan(encoder, epochs=1), two, tmp_path / "two")
    assert (record.examples, record.dev_examples, record.cut, record.steps) == (2, 0, 1, 1)
    assert record.dev_accuracy is None
    assert load_classifier(tmp_path / "two").probabilities([two[0].text * 9, "No."]).shape == (2, 2)
    with pytest.raises(TrainingDataError, match=f"max_length is {POSITIONS + 1}, but .* holds {POSITIONS} tokens"):
        train_classifier(plan(encoder, max_length=POSITIONS + 1), two, tmp_path / "no")
    config = RobertaConfig(
        vocab_size=400, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=POSITIONS, pad_token_id=1,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path / "roberta")
    AutoTokenizer.from_pretrained(encoder).save_pretrained(tmp_path / "roberta")
    with pytest.raises(TrainingDataError, match=f"holds {POSITIONS - 2} tokens"):
        train_classifier(plan(tmp_path / "roberta", max_length=POSITIONS - 1), two, tmp_path / "no")
    with pytest.raises(TrainingDataError, match="at least 2 labels; the data have 1"):
        train_classifier(plan(encoder), two[:1], tmp_path / "no")
    assert not list(tmp_path.glob("*no*"))
