"""The training of an embedder: sentence-transformers' trainer with a time limit, sealed checkpoints and live loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.checkpoints import Checkpoint, last_sealed, seal
from finetune.errors import TrainingError
from finetune.trainer import Clock

if TYPE_CHECKING:
    from datasets import Dataset

    from finetune.embedder import EmbedderRecipe

OnStep = Callable[[int, int, float], None]
"""Called with step, steps in all, and the loss."""
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

    Checkpoints go to `scratch`; `found` is the one to go on from. Raises TrainingError if the loss is no number.
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
        callbacks=[_watcher(clock, on_step)],
    )
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    trainer.train(resume_from_checkpoint=str(found.path) if found else None)
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
        save_strategy="steps" if recipe.save_every else "no",
        save_steps=recipe.save_every or 1,
        save_total_limit=KEPT,
        report_to="none",
        seed=recipe.seed,
        bf16=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def _watcher(clock: Clock, on_step: OnStep | None) -> Any:
    """Return a trainer callback that tells of losses, refuses broken ones, seals checkpoints and keeps the time."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if not logs or "loss" not in logs:
                return
            loss = float(logs["loss"])
            if not math.isfinite(loss):
                good = last_sealed(Path(args.output_dir))
                kept = f"; the weights of the last good checkpoint lie in {good}" if good else ""
                raise TrainingError(f"the loss is {loss} at step {state.global_step}; lower learning_rate{kept}")
            if on_step:
                on_step(state.global_step, state.max_steps, loss)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            if clock.limit is not None and clock.elapsed() >= clock.limit:
                clock.stopped = "time" if state.global_step < state.max_steps else None
                control.should_training_stop = True
            return control

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}", clock.elapsed())

    return Watcher()
