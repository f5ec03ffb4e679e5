"""The training of an encoder with a classification head: transformers' trainer with sealed checkpoints and live loss.

After every epoch the loss on the texts held out is measured and a checkpoint written; the weights of the lowest such
loss are the classifier's.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.checkpoints import Checkpoint, begin, is_whole, last_sealed, to_go_on_from, writing_checkpoints
from finetune.classifier_data import ClassifierRecipe, LabelledText, Trained
from finetune.encoder_classifier import BUNDLED, encoder_probabilities
from finetune.encoder_watching import OnStep, encoder_watcher, finite
from finetune.errors import ModelError, TrainingDataError, TrainingError
from finetune.memory_failures import encoder_advice, readable_memory
from finetune.models import base_fingerprint, model_folder, quiet_libraries
from finetune.trainer import Clock, early_stopping, since_lowest

KEPT = 2
"""Checkpoints that are kept: the last, and the best or the one before."""


def train_encoder(
    recipe: ClassifierRecipe,
    train: Sequence[LabelledText],
    dev: Sequence[LabelledText],
    labels: Sequence[str],
    scratch: Path,
    *,
    data_sha256: str,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> Trained:
    """Train the recipe's encoder, with its checkpoints in `scratch`; `Trained.write` saves it to a folder.

    With `resume` an interrupted training goes on from its last whole checkpoint, or starts if there is none. Raises
    ModelError if the encoder is not on this machine, TrainingDataError if it holds no texts as long as the recipe's,
    TrainingError if the checkpoints are of another training or damaged, one of this training would be lost by starting
    without `resume`, a number breaks, or memory runs out.
    """
    source = _source(recipe)
    tokenizer, model = _load(recipe, source, labels)
    rows, longer = _rows(tokenizer, train, labels)
    dev_rows, _ = _rows(tokenizer, dev, labels)
    identity = {"data": data_sha256, "base": base_fingerprint(str(source)), "recipe": recipe.course()}
    found = to_go_on_from(scratch, identity, resume)
    if found is None:
        begin(scratch, identity)
    clock = Clock(None)
    clock.before = found.seconds if found else 0.0
    try:
        with readable_memory(recipe.name, lambda: encoder_advice(recipe.batch_size, recipe.max_length)):
            state = _fit(recipe, tokenizer, model, rows, dev_rows, scratch, found, clock, on_step)
            accuracy = _accuracy(tokenizer, model.eval(), dev, labels)
        if not finite(model):
            raise TrainingError("a weight is not finite after the training: lower learning_rate to a half or less")
    finally:
        if last_sealed(scratch) is None:
            shutil.rmtree(scratch, ignore_errors=True)

    def write(folder: Path) -> None:
        model.save_pretrained(str(folder), safe_serialization=True)
        tokenizer.save_pretrained(str(folder))

    return Trained(
        losses=_losses(state.log_history, math.ceil(len(rows) / recipe.batch_size)),
        accuracy=accuracy,
        dimension=int(model.config.hidden_size),
        steps=int(state.global_step),
        seconds=clock.elapsed(),
        cut=longer,
        write=write,
    )


def _source(recipe: ClassifierRecipe) -> Path:
    """Return the folder of the encoder to begin with."""
    from finetune.pocket.base import minilm_path

    return minilm_path() if recipe.model == BUNDLED else model_folder(recipe.model)


def _load(recipe: ClassifierRecipe, source: Path, labels: Sequence[str]) -> tuple[Any, Any]:
    """Load tokenizer and encoder, in float32 and with a fresh head for the labels."""
    quiet_libraries()
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(recipe.seed)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=True)
        model = AutoModelForSequenceClassification.from_pretrained(
            str(source),
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: place for place, label in enumerate(labels)},
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"encoder {recipe.model} cannot be loaded: {str(error).splitlines()[0]}") from error
    room = min(int(tokenizer.model_max_length), _positions(model))
    if recipe.max_length > room:
        raise TrainingDataError(f"max_length is {recipe.max_length}, but {recipe.model} holds {room} tokens: lower it")
    tokenizer.model_max_length = recipe.max_length
    return tokenizer, model


def _positions(model: Any) -> int:
    """Return how many tokens the encoder's position table has room for; one like RoBERTa's begins after the padding."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    taken = 0 if padding is None else int(padding) + 1
    return int(getattr(model.config, "max_position_embeddings", None) or 2**31) - taken


def _rows(tokenizer: Any, examples: Sequence[LabelledText], labels: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """Return texts as token ids, cut at the tokenizer's limit, with their labels' places; and how many were cut."""
    if not examples:
        return [], 0
    limit, texts = tokenizer.model_max_length, [example.text for example in examples]
    places = {label: place for place, label in enumerate(labels)}
    encoded = tokenizer(texts, truncation=True)["input_ids"]
    full = [text for text, ids in zip(texts, encoded, strict=True) if len(ids) == limit]
    longer = sum(len(ids) > limit for ids in tokenizer(full, verbose=False)["input_ids"]) if full else 0
    return [
        {"input_ids": ids, "labels": places[example.label]} for ids, example in zip(encoded, examples, strict=True)
    ], longer


def _fit(
    recipe: ClassifierRecipe,
    tokenizer: Any,
    model: Any,
    rows: list[dict[str, Any]],
    dev_rows: list[dict[str, Any]],
    scratch: Path,
    found: Checkpoint | None,
    clock: Clock,
    on_step: OnStep | None,
) -> Any:
    """Train `model` in place, up to its best weights where texts are held out; return the trainer's state."""
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer

    trainer = Trainer(
        model=model,
        args=_arguments(recipe, scratch, bool(dev_rows), _epochs(recipe, len(rows), found)),
        train_dataset=rows,
        eval_dataset=dev_rows or None,
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[
            encoder_watcher(clock, on_step, save_every=recipe.save_every),
            *([early_stopping(recipe.patience)] if dev_rows else []),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    with writing_checkpoints(scratch):
        trainer.train(resume_from_checkpoint=str(found.path) if found else None)
    return trainer.state


def _epochs(recipe: ClassifierRecipe, rows: int, found: Checkpoint | None) -> int:
    """Return how many epochs there are: no more than are done, where the checkpoint was written as training ended.

    Raises TrainingError if the checkpoint with the best weights so far, which would be the result, is damaged.
    """
    if found is None:
        return recipe.epochs
    state = json.loads((found.path / "trainer_state.json").read_text(encoding="utf-8"))
    best = state.get("best_model_checkpoint")
    if best and not is_whole(found.path.parent / Path(best).name):
        raise TrainingError(f"{best}: the best checkpoint is damaged; train without --resume to start again")
    if since_lowest(state["log_history"]) < recipe.patience:
        return recipe.epochs
    return int(state["global_step"]) // math.ceil(rows / recipe.batch_size)


def _arguments(recipe: ClassifierRecipe, scratch: Path, evaluates: bool, epochs: int) -> Any:
    """Translate the recipe into transformers' arguments."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        seed=recipe.seed,
        eval_strategy="epoch" if evaluates else "no",
        save_strategy="epoch" if evaluates or recipe.save_every else "no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_total_limit=KEPT,
        load_best_model_at_end=evaluates,
        metric_for_best_model="eval_loss" if evaluates else None,
        greater_is_better=False if evaluates else None,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=False,
    )


def _losses(history: list[dict[str, Any]], epoch_steps: int) -> list[tuple[int, float, float]]:
    """Return (epoch, mean training loss of its steps, loss on texts held out or else the training loss again)."""
    steps = [float(row["loss"]) for row in history if "loss" in row]
    epochs = [steps[first : first + epoch_steps] for first in range(0, len(steps), epoch_steps)]
    trained = [sum(epoch) / len(epoch) for epoch in epochs]
    held = [float(row["eval_loss"]) for row in history if "eval_loss" in row] or trained
    return [(n, one, other) for n, (one, other) in enumerate(zip(trained, held, strict=False), start=1)]


def _accuracy(tokenizer: Any, model: Any, dev: Sequence[LabelledText], labels: Sequence[str]) -> float | None:
    """Return the share of texts classified rightly; None of no texts."""
    if not dev:
        return None
    found = encoder_probabilities(tokenizer, model, [example.text for example in dev], len(labels)).argmax(axis=1)
    return sum(labels[int(best)] == example.label for best, example in zip(found, dev, strict=True)) / len(dev)
