"""trl's `SFTTrainer`, set up for a recipe: clock, schedule, live loss, sealed checkpoints, early stopping.

This is the one module that imports trl, and only inside functions: the import is slow.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.adapters import trainable_parameters
from finetune.checkpoints import last_sealed, seal
from finetune.config import Recipe
from finetune.dataset import Collator
from finetune.errors import TrainingError
from finetune.packed_rows import mask_dtype, sample_rows
from finetune.packing import IGNORED
from finetune.processes import is_first, of_first, process_count, wait

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

SAVING_SHARE = 0.03
"""Share of the time limit kept for writing the adapter, at most `SAVING_SECONDS`."""
SAVING_SECONDS = 4.0
UNLIMITED_EPOCHS = 100_000.0
MOST_SKIPPED = 20
"""Gradients in a row that may be too large for float16: the loss scaler halves its factor and skips the step."""


@dataclass(frozen=True)
class TrainingStep:
    """One optimiser step, as it is shown live. `total` is an estimate where time is the limit."""

    step: int
    total: int
    loss: float
    seconds: float
    eval_loss: float | None = None


class Clock:
    """The wall time of a training, over interruptions, and its limit in seconds (None: no limit)."""

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self.before = 0.0
        self.reserve = 0.0
        """Seconds that are kept for what comes after the last step, saving not counted."""
        self.stopped: str | None = None
        self._start = time.monotonic()
        self._agreed = 0.0

    def elapsed(self) -> float:
        """Return the seconds trained so far, those before a resume included."""
        return self.before + time.monotonic() - self._start

    def share(self) -> float:
        """Return the share of the time for training that is used up; 0 without a limit."""
        if self.limit is None:
            return 0.0
        used = self.elapsed() if process_count() == 1 else self._agreed
        return used / max(self.limit - min(SAVING_SECONDS, SAVING_SHARE * self.limit) - self.reserve, 1e-3)

    def agree(self) -> None:
        """Take over the first process's time: processes that train together stop, and slow down, together."""
        if self.limit is not None:
            self._agreed = of_first(self.elapsed())


class EndsWhereItEnded:
    """Mixin of transformers' trainers: told to stop as the training begins, they make no step, where one is usual.

    So a training that goes on from the checkpoint of its last step ends at once, with the same steps.
    """

    control: Any

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], Any]:
        """Return the batches of the next step; none where the training is to stop before it."""
        if self.control.should_training_stop:
            return [], None
        batches: tuple[list[Any], Any] = super().get_batch_samples(*arguments)  # type: ignore[misc]
        return batches


def rate_factor(progress: float, schedule: str, warmup: float) -> float:
    """Return the learning rate as a share of its peak after `progress` (0 to 1) of the training.

    It rises linearly over `warmup`, then falls to 0 as a half cosine or a line, or stays.
    """
    if progress < warmup:
        return max(progress / warmup, 0.01)
    rest = min(1.0, (progress - warmup) / (1 - warmup))
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * rest))
    return 1 - rest if schedule == "linear" else 1.0


def make_trainer(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    rows: list[dict[str, Any]],
    dev_rows: list[dict[str, Any]],
    collator: Collator,
    *,
    scratch: Path,
    device: str,
    arithmetic: torch.dtype,
    clock: Clock,
    on_step: Callable[[TrainingStep], None] | None,
) -> Any:
    """Return a trainer whose `train()` follows the recipe; `rows` come from `dataset.as_rows`."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTTrainer

    class ScheduledTrainer(EndsWhereItEnded, SFTTrainer):  # type: ignore[misc]
        """SFTTrainer whose learning rate follows steps or time, whichever is further.

        One process on a CPU projects only the answers' positions onto the vocabulary, if that gives the model's own
        loss; trl does so on GPUs alone.
        """

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if answers_alone and not return_outputs:
                return answer_loss(model, inputs, num_items_in_batch)
            computed = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            for figures in self._metrics.values():
                figures.pop("num_tokens", None)  # the sum of the mask, which does not count tokens here
            return computed

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            self.lr_scheduler = make_schedule(optimizer or self.optimizer, num_training_steps, recipe, clock)
            return self.lr_scheduler

    answers_alone = device == "cpu" and process_count() == 1 and is_own_loss(model)
    evaluates = bool(dev_rows) and recipe.tracking.eval_every is not None
    callbacks = [step_watcher(clock, on_step)]
    if evaluates and recipe.tracking.patience is not None:
        callbacks.append(early_stopping(recipe.tracking.patience))
    trainer = ScheduledTrainer(
        model=model,
        args=_sft_arguments(recipe, scratch, device, arithmetic, evaluates),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(dev_rows) if evaluates else None,
        processing_class=tokenizer,
        data_collator=collator,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    for parameter in trainable_parameters(trainer.model):
        # trl holds the adapter of a quantised base in bfloat16: small steps would be lost, and float16 cannot scale it
        parameter.data = parameter.data.float()
    return trainer


def early_stopping(patience: int) -> Any:
    """Return transformers' callback, which forgets over a resume how long it has waited, with what it waited before."""
    from transformers import EarlyStoppingCallback

    class Patience(EarlyStoppingCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            super().on_train_begin(args, state, control, **kwargs)
            self.early_stopping_patience_counter = since_lowest(state.log_history)
            control.should_training_stop |= self.early_stopping_patience_counter >= patience

    return Patience(early_stopping_patience=patience)


def since_lowest(history: list[dict[str, Any]]) -> int:
    """Return how many measurements followed the first of the lowest loss; 0 if nothing was measured."""
    measured = [float(row["eval_loss"]) for row in history if "eval_loss" in row]
    return len(measured) - 1 - measured.index(min(measured)) if measured else 0


def answer_loss(model: Any, inputs: dict[str, Any], num_items: Any = None) -> torch.Tensor:
    """Return the cross entropy of the labelled tokens of a batch, summed and divided by `num_items` (default: mean).

    The output embeddings are applied to the hidden states before a labelled token only, in float32 for the softmax.
    """
    from torch.nn.functional import cross_entropy, linear

    base = model.get_base_model()
    hidden = base.base_model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs.get("attention_mask"),
        position_ids=inputs["position_ids"],
        use_cache=False,
    ).last_hidden_state[:, :-1]
    labels = inputs["labels"][:, 1:]
    trained = labels != IGNORED
    head = base.get_output_embeddings()
    logits = linear(hidden[trained].to(head.weight.dtype), head.weight, head.bias).float()
    total = cross_entropy(logits, labels[trained], reduction="sum")
    loss: torch.Tensor = total / (num_items if num_items is not None else trained.sum().clamp(min=1))
    return loss


def is_own_loss(model: Any) -> bool:
    """Tell whether `answer_loss` is the loss of `model` itself, tried on a few tokens.

    It is not where the model scales or caps what its output embeddings give, or adds another loss.
    """
    import torch

    base, training = model.get_base_model(), model.training
    rows = sample_rows(base)
    batch = {
        "input_ids": rows.input_ids,
        "position_ids": rows.position_ids,
        "labels": rows.labels,
        "attention_mask": rows.attention_mask(mask_dtype(base)),
    }
    model.eval()
    with torch.no_grad():
        own, ours = float(base(**batch, use_cache=False).loss), float(answer_loss(model, batch))
    model.train(training)
    return abs(ours - own) <= (1e-4 if base.dtype == torch.float32 else 1e-2) * max(1.0, own)


def in_one_place(arguments: Any) -> Any:
    """Return transformers' `arguments`, told that this process has one GPU, however many it sees.

    The model is on one, and transformers would spread each batch over all; several are for `--launch`.
    """
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _sft_arguments(recipe: Recipe, scratch: Path, device: str, arithmetic: torch.dtype, evaluates: bool) -> Any:
    """Translate the recipe into trl's configuration; examples come tokenised and laid out."""
    from trl import SFTConfig

    arguments = SFTConfig(
        **shared_arguments(recipe, scratch, device, arithmetic, evaluates),
        packing=False,
        max_length=None,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        router_aux_loss_coef=0.0,  # the balance of experts would be taken of the mask, which counts no tokens here
    )
    return in_one_place(arguments)


def make_schedule(optimizer: Any, steps: int, recipe: Recipe, clock: Clock) -> Any:
    """Return the learning-rate schedule of the recipe, by steps or by time, whichever is further."""
    from torch.optim.lr_scheduler import LambdaLR

    def factor(step: int) -> float:
        progress = max(step / steps, clock.share())
        return rate_factor(progress, recipe.optimisation.schedule, recipe.optimisation.warmup)

    return LambdaLR(optimizer, factor)


def shared_arguments(
    recipe: Recipe, scratch: Path, device: str, arithmetic: torch.dtype, evaluates: bool
) -> dict[str, Any]:
    """Return those arguments of trl's configurations that fine-tuning and preference training share."""
    import torch

    steps, tracking = recipe.optimisation, recipe.tracking
    keeps_best = evaluates and tracking.patience is not None
    save_every = tracking.save_every or (tracking.eval_every if keeps_best else None)
    return {
        "output_dir": str(scratch),
        "per_device_train_batch_size": steps.batch_size,
        "per_device_eval_batch_size": steps.batch_size,
        "gradient_accumulation_steps": steps.accumulation,
        "num_train_epochs": steps.epochs or UNLIMITED_EPOCHS,
        "max_steps": steps.max_steps or -1,
        "learning_rate": steps.learning_rate,
        "weight_decay": steps.weight_decay,
        "max_grad_norm": steps.max_grad_norm,
        "optim": steps.optimizer,
        "gradient_checkpointing": steps.gradient_checkpointing,
        "seed": steps.seed,
        "bf16": arithmetic == torch.bfloat16,
        "fp16": arithmetic == torch.float16,
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device != "cpu",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
        "report_to": list(tracking.report_to) or "none",
        "run_name": scratch.name.removeprefix(".").removesuffix(".training"),
        "project": "versus",
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": tracking.eval_every if evaluates else None,
        "save_strategy": "steps" if save_every else "no",
        "save_steps": save_every or 500,
        "save_total_limit": 2,
        "load_best_model_at_end": keeps_best,
        "metric_for_best_model": "eval_loss" if keeps_best else None,
        "greater_is_better": False if keeps_best else None,
    }


def require_trackers(names: Sequence[str]) -> None:
    """Raise TrainingError if a tracker of `report_to` is not installed; before a model is loaded in vain."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise TrainingError(
            f"tracking.report_to names {', '.join(missing)}, not installed here: `pip install {' '.join(missing)}`, or "
            "leave it out"
        )
    os.environ.setdefault("WANDB_PROJECT", "versus")


def step_watcher(clock: Clock, on_step: Callable[[TrainingStep], None] | None) -> Any:
    """Return the callback that watches the clock, reports steps, refuses broken losses and seals checkpoints."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
            if optimizer is not None:
                unpage(optimizer)
            state.compute_steps(args, state.max_steps)  # resumed, it would save and measure as often as it did before
            control.should_training_stop |= state.global_step >= state.max_steps

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.agree()
            if clock.share() >= 1:
                clock.stopped = "time"
                control.should_training_stop = True

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            logs = logs or {}
            skips = args.fp16 and _skipped(state.log_history) < MOST_SKIPPED
            _refuse_broken(logs, state.global_step, Path(args.output_dir), gradient=not skips)
            loss, eval_loss = logs.get("loss"), logs.get("eval_loss")
            if on_step is not None and is_first() and (loss is not None or eval_loss is not None):
                shown = loss if loss is not None else _last_loss(state.log_history)
                on_step(TrainingStep(state.global_step, _total(state, clock), shown, clock.elapsed(), eval_loss))

        def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            require_finite(model, state.global_step, Path(args.output_dir))
            wait()
            if is_first():
                seal(Path(args.output_dir) / f"checkpoint-{state.global_step}", clock.elapsed())

    return Watcher()


def unpage(optimizer: Any) -> None:
    """Take the mark of paged memory off the state that an optimiser of bitsandbytes found in a checkpoint.

    The mark comes back with the tensor, the paged memory does not: where the state is loaded straight onto a device,
    as several processes do, bitsandbytes would prefetch ordinary memory, and fail (its issue 1708).
    """
    for state in optimizer.state.values():
        for name, value in state.items():
            if getattr(value, "is_paged", False):
                state[name] = value.detach()


def _total(state: Any, clock: Clock) -> int:
    """Return the number of steps, estimated from the time used where that ends first."""
    by_time = math.ceil(state.global_step / clock.share()) if clock.share() > 0 else state.max_steps
    return max(int(min(state.max_steps, by_time)), int(state.global_step))


def _last_loss(history: list[dict[str, Any]]) -> float:
    """Return the last training loss logged, or not-a-number before the first."""
    return next((float(row["loss"]) for row in reversed(history) if "loss" in row), math.nan)


def require_finite(model: Any, step: int, scratch: Path) -> None:
    """Raise TrainingError if a trained weight is no number: such weights are neither sealed nor written."""
    if model is not None and not all(bool(weight.isfinite().all()) for weight in trainable_parameters(model)):
        raise _broken("a weight", step, "not finite", scratch)


def _skipped(history: list[dict[str, Any]]) -> int:
    """Return how many of the last logged gradients, in a row, were not finite: a loss scaler skips such steps."""
    norms = (float(row["grad_norm"]) for row in reversed(history) if "grad_norm" in row)
    return sum(1 for _ in takewhile(lambda norm: not math.isfinite(norm), norms))


def _refuse_broken(logs: dict[str, Any], step: int, scratch: Path, *, gradient: bool = True) -> None:
    """Raise TrainingError if the loss is not finite, or, where `gradient` counts too, the gradient."""
    for name in ("loss", "eval_loss", *(["grad_norm"] if gradient else [])):
        value = logs.get(name)
        if value is not None and not math.isfinite(float(value)):
            raise _broken(f"the {name.replace('_', ' ')}", step, value, scratch)


def _broken(what: str, step: int, value: Any, scratch: Path) -> TrainingError:
    """Return the error of numbers that broke, with where the last good ones are."""
    good = last_sealed(scratch)
    kept = "" if good is None else f", the weights of step {good.name.rpartition('-')[2]} lie in {good}"
    return TrainingError(
        f"{what} at step {step} is {value}: nothing was overwritten{kept}; lower optimisation.learning_rate to a half "
        "or less, or set model.dtype to bfloat16 or float32"
    )
