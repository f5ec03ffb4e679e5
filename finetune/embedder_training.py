"""The training of an embedder: sentence-transformers' trainer with a time limit, sealed checkpoints and live loss."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.checkpoints import Checkpoint, writing_checkpoints
from finetune.encoder_watching import OnStep, encoder_watcher, finite
from finetune.errors import TrainingError
from finetune.memory_failures import encoder_advice, readable_memory
from finetune.trainer import Clock

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.embedder import EmbedderRecipe

KEPT = 2
"""Checkpoints that are kept."""


def tune(
    recipe: EmbedderRecipe,
    model: Any,
    rows: Dataset,
    scratch: Path,
    *,
    found: Checkpoint | None = None,
    on_step: OnStep | None = None,
) -> tuple[list[tuple[int, float]], str, float]:
    """Train `model` in place; return (step, loss) of every step, why it ended, and the seconds over all its parts.

    Checkpoints go to `scratch`; `found` is the one to go on from. Raises TrainingError if a loss, gradient or weight is
    no number, or memory runs out.
    """
    from sentence_transformers import SentenceTransformerTrainer, losses
    from transformers import PrinterCallback, ProgressCallback

    ranking = recipe.loss == "multiple-negatives"
    clock = Clock(recipe.max_seconds)
    clock.before = found.seconds if found else 0.0
    trainer = SentenceTransformerTrainer(
        model=model,
        args=_arguments(recipe, len(rows), scratch),
        train_dataset=rows,
        loss=losses.MultipleNegativesRankingLoss(model) if ranking else losses.CosineSimilarityLoss(model),
        callbacks=[encoder_watcher(clock, on_step)],
    )
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    advice = partial(encoder_advice, recipe.batch_size, recipe.max_length, least_batch=2)
    with readable_memory(recipe.name, advice), writing_checkpoints(scratch):
        trainer.train(resume_from_checkpoint=str(found.path) if found else None)
    if not finite(model):
        raise TrainingError(f"a weight is not finite after step {trainer.state.global_step}: lower learning_rate")
    history = [(int(row["step"]), float(row["loss"])) for row in trainer.state.log_history if "loss" in row]
    return history, clock.stopped or "finished", clock.elapsed()


def _arguments(recipe: EmbedderRecipe, rows: int, scratch: Path) -> Any:
    from sentence_transformers import SentenceTransformerTrainingArguments
    from sentence_transformers.training_args import BatchSamplers

    steps = max(1, math.ceil(rows / recipe.batch_size)) * recipe.epochs
    ranking = recipe.loss == "multiple-negatives"
    return SentenceTransformerTrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        warmup_steps=round(recipe.warmup * steps),
        batch_sampler=BatchSamplers.NO_DUPLICATES if ranking else BatchSamplers.BATCH_SAMPLER,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if recipe.save_every else "no",
        save_steps=recipe.save_every or 1,
        save_total_limit=KEPT,
        report_to="none",
        seed=recipe.seed,
        bf16=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
