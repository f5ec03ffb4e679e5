"""Continual causal pretraining: bf16 weights with fp32 masters, AdamW, re-warmed and re-decayed learning rate.

A batch is a pure function of the step (`Batches`), so a run that was killed goes on from its last checkpoint with
exactly the batches it would have seen. The loop is plain torch: measured on 2 cores, bf16 weights with fp32 masters
train about 1.7 times as many tokens a second as fp32, and the Trainer has no such mode. The schedule is that of
Ibrahim et al. (2024), arXiv 2403.08763.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from finetune.errors import FinetuneError, RecipeError
from finetune.interrupts import between_steps
from finetune.master_weights import MasterWeights
from finetune.packed_rows import float_mask
from finetune.packing import IGNORED, PackedBatch
from finetune.prefetching import batches_of
from finetune.pretraining_state import CHECKPOINT, Progress, restore, save
from finetune.processes import is_first, of_first, place, process_count, summed
from finetune.sharding import Computing, SharedWeights, computing_on

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


NOT_NEGATIVE = (
    "warmup_steps",
    "max_seconds",
    "threads",
    "guide_weight",
    "weight_decay",
    "rows_at_once",
    "workers",
)
"""Fields of `PretrainingConfig`."""


@dataclass(frozen=True)
class PretrainingConfig:
    """How to train; every field can stand in a recipe's TOML.

    steps: optimiser steps · rows, row_length: a step's batch in rows and tokens · learning_rate: at its peak ·
    warmup_steps: linear rise · final_share: of the peak, where the cosine ends · clip: largest gradient norm ·
    max_seconds: stop early and decay to the end in time (0: no limit) · threads: of torch (0: torch's own choice) ·
    guide_weight: of the attention guide's loss · seed: of everything random · rows_at_once: rows of one pass through
    the model, less memory for the same step (0: all) · gradient_checkpointing: compute activations twice, less memory ·
    workers: processes that make batches ahead, for a device that would wait for them (0: made in between).
    """

    steps: int = 1000
    rows: int = 8
    row_length: int = 256
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    final_share: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    max_seconds: float = 0.0
    threads: int = 0
    guide_weight: float = 0.0
    evaluate_every: int = 200
    checkpoint_every: int = 100
    seed: int = 0
    rows_at_once: int = 0
    gradient_checkpointing: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        wrong = [
            f"{name} must be at least 1"
            for name in ("steps", "rows", "row_length", "evaluate_every", "checkpoint_every")
            if getattr(self, name) < 1
        ]
        wrong += [f"{name} must not be negative" for name in NOT_NEGATIVE if getattr(self, name) < 0]
        if self.learning_rate <= 0 or self.clip <= 0:
            wrong.append("learning_rate and clip must be above 0")
        if not 0 <= self.final_share <= 1:
            wrong.append("final_share must lie between 0 and 1")
        if self.rows_at_once and self.guide_weight:
            wrong.append("rows_at_once and guide_weight contradict each other: guides need the whole batch")
        if wrong:
            raise RecipeError(*wrong)


@dataclass(frozen=True)
class Guide:
    """Where some heads should look.

    heads: (layer, head) pairs. first, last: (b, t) int64, the columns from and to which, both included, the attention
    of each token should go; -1 where the token is left free.
    """

    heads: tuple[tuple[int, int], ...]
    first: torch.Tensor
    last: torch.Tensor


@dataclass(frozen=True)
class TrainingBatch:
    """A packed batch with the loss weight of each label, (b, t) float, and guides for attention, if any."""

    packed: PackedBatch
    weights: torch.Tensor
    guides: tuple[Guide, ...] = ()

    def on(self, device: torch.device) -> TrainingBatch:
        """Return the batch on `device`."""
        guides = tuple(Guide(each.heads, each.first.to(device), each.last.to(device)) for each in self.guides)
        return TrainingBatch(self.packed.on(device), self.weights.to(device), guides)

    def parts(self, rows: int) -> list[TrainingBatch]:
        """Return the batch in parts of at most `rows` rows; whole for 0. Raises FinetuneError if it has guides."""
        if not rows or rows >= len(self.weights):
            return [self]
        if self.guides:
            raise FinetuneError("a batch with guides cannot be cut into parts: set rows_at_once = 0")
        places = [slice(start, start + rows) for start in range(0, len(self.weights), rows)]
        return [TrainingBatch(self.packed.rows(place), self.weights[place]) for place in places]

    def share(self, number: int, count: int) -> TrainingBatch:
        """Return the rows of process `number` of `count`. Raises FinetuneError if there is none for each, or guides."""
        if count == 1:
            return self
        if self.guides or len(self.weights) < count:
            raise FinetuneError(
                f"{count} processes share the rows of a step, without guides: set pretraining.rows to {count} or more"
            )
        rows = slice(number, None, count)
        return TrainingBatch(self.packed.rows(rows), self.weights[rows])

    def weight(self) -> float:
        """Return the sum of the weights of the tokens that are predicted."""
        counted = self.packed.labels[:, 1:] != IGNORED
        return float(self.weights[:, 1:][counted].sum())


class Batches(Protocol):
    """A source of batches: the same step gives the same batch, in any process."""

    def __call__(self, step: int) -> TrainingBatch:
        """Return the batch of a step, counted from 0."""
        ...


class Auxiliary(Protocol):
    """A further loss, computed from the hidden states of every layer, each (b, t, hidden)."""

    def __call__(
        self, model: PreTrainedModel, hidden_states: Sequence[torch.Tensor], packed: PackedBatch
    ) -> torch.Tensor:
        """Return the loss, weighted as it should count."""
        ...


@dataclass(frozen=True)
class Step:
    """What a step reports: number from 1, of how many, loss (nats per token), seconds and tokens so far, evaluation."""

    step: int
    total: int
    loss: float
    seconds: float
    tokens: int
    evaluation: dict[str, float] | None


@dataclass(frozen=True)
class PretrainingResult:
    """The course of a run: steps and tokens done, seconds, losses (step, nats per token), evaluations."""

    steps: int
    tokens: int
    seconds: float
    losses: tuple[tuple[int, float], ...]
    evaluations: tuple[dict[str, float], ...]


def learning_rate(config: PretrainingConfig, step: int, share: float) -> float:
    """Return the rate at `step` (from 0) when `share` of the run is done: linear warm-up, then cosine."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    return config.learning_rate * warm * (config.final_share + (1 - config.final_share) * cosine)


def batch_loss(
    model: PreTrainedModel,
    batch: TrainingBatch,
    *,
    guide_weight: float = 0.0,
    auxiliary: Auxiliary | None = None,
) -> torch.Tensor:
    """Return the weighted mean cross entropy (nats) of a batch, plus its guides' and the auxiliary loss.

    The output layer runs only where a label carries weight. Guides need a model loaded with eager attention.
    """
    import torch
    from torch.nn import functional

    packed = batch.packed
    guided = bool(batch.guides) and guide_weight > 0
    output = model.base_model(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        attention_mask=packed.attention_mask(float_mask(model, packed.input_ids.shape[1])),
        output_attentions=guided,
        output_hidden_states=auxiliary is not None,
        use_cache=False,
    )
    labels, weights = packed.labels[:, 1:], batch.weights[:, 1:]
    counted = (labels != IGNORED) & (weights > 0)
    logits = model.get_output_embeddings()(output.last_hidden_state[:, :-1][counted]).float()
    losses = functional.cross_entropy(logits, labels[counted], reduction="none")
    loss = (losses * weights[counted]).sum() / weights[counted].sum()
    if guided:
        loss = loss + guide_weight * sum(guide_loss(output.attentions, guide) for guide in batch.guides)
    if auxiliary is not None:
        loss = loss + auxiliary(model, output.hidden_states, packed)
    return torch.as_tensor(loss)


def guide_loss(attentions: Sequence[torch.Tensor], guide: Guide) -> torch.Tensor:
    """Return the mean negative log of the attention that a guide's heads give to its columns, over guided tokens.

    attentions: one (b, heads, t, t) per layer. It teaches reading directly: the head that must fetch the next token
    from the sources is told where that token stands.
    """
    import torch

    rows, places = torch.nonzero(guide.first >= 0, as_tuple=True)
    if rows.numel() == 0:
        return torch.zeros((), device=guide.first.device)
    given = torch.stack([attentions[layer][rows, head, places] for layer, head in guide.heads]).float()
    columns = torch.arange(given.shape[-1], device=given.device)
    inside = (columns >= guide.first[rows, places][:, None]) & (columns <= guide.last[rows, places][:, None])
    return -(given * inside).sum(-1).clamp_min(1e-4).log().mean()


def pretrain(
    model: PreTrainedModel,
    batches: Batches,
    config: PretrainingConfig,
    folder: Path,
    *,
    evaluate: Callable[[PreTrainedModel], dict[str, float]] | None = None,
    on_step: Callable[[Step], None] | None = None,
    auxiliary: Auxiliary | None = None,
    resume: bool = True,
    shared: Computing | None = None,
) -> PretrainingResult:
    """Train `model` in place, leaving checkpoints in `folder`; a killed run goes on from the last one if `resume`.

    The checkpoint is written whole or not at all, also when the run is interrupted: then after the step at hand. In
    several processes (see `processes`) each takes its share of a step's rows, and the first evaluates, reports and
    writes. A model that they share comes with `shared`, from `sharding.share_out`; then all evaluate, together.
    Raises TrainingError if the loss is no longer finite; the last checkpoint stays.
    """
    import torch

    if config.threads:
        torch.set_num_threads(config.threads)
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = SharedWeights(model, config) if shared else MasterWeights(model, config)
    progress = Progress()
    if resume and (folder / CHECKPOINT).is_file():
        progress = restore(folder / CHECKPOINT, optimizer)
    started = time.monotonic() - progress.seconds
    model.train()
    with between_steps() as interrupted:
        for batch in batches_of(batches, range(progress.step, config.steps), config.workers):
            if _out_of_time(config, progress):
                break
            loss = _gradients(model, batch, config, auxiliary, shared)
            optimizer.step(learning_rate(config, progress.step, _share(config, progress)))
            progress.step += 1
            progress.tokens += int((batch.packed.segments > 0).sum())
            progress.seconds = of_first(time.monotonic() - started)
            progress.losses.append((progress.step, loss))
            evaluation = _evaluation(model, progress, config, evaluate if is_first() or shared else None, shared)
            if on_step is not None and is_first():
                on_step(Step(progress.step, config.steps, loss, progress.seconds, progress.tokens, evaluation))
            stopping = summed(interrupted()) > 0
            if progress.step % config.checkpoint_every == 0 or stopping:
                save(folder / CHECKPOINT, optimizer, progress)
            if stopping:
                raise KeyboardInterrupt
    save(folder / CHECKPOINT, optimizer, progress)
    model.eval()
    return PretrainingResult(
        progress.step, progress.tokens, progress.seconds, tuple(progress.losses), tuple(progress.evaluations)
    )


def _gradients(
    model: PreTrainedModel,
    batch: TrainingBatch,
    config: PretrainingConfig,
    auxiliary: Auxiliary | None,
    shared: Computing | None = None,
) -> float:
    """Add the gradients of this process's rows of a batch to the weights, part by part; return the whole batch's loss.

    Each part counts by its share of the batch's weight, so that the sum over parts and processes is the batch's own.
    Processes that share the model compute together: one that has fewer parts repeats its last, which counts nothing.
    """
    import torch

    whole, compute = batch.weight(), shared or computing_on(model)
    total = 0.0
    parts = batch.share(place(), process_count()).parts(config.rows_at_once)
    idle = _most_parts(batch, config) - len(parts) if shared else 0
    for part, counts in [*((part, True) for part in parts), *[(parts[-1], False)] * idle]:
        loss = compute(
            partial(batch_loss, batch=part.on(model.device), guide_weight=config.guide_weight, auxiliary=auxiliary)
        )
        share = 1.0 if part is batch else part.weight() / whole * counts
        torch.autograd.backward(loss * share)
        total += float(loss.detach()) * share
    return summed(total)


def _most_parts(batch: TrainingBatch, config: PretrainingConfig) -> int:
    """Return in how many parts the process with the most rows of a batch computes them."""
    rows = -(-len(batch.weights) // process_count())
    return -(-rows // (config.rows_at_once or rows))


def _share(config: PretrainingConfig, progress: Progress) -> float:
    """Return how much of the run is done, by steps or by time, whichever is further."""
    by_steps = progress.step / config.steps
    return max(by_steps, progress.seconds / config.max_seconds) if config.max_seconds else by_steps


def _out_of_time(config: PretrainingConfig, progress: Progress) -> bool:
    return bool(config.max_seconds) and progress.seconds >= config.max_seconds


def _evaluation(
    model: PreTrainedModel,
    progress: Progress,
    config: PretrainingConfig,
    evaluate: Callable[[PreTrainedModel], dict[str, float]] | None,
    shared: Computing | None,
) -> dict[str, float] | None:
    """Evaluate at every `evaluate_every`-th step and at the last one."""
    if evaluate is None or (progress.step % config.evaluate_every and progress.step != config.steps):
        return None
    model.eval()
    figures = (shared or computing_on(model))(evaluate)
    model.train()
    progress.evaluations.append({"step": progress.step, "tokens": progress.tokens, **figures})
    return figures


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all."""
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
