"""Continue a causal model's pretraining on new text, larger than memory if need be, and write the model that comes out.

The learning rate warms up again and decays again, and a share of general text is replayed against forgetting (Ibrahim
et al. 2024, arXiv 2403.08763). Text is turned into token files first, beside the model to be; from then on a step's
rows depend on the step alone, so an interrupted run goes on exactly where it was.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.atomic import write_text
from finetune.checkpoints import enter, scratch_of
from finetune.continual_recipe import ContinualRecipe
from finetune.cpu_attention import use_float32_attention
from finetune.errors import ModelError, RecipeError
from finetune.forgetting import MultipleChoice, general_score, why_not_asked
from finetune.memory_failures import SMALLER_BASE, readable_memory
from finetune.models import base_fingerprint, choose_dtype, default_device, load_base, model_context
from finetune.new_folders import check_replaceable
from finetune.packed_rows import float_mask, heeds, keeps_apart
from finetune.packing import PackedBatch
from finetune.prepared_text import Prepared, prepare_text
from finetune.pretraining import Batches, PretrainingConfig, PretrainingResult, Step, pretrain
from finetune.pretraining_state import CHECKPOINT
from finetune.processes import first_goes_ahead, is_first, is_sharded, join, of_first, process_count, wait
from finetune.run_record import RunRecord, library_versions
from finetune.sharding import Computing, computing_on, gather, share_out
from finetune.shards import OnBytes, find_shards
from finetune.swapped_model import write_model
from finetune.text_rows import ReplayedRows, TextRows, bits_per_character
from finetune.tokenizer import open_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def continue_pretraining(
    recipe: ContinualRecipe,
    output: Path,
    *,
    general: Sequence[MultipleChoice] = (),
    resume: bool = False,
    on_step: Callable[[Step], None] | None = None,
    on_bytes: OnBytes | None = None,
    device: str | None = None,
) -> RunRecord:
    """Train as `recipe` says and write the model with tokenizer and run record to `output`; return the record.

    `on_bytes` follows the reading of the text, `on_step` the training. With `resume` an interrupted run of the same
    model and text goes on. `general` multiple-choice questions are asked before and after, to see what is forgotten, of
    a model that has a chat template; the record says why where they are not. `output` takes its content in one step at
    the end. In several processes (see `processes`) all of them call this; they share out each step's rows, and the
    first reads, measures and writes. Of a model that they share (`is_sharded`) all measure, together.
    Raises FinetuneError.
    """
    check_replaceable(output)
    started, device = datetime.now(UTC), join(device or default_device())
    tokenizer = open_tokenizer(recipe.model.name)
    _check_lengths(recipe, tokenizer)
    scratch = scratch_of(output)
    with first_goes_ahead(device):
        if is_first():
            enter(scratch, _identity(recipe), resume=resume, kept=CHECKPOINT)
        prepared = prepare_text(recipe.text, tokenizer, scratch, on_bytes)
    config = with_steps(recipe, prepared)
    with readable_memory(recipe.model.name, lambda: _memory_advice(recipe.pretraining)):
        model = _load(recipe, device)
        shared = share_out(model, device) if is_sharded() else None
        compute = shared or computing_on(model)
        measure = _measure(tokenizer, prepared, config.row_length)
        asked = () if why_not_asked(tokenizer, general) else general
        before = _kept_figures(scratch / "before.json", lambda: compute(measure)) if _measures() else {}
        knew = _general_share(compute, tokenizer, asked, scratch / "general.json")
        result = pretrain(
            model,
            _rows(recipe, config, prepared, tokenizer),
            config,
            scratch,
            evaluate=measure if prepared.new.held_out else None,
            on_step=on_step,
            shared=shared,
        )
        after = compute(measure) if _measures() else {}
        knows = _general_share(compute, tokenizer, asked)
        if shared:
            model = _gathered(recipe, model)
    record = _record(recipe, config, prepared, result, before, after, device, started)
    told = {"before": knew, "after": knows, "questions": len(asked)} if asked else None
    record = replace(record, forgetting=told, forgetting_unasked=why_not_asked(tokenizer, general))
    if is_first():
        write_model(model, tokenizer, record, output)
        shutil.rmtree(scratch, ignore_errors=True)
    wait()
    return record


def _check_lengths(recipe: ContinualRecipe, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise if a row is longer than the model's context, or the tokenizer cannot end a document."""
    context, length = model_context(recipe.model.name), recipe.pretraining.row_length
    if length > context:
        raise RecipeError(
            f"pretraining.row_length is {length}, but {recipe.model.name} holds {context} tokens: lower it"
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(f"model {recipe.model.name}: its tokenizer names no end token, which ends a document")


def _identity(recipe: ContinualRecipe) -> dict[str, Any]:
    """Return what must be the same for an interrupted run to go on: model, text, and the recipe's course."""
    paths = (*recipe.text.files, *recipe.text.general, *recipe.text.validation)
    return {
        "base": base_fingerprint(recipe.model.name),
        "files": [[str(path), path.stat().st_size] for path in find_shards(paths)],
        "recipe": recipe.course(),
    }


def with_steps(recipe: ContinualRecipe, prepared: Prepared) -> PretrainingConfig:
    """Return the configuration with the steps that `text.epochs` asks for."""
    config = recipe.pretraining
    if recipe.text.epochs is None:
        return config
    rows = recipe.text.epochs * (prepared.new.tokens // config.row_length) / (1 - recipe.text.replay)
    return replace(config, steps=max(1, math.ceil(rows / config.rows)))


def _rows(
    recipe: ContinualRecipe, config: PretrainingConfig, prepared: Prepared, tokenizer: PreTrainedTokenizerBase
) -> Batches:
    """Return the source of batches: new text, general text among it where there is some."""
    new = TextRows(prepared.new.path, config, tokenizer.eos_token_id)
    if prepared.general is None:
        return new
    return ReplayedRows(new, TextRows(prepared.general.path, config, tokenizer.eos_token_id), recipe.text.replay)


def _load(recipe: ContinualRecipe, device: str) -> PreTrainedModel:
    """Load the model for training, and make sure that its loss can be computed as it is here."""
    from transformers import set_seed

    set_seed(recipe.pretraining.seed)
    with readable_memory(recipe.model.name, lambda: SMALLER_BASE):
        model = load_base(recipe.model.name, dtype=_arithmetic(recipe, device), device=device)
    check_rows(model, recipe.model.name, recipe.pretraining.row_length)
    if device == "cpu":
        use_float32_attention(model)
    if recipe.pretraining.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model


def _arithmetic(recipe: ContinualRecipe, device: str) -> str:
    """Return the name of the dtype to train in; float16 has too few exponents for it."""
    chosen = str(choose_dtype(recipe.model.dtype, device)).removeprefix("torch.")
    return "float32" if chosen == "float16" else chosen


def check_rows(model: PreTrainedModel, name: str, row_length: int) -> None:
    """Raise ModelError unless documents in one row give the logits that each gives alone, head included."""
    mask = float_mask(model, row_length)

    def logits(batch: PackedBatch) -> torch.Tensor:
        hidden = model.base_model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=batch.attention_mask(mask),
            use_cache=False,
        ).last_hidden_state
        found: torch.Tensor = model.get_output_embeddings()(hidden)
        return found

    if not heeds(lambda: keeps_apart(model, logits, longest=row_length)):
        raise ModelError(
            f"model {name} ({type(model).__name__}) computes its logits in a way that pretraining here does not know, "
            "or mixes documents of one row: choose another architecture"
        )


def _measure(
    tokenizer: PreTrainedTokenizerBase, prepared: Prepared, row_length: int
) -> Callable[[PreTrainedModel], dict[str, float]]:
    """Return the function that gives bits per character of the held-back text, new and general."""
    general = prepared.general.held_out if prepared.general else ()
    samples = {"bits_per_character": prepared.new.held_out, "general_bits_per_character": general}

    def measure(model: PreTrainedModel) -> dict[str, float]:
        model.eval()
        return {
            name: round(bits_per_character(model, tokenizer, texts, row_length=row_length), 4)
            for name, texts in samples.items()
            if texts
        }

    return measure


def _measures() -> bool:
    """Tell whether this process measures: the first does, and of a shared model all have to."""
    return is_first() or is_sharded()


def _gathered(recipe: ContinualRecipe, model: PreTrainedModel) -> PreTrainedModel:
    """Return the shared model whole, in the first process; the others return their part of it."""
    dtype = _arithmetic(recipe, str(model.device))
    whole = load_base(recipe.model.name, dtype=dtype, device="cpu") if is_first() else None
    gather(model, whole)
    return whole or model


def _kept_figures(path: Path, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Return the figures of the model as it was before, measured once for a run and its resumption."""
    known = path.is_file()
    if not (of_first(known) if is_sharded() else known):
        figures = measure()
        if is_first():
            write_text(path, json.dumps(figures))
        return figures
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _general_share(
    compute: Computing,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[MultipleChoice],
    path: Path | None = None,
) -> float:
    """Return the share of general questions that the model gets right, once for a run and its resumption if `path`.

    0 where none are asked, and in processes that do not measure.
    """
    if not asked or not _measures():
        return 0.0

    def ask() -> float:
        return compute(lambda model: general_score(model, tokenizer, asked))

    return ask() if path is None else _kept_figures(path, lambda: {"share": ask()})["share"]


def _memory_advice(config: PretrainingConfig) -> str:
    """Say which setting to lower, and to what, to need less memory."""
    share = -(-config.rows // process_count())
    rows = min(config.rows_at_once or share, share)
    advice = [f"set pretraining.rows_at_once = {rows // 2}, which gives the same steps"] if rows > 1 else []
    if not config.gradient_checkpointing:
        advice.append("set pretraining.gradient_checkpointing = true")
    shorter = f"lower pretraining.row_length from {config.row_length} to {max(1, config.row_length // 2)}"
    return "; or ".join(advice or [shorter, SMALLER_BASE])


def _record(
    recipe: ContinualRecipe,
    config: PretrainingConfig,
    prepared: Prepared,
    result: PretrainingResult,
    before: dict[str, float],
    after: dict[str, float],
    device: str,
    started: datetime,
) -> RunRecord:
    """Collect what was done."""
    rows = prepared.new.tokens // config.row_length
    taken = result.steps * config.rows * (1 - recipe.text.replay)
    figures = {
        "before": before,
        "after": after,
        "course": list(result.evaluations),
        "new_tokens": prepared.new.tokens,
        "general_tokens": prepared.general.tokens if prepared.general else 0,
        "tokens_per_second": round(result.tokens / max(result.seconds, 1e-9), 1),
    }
    return RunRecord(
        recipe=json.loads(json.dumps(replace(recipe, pretraining=config).as_dict())),
        base_model=recipe.model.name,
        base_fingerprint=base_fingerprint(recipe.model.name),
        data_sha256=prepared.sha256,
        trained_ids=(),
        seed=config.seed,
        device=device,
        started=started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(result.seconds, 2),
        steps=result.steps,
        epochs=round(taken / rows, 3),
        trained_tokens=result.tokens,
        losses=result.losses,
        stopped="finished" if result.steps >= config.steps else "time",
        processes=process_count(),
        versions=library_versions(),
        figures=figures,
    )
