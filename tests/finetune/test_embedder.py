"""The tuned embedder: its recipes, its two losses on a tiny bi-encoder, and what it leaves on disk."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.embedder import (
    TASK,
    EmbedderPair,
    EmbedderRecipe,
    is_embedder_recipe,
    load_embedder_recipe,
    train_embedder,
)
from finetune.errors import RecipeError, TrainingDataError, TrainingError
from finetune.pocket.base import minilm_path
from finetune.task_recipes import task_recipe_names

PAIRS = [
    EmbedderPair(
        f"q{n}",
        f"how heavy is the {thing}",
        f"the {thing} weighs {n} kg",
        (f"the {thing} is made in hall {n}", f"paint the {thing} blue"),
    )
    for n, thing in enumerate(("jack", "wheel", "lamp", "seat", "cable", "boot", "door", "mirror"))
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bi-encoder of one small layer with random weights."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = AutoTokenizer.from_pretrained(minilm_path())
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    encoder = Transformer(str(folder / "bert"), max_seq_length=64)
    SentenceTransformer(modules=[encoder, Pooling(32)], device="cpu").save_pretrained(str(folder / "model"))
    return folder / "model"


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["multiple-negatives", "pairwise-similarity"])
def test_tuning_brings_questions_to_their_passages(tiny: Path, tmp_path: Path, loss: str) -> None:
    """The loss falls, the model on disk ranks each pair's passage above its negatives more often than before."""
    from sentence_transformers import SentenceTransformer

    recipe = EmbedderRecipe("tiny", loss=loss, negatives=2, epochs=12, batch_size=4, learning_rate=1e-2, warmup=0.0)
    told: list[int] = []
    record = train_embedder(
        recipe, PAIRS, tmp_path / "tuned", source=tiny, on_step=lambda step, total, value: told.append(total)
    )
    first, last = record.losses[0][1], sum(value for _, value in record.losses[-3:]) / 3
    assert last < first / 2
    assert record.steps == len(record.losses) == told[0]
    assert _right(SentenceTransformer(str(tiny))) < _right(SentenceTransformer(str(tmp_path / "tuned"))) == len(PAIRS)
    kept = json.loads((tmp_path / "tuned" / "run_record.json").read_text())
    assert kept["trained_ids"] == [pair.id for pair in PAIRS]
    assert kept["base_sha256"] == record.base_sha256
    assert not list((tmp_path / "tuned").rglob("*.bin")) + list((tmp_path / "tuned").rglob("*.pt"))
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]


def _right(model: object) -> int:
    """Count the pairs whose passage is nearer to the question than both negatives are."""
    count = 0
    for pair in PAIRS:
        query, *others = model.encode(  # type: ignore[attr-defined]
            [pair.query, pair.positive, *pair.negatives], normalize_embeddings=True, show_progress_bar=False
        )
        cosines = [float(query @ other) for other in others]
        count += cosines[0] > max(cosines[1:])
    return count


@pytest.mark.slow
def test_time_ends_a_tuning(tiny: Path, tmp_path: Path) -> None:
    """The model as it is by then is kept, and the record says why it ended."""
    recipe = EmbedderRecipe("tiny", epochs=500, batch_size=4, max_seconds=0.3)
    record = train_embedder(recipe, PAIRS, tmp_path / "tuned", source=tiny)
    assert record.stopped == "time"
    assert 0 < record.steps < 1000
    assert (tmp_path / "tuned" / "model.safetensors").is_file()


KILLED = """
import os, signal, sys
from pathlib import Path
from finetune.embedder import train_embedder
from tests.finetune.test_embedder import PAIRS, resumable

def kill(step, total, loss):
    if step == 7:
        os.kill(os.getpid(), signal.SIGKILL)

train_embedder(resumable(), PAIRS, Path(sys.argv[2]), source=sys.argv[1], on_step=kill)
"""


def resumable(**changes: object) -> EmbedderRecipe:
    """Return a recipe of 12 steps with a checkpoint after every third."""
    steps = {"negatives": 1, "epochs": 6, "batch_size": 4, "learning_rate": 1e-3, "save_every": 3, "seed": 4}
    return EmbedderRecipe("tiny", **{**steps, **changes})  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_killed_tuning_resumes_to_the_same_loss(tiny: Path, tmp_path: Path, repository: Path) -> None:
    """After SIGKILL at step 7 no model is there; resumed, it ends at the step, losses and weights of an unbroken one.

    A checkpoint of another tuning is refused; a damaged one is passed over.
    """
    whole = train_embedder(resumable(), PAIRS, tmp_path / "whole", source=tiny)
    output = tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tiny), str(output)], cwd=repository, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not output.exists()
    with pytest.raises(TrainingError, match=r"epochs = 6 \(now 7\).*without --resume"):
        train_embedder(resumable(epochs=7), PAIRS, output, source=tiny, resume=True)
    with pytest.raises(TrainingError, match="other data"):
        train_embedder(resumable(), PAIRS[:-1], output, source=tiny, resume=True)
    weights = tmp_path / ".killed.training" / "checkpoint-6" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    steps: list[int] = []
    record = train_embedder(
        resumable(), PAIRS, output, source=tiny, resume=True, on_step=lambda step, total, loss: steps.append(step)
    )
    assert steps[0] == 4
    assert record.steps == whole.steps == 12
    assert [step for step, _ in record.losses] == list(range(1, 13))
    assert [loss for _, loss in record.losses] == pytest.approx([loss for _, loss in whole.losses], abs=1e-3)
    files = [folder / "model.safetensors" for folder in (tmp_path / "whole", output)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not list(tmp_path.glob(".*.training"))


@pytest.mark.slow
def test_what_breaks_amid_a_tuning_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    """A loss or gradient that is no number, and memory that runs out, are told with the setting to lower."""
    with pytest.raises(TrainingError, match=r"at step \d+: nothing was overwritten; lower learning_rate"):
        train_embedder(resumable(learning_rate=1e30, save_every=None), PAIRS, tmp_path / "x", source=tiny)

    def full(step: int, total: int, loss: float) -> None:
        raise MemoryError

    with pytest.raises(TrainingError, match=r"lower batch_size from 4 to 2 .*lower max_length from 192 to 96"):
        train_embedder(resumable(), PAIRS, tmp_path / "x", source=tiny, on_step=full)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_tuned_on_is_said(tmp_path: Path) -> None:
    """Too few pairs, or too few negatives, before any model is loaded."""
    recipe = EmbedderRecipe("tiny", negatives=3)
    with pytest.raises(TrainingDataError, match="at least 2 pairs"):
        train_embedder(recipe, PAIRS[:1], tmp_path / "x")
    with pytest.raises(TrainingDataError, match="fewer than 3 negatives: q0"):
        train_embedder(recipe, PAIRS, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_recipes_that_ship_are_sound() -> None:
    """Both load, and are not taken for adapter recipes."""
    from finetune.config import recipe_names

    names = task_recipe_names(TASK)
    assert names == ["embedder", "embedder-pairwise"]
    assert {load_embedder_recipe(name).loss for name in names} == {
        "multiple-negatives",
        "pairwise-similarity",
    }
    assert not set(recipe_names()) & set(names)
    assert not is_embedder_recipe("pocket-live")


def test_every_mistake_of_a_recipe_is_named(tmp_path: Path) -> None:
    """Unknown keys, wrong types and wrong values; the file is named."""
    path = tmp_path / "mine.toml"
    path.write_text('task = "embedder"\nodd = 1\n[embedder]\nepoch = 2\nbatch_size = "many"\n')
    with pytest.raises(RecipeError) as caught:
        load_embedder_recipe(path)
    message = " ".join(caught.value.problems) + str(caught.value)
    assert all(word in message for word in ("mine.toml", "odd", "epoch", "batch_size"))
    with pytest.raises(RecipeError, match="needs negatives"):
        replace(EmbedderRecipe("x"), loss="pairwise-similarity", negatives=0)
    with pytest.raises(RecipeError, match="no embedder recipe"):
        load_embedder_recipe("no-such")
