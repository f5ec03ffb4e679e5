"""What watches the training of an encoder, as classifier or embedder: broken numbers, checkpoints, time, live loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.checkpoints import last_sealed, seal
from finetune.errors import TrainingError
from finetune.trainer import Clock

OnStep = Callable[[int, int, float], None]
"""Called with step, steps in all, and the loss."""
_WATCHED = ("loss", "grad_norm", "eval_loss")


def encoder_watcher(clock: Clock, on_step: OnStep | None, *, save_every: int | None = None) -> Any:
    """Return a trainer callback that refuses broken numbers, seals checkpoints, keeps the time and tells of losses.

    With `save_every` a checkpoint is asked for after every so many steps, besides those of the trainer's own strategy;
    not after an epoch's last, where the trainer measures first.
    """
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            logs = logs or {}
            for name in _WATCHED:
                if logs.get(name) is not None and not math.isfinite(float(logs[name])):
                    raise _broken(f"the {name.replace('_', ' ')} is {logs[name]}", state, args)
            if on_step and "loss" in logs:
                on_step(state.global_step, state.max_steps, float(logs["loss"]))

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            if clock.limit is not None and clock.elapsed() >= clock.limit:
                clock.stopped = "time" if state.global_step < state.max_steps else None
                control.should_training_stop = True
            if save_every and state.global_step % save_every == 0 and not ends_epoch(state):
                control.should_save = True
            return control

        def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if model is not None and not finite(model):
                raise _broken("a weight is not finite", state, args)
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}", clock.elapsed())

    return Watcher()


def ends_epoch(state: Any) -> bool:
    """Tell whether the last step of a training by whole epochs was an epoch's last."""
    return int(state.global_step) % max(1, int(state.max_steps) // int(state.num_train_epochs)) == 0


def finite(model: Any) -> bool:
    """Tell whether every weight of a model is a number."""
    return all(bool(weight.isfinite().all()) for weight in model.parameters())


def _broken(what: str, state: Any, args: Any) -> TrainingError:
    """Return the error of numbers that broke, with where the last good ones are."""
    good = last_sealed(Path(args.output_dir))
    kept = f"; the weights of the last good checkpoint lie in {good}" if good else ""
    return TrainingError(
        f"{what} at step {state.global_step}: nothing was overwritten; lower learning_rate to a half or less{kept}"
    )
