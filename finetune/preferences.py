"""Learn from preferred and rejected answers: direct preference optimisation with trl's `DPOTrainer`.

The loss of a pair is -log sigmoid(beta · ((log p(chosen) - log p(rejected)) - the same of the reference)), summed over
the tokens of an answer (Rafailov et al. 2023, arXiv 2305.18290). The reference is asked once, before the first step.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.conversations import closed_book
from finetune.adapters import (
    WEIGHTS,
    attach_lora,
    check_whole,
    continue_lora,
    drop_adapter,
    lora_section,
    trainable_parameters,
)
from finetune.chat import encode_exchange
from finetune.checkpoints import scratch_of, writing_checkpoints
from finetune.config import DataSection, DpoSection, Recipe, preference_recipe_names
from finetune.dataset import Example
from finetune.errors import AdapterError, RecipeError, TrainingDataError
from finetune.forgetting import MultipleChoice, multiple_choice_score, why_not_asked
from finetune.models import base_fingerprint, choose_dtype, default_device, load_tokenizer, model_context
from finetune.new_folders import check_replaceable
from finetune.packing import IGNORED
from finetune.preference_data import SHOWN_PROBLEMS, Preference
from finetune.run_record import RunRecord, read_run_record
from finetune.trainer import (
    Clock,
    EndsWhereItEnded,
    TrainingStep,
    in_one_place,
    make_schedule,
    require_finite,
    require_trackers,
    shared_arguments,
    step_watcher,
)
from finetune.training import (
    TrainingData,
    checkpoint_to_resume,
    load_for_training,
    make_record,
    readable_failures,
    require_arithmetic,
    write_adapter,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

DATA_KEYS = ("language", "max_length")
"""Keys of `[data]` that count for preferences."""
REFERENCE = "ref"
"""The name that trl gives to the copy of an adapter that is its reference."""


def train_preferences(
    recipe: Recipe,
    preferences: Sequence[Preference],
    output: Path,
    *,
    start: Path | None = None,
    on_step: Callable[[TrainingStep], None] | None = None,
    resume: bool = False,
    general: Sequence[MultipleChoice] = (),
    device: str | None = None,
) -> RunRecord:
    """Teach the preferences to the adapter in folder `start`, or to a fresh one, and write it to `output`.

    With `start` the adapter keeps its rank and its layers; `[lora]` counts only for a fresh one, and the run record's
    is that of `start`. The new run record holds the question ids of `start` and those of the preferences, and says in
    `preferences` how far the pairs' margins moved. `output` takes its content in one step at the end; with `resume` an
    interrupted training goes on from its last whole checkpoint; without, a start that would lose such a checkpoint is
    refused. `general` multiple-choice questions are asked before and after, to see what is forgotten. Raises
    FinetuneError.
    """
    check_replaceable(output)
    clock, started = Clock(recipe.optimisation.max_seconds), datetime.now(UTC)
    device = device or default_device()
    dpo = _settings(recipe)
    require_trackers(recipe.tracking.report_to)
    require_arithmetic(recipe, device)
    fingerprint = base_fingerprint(recipe.model.name)
    former = _start_record(start, recipe, fingerprint)
    tokenizer = load_tokenizer(recipe.model.name)
    pairs = _encode(preferences, tokenizer, recipe, dpo)
    data = _training_data(preferences, pairs, start)
    scratch = scratch_of(output)
    checkpoint = checkpoint_to_resume(scratch, recipe, data.sha256, fingerprint, resume, clock)
    with readable_failures(recipe, data):
        model = load_for_training(recipe, device)
        checkpointing = recipe.optimisation.gradient_checkpointing
        adapted = (
            attach_lora(model, recipe.lora, checkpointing=checkpointing)
            if start is None
            else continue_lora(model, start, checkpointing=checkpointing)
        )
        known = _general_share(adapted, tokenizer, general, recipe)
        before = margins(adapted, pairs, recipe.optimisation.batch_size)
        trainer = _make_trainer(adapted, tokenizer, recipe, dpo, preferences, scratch, device, clock, on_step)
        with writing_checkpoints(scratch):
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        require_finite(adapted, trainer.state.global_step, scratch)
        after = margins(adapted.eval(), pairs, recipe.optimisation.batch_size)
        kept = _general_share(adapted, tokenizer, general, recipe)
    done = recipe if start is None else replace(recipe, lora=lora_section(adapted))
    record = make_record(done, trainer, data, fingerprint, device, started, clock)
    ids = (*(former.trained_ids if former else ()), *(p.question_id for p in preferences if p.question_id))
    told = {"start": start.name if start else None, **_moved(before, after)}
    forgetting = {"before": known, "after": kept, "questions": len(general)} if general else None
    record = replace(record, trained_ids=tuple(dict.fromkeys(ids)), preferences=told, forgetting=forgetting)
    record = replace(record, forgetting_unasked=why_not_asked(tokenizer, general))
    write_adapter(adapted, record, output, scratch)
    return record


def _general_share(
    model: Any, tokenizer: PreTrainedTokenizerBase, general: Sequence[MultipleChoice], recipe: Recipe
) -> float:
    """Return the share of general questions that the model gets right; 0 where there are none."""
    was_training, context = model.training, model_context(recipe.model.name)
    share = multiple_choice_score(model.eval(), tokenizer, general, max_length=context) if general else 0.0
    model.train(was_training)
    return share


@dataclass(frozen=True)
class EncodedPair:
    """A preference as tokens: the whole exchange with either answer, labels of the prompt `IGNORED`."""

    chosen: Example
    rejected: Example


def margins(model: Any, pairs: Sequence[EncodedPair], batch_size: int = 8) -> list[float]:
    """Return log p(chosen) - log p(rejected) of each pair, in nats, summed over the tokens of an answer."""
    import torch

    differences: list[float] = []
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for begin in range(0, len(pairs), batch_size):
            some = pairs[begin : begin + batch_size]
            values = _log_probabilities(model, [p.chosen for p in some] + [p.rejected for p in some])
            differences += (values[: len(some)] - values[len(some) :]).tolist()
    model.train(was_training)
    return differences


def _moved(before: Sequence[float], after: Sequence[float]) -> dict[str, float]:
    """Return how many pairs there are, their mean margins, and the share whose margin grew."""
    return {
        "pairs": len(before),
        "margin_before": round(sum(before) / len(before), 4),
        "margin_after": round(sum(after) / len(after), 4),
        "grown": round(sum(b < a for b, a in zip(before, after, strict=True)) / len(before), 4),
    }


def _log_probabilities(model: Any, examples: Sequence[Example]) -> torch.Tensor:
    """Return the log-probability of each example's answer: shape (b,), in float32."""
    import torch

    width = max(len(example.input_ids) for example in examples)

    def padded(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
        return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows], device=model.device)

    ids = padded([example.input_ids for example in examples], 0)
    labels = padded([example.labels for example in examples], IGNORED)
    mask = padded([[1] * len(example.input_ids) for example in examples], 0)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
    targets, kept = labels[:, 1:], labels[:, 1:] != IGNORED
    chosen = logits.gather(2, targets.clamp(min=0)[:, :, None])[:, :, 0] - logits.logsumexp(dim=2)
    total: torch.Tensor = (chosen * kept).sum(dim=1)
    return total


def _settings(recipe: Recipe) -> DpoSection:
    """Return the recipe's `[dpo]`; raises RecipeError if it has none, or settings that do not apply."""
    if recipe.dpo is None:
        raise RecipeError(
            f"recipe {recipe.name} has no section [dpo], so it does not learn from preferences; "
            f"recipes that do: {', '.join(preference_recipe_names())}"
        )
    unused = [f"tracking.{key}" for key in ("eval_every", "patience") if getattr(recipe.tracking, key) is not None]
    plain, given = asdict(DataSection()), asdict(recipe.data)
    unused += [f"data.{key}" for key in given if key not in DATA_KEYS and given[key] != plain[key]]
    if unused:
        raise RecipeError(f"recipe {recipe.name}: what does not apply to preferences: {', '.join(unused)}; take it out")
    return recipe.dpo


def _start_record(start: Path | None, recipe: Recipe, fingerprint: str) -> RunRecord | None:
    """Return the run record of the adapter to start from; raises AdapterError if it does not fit."""
    if start is None:
        return None
    check_whole(start)
    record = read_run_record(start)
    if record.base_fingerprint != fingerprint:
        raise AdapterError(
            f"{start}: the adapter was made for base model {record.base_model}, not for {recipe.model.name} of recipe "
            f"{recipe.name}: name a recipe for that model, or set --model"
        )
    if record.context:
        raise AdapterError(
            f"{start}: the adapter was trained with passages in the prompt, and preferences hold none: start from one "
            "trained closed-book, or from the base"
        )
    return record


def _encode(
    preferences: Sequence[Preference], tokenizer: PreTrainedTokenizerBase, recipe: Recipe, dpo: DpoSection
) -> list[EncodedPair]:
    """Turn preferences into tokens; raises TrainingDataError if they are too few or too long."""
    if len(preferences) < dpo.min_pairs:
        raise TrainingDataError(
            f"there are {len(preferences)} preferences and recipe {recipe.name} needs at least {dpo.min_pairs} "
            "(dpo.min_pairs): vote more, or lower it"
        )
    context = model_context(recipe.model.name)
    limit = recipe.data.max_length or context
    if limit > context:
        raise TrainingDataError(f"data.max_length is {limit}, but {recipe.model.name} holds {context} tokens: lower it")
    pairs, too_long = [], []
    for preference in preferences:
        pair = EncodedPair(
            _example(preference, preference.chosen, tokenizer), _example(preference, preference.rejected, tokenizer)
        )
        length = max(len(pair.chosen.input_ids), len(pair.rejected.input_ids))
        if length > limit:
            too_long.append(f"{preference.prompt[:40]!r} ({length} tokens)")
        pairs.append(pair)
    if too_long:
        raise TrainingDataError(
            f"{len(too_long)} of {len(preferences)} preferences are longer than {limit} tokens: "
            f"{', '.join(too_long[:SHOWN_PROBLEMS])}; shorten or leave them out, or raise data.max_length"
        )
    return pairs


def _example(preference: Preference, answer: str, tokenizer: PreTrainedTokenizerBase) -> Example:
    ids, shared = encode_exchange(tokenizer, closed_book(preference.prompt), answer)
    return Example(preference.question_id or "", tuple(ids), (IGNORED,) * shared + tuple(ids[shared:]))


def _training_data(preferences: Sequence[Preference], pairs: Sequence[EncodedPair], start: Path | None) -> TrainingData:
    """Return what is trained, with a hash over the preferences and the adapter that it starts from."""
    digest = hashlib.sha256(repr([astuple(each) for each in preferences]).encode())
    if start is not None:
        digest.update((start / WEIGHTS).read_bytes())
    both = [example for pair in pairs for example in (pair.chosen, pair.rejected)]
    longest = max(len(example.input_ids) for example in both)
    return TrainingData(both, [], digest.hexdigest(), longest, ())


def _make_trainer(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    dpo: DpoSection,
    preferences: Sequence[Preference],
    scratch: Path,
    device: str,
    clock: Clock,
    on_step: Callable[[TrainingStep], None] | None,
) -> Any:
    """Return the trainer; the reference's log-probabilities are known by then, and its copy is gone."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    from datasets import Dataset, disable_progress_bars
    from transformers import PrinterCallback
    from trl import DPOConfig, DPOTrainer

    disable_progress_bars()

    class PreferenceTrainer(EndsWhereItEnded, DPOTrainer):  # type: ignore[misc]
        """DPOTrainer whose learning rate follows steps or time, and whose reference may be the bare base."""

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            self.lr_scheduler = make_schedule(optimizer or self.optimizer, num_training_steps, recipe, clock)
            return self.lr_scheduler

        def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
            if dpo.reference == "base":
                drop_adapter(model, REFERENCE)
            return super().compute_ref_log_probs(model, inputs)

    arithmetic = choose_dtype(recipe.model.dtype, device)
    trainer = PreferenceTrainer(
        model=model,
        args=in_one_place(
            DPOConfig(
                **shared_arguments(recipe, scratch, device, arithmetic, evaluates=False),
                max_length=None,
                beta=dpo.beta,
                loss_type=list(dpo.losses),
                loss_weights=list(dpo.loss_weights) or None,
                label_smoothing=dpo.label_smoothing,
                precompute_ref_log_probs=True,
            )
        ),
        train_dataset=Dataset.from_list([_row(each) for each in preferences]),
        processing_class=tokenizer,
        callbacks=[step_watcher(clock, on_step)],
    )
    drop_adapter(model, REFERENCE)
    trainer.remove_callback(PrinterCallback)
    for parameter in trainable_parameters(model):
        parameter.data = parameter.data.float()
    return trainer


def _row(preference: Preference) -> dict[str, Any]:
    """Return a preference as trl's conversational row; no thinking blocks, as when the model is asked."""
    return {
        "prompt": [{"role": "user", "content": preference.prompt}],
        "chosen": [{"role": "assistant", "content": preference.chosen}],
        "rejected": [{"role": "assistant", "content": preference.rejected}],
        "chat_template_kwargs": {"enable_thinking": False},
    }
