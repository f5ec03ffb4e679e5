"""Train a LoRA adapter with trl's `SFTTrainer`: one code path from pocket on two cores to a 4-bit 7B on a GPU."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.adapters import attach_lora, check_whole, save_adapter
from finetune.checkpoints import Resume, begin, scratch_of, to_go_on_from, writing_checkpoints
from finetune.config import Recipe
from finetune.cpu_attention import use_float32_attention
from finetune.dataset import Collator, Example, Passages, as_rows, build_examples, data_hash
from finetune.errors import LaunchError, TrainingDataError, TrainingError
from finetune.forgetting import SHARED_OUT, MultipleChoice, multiple_choice_score, why_not_asked
from finetune.loss_plot import write_loss_plot
from finetune.memory_failures import SMALLER_BASE, readable_memory
from finetune.models import (
    arithmetic_problem,
    base_fingerprint,
    choose_dtype,
    default_device,
    load_base,
    load_tokenizer,
    model_context,
    quantization_problem,
)
from finetune.new_folders import check_replaceable, new_folder
from finetune.packed_rows import check_packing, row_mask
from finetune.processes import is_first, is_sharded, join, of_first, process_count, wait
from finetune.rewording import with_rewordings
from finetune.run_record import RunRecord, library_versions, write_run_record
from finetune.trainer import Clock, TrainingStep, make_trainer, require_finite, require_trackers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from data_prep.questions import Question

__all__ = ["TrainingStep", "train_adapter"]


@dataclass(frozen=True)
class TrainingData:
    """Examples to train on and to validate on, the hash of the first, and the ids of questions that were too long."""

    train: list[Example]
    dev: list[Example]
    sha256: str
    max_length: int
    left_out: tuple[str, ...]


def train_adapter(
    recipe: Recipe,
    questions: Sequence[Question],
    output: Path,
    *,
    dev: Sequence[Question] = (),
    on_step: Callable[[TrainingStep], None] | None = None,
    resume: Resume = False,
    passages: Passages | None = None,
    general: Sequence[MultipleChoice] = (),
    device: str | None = None,
) -> RunRecord:
    """Train an adapter on `questions` as `recipe` says, and write it with its run record and loss curve to `output`.

    `dev` questions give the validation loss. `passages` returns the passages of a question's prompt, best first, or a
    `dataset.Context` (see `raft.raft_context`), for a recipe with `data.context`. `on_step` is called after every
    optimiser step. With `resume` (see `checkpoints.Resume`) an interrupted training goes on from its last whole
    checkpoint, or starts if there is none; without, a start that would lose such a checkpoint is refused. `general`
    multiple-choice questions are asked before and after, to see what is forgotten; not of a model that processes share.

    `output` takes its new content in one step at the end; until then, and if anything fails, what stood there stays.
    In several processes (see `processes`) all of them call this with the same data; the first writes.
    Raises FinetuneError for data, a model, a checkpoint or a training that cannot go on.
    """
    check_replaceable(output)
    clock = Clock(recipe.optimisation.max_seconds)
    started = datetime.now(UTC)
    device = device or default_device()
    if is_sharded() and device == "cpu":
        raise LaunchError(
            "training shares a model out on GPUs only: leave --sharded out, so that each process holds it"
        )
    device = join(device)
    _refuse_impossible(recipe, device, passages)
    context = model_context(recipe.model.name)
    fingerprint = base_fingerprint(recipe.model.name)
    tokenizer = load_tokenizer(recipe.model.name)
    data = _prepare(recipe, questions, dev, tokenizer, passages, context)
    scratch = scratch_of(output)
    checkpoint = checkpoint_to_resume(scratch, recipe, data.sha256, fingerprint, resume, clock)
    with readable_failures(recipe, data):
        model = load_for_training(recipe, device)
        longest = max(len(example.input_ids) for example in (*data.train, *data.dev))
        check_packing(model, recipe.model.name, packing=recipe.data.packing, longest=longest)
        before = _general_score(model, tokenizer, general, context, clock)
        adapted = attach_lora(model, recipe.lora, checkpointing=recipe.optimisation.gradient_checkpointing)
        trainer = make_trainer(
            adapted,
            tokenizer,
            recipe,
            as_rows(data.train),
            as_rows(data.dev),
            Collator(int(tokenizer.pad_token_id or 0), data.max_length, row_mask(model, longest), recipe.data.packing),
            scratch=scratch,
            device=device,
            arithmetic=choose_dtype(recipe.model.dtype, device),
            clock=clock,
            on_step=on_step,
        )
        with writing_checkpoints(scratch):
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        require_finite(adapted, trainer.state.global_step, scratch)
        after = _general_score(adapted.eval(), tokenizer, general, context, clock)
    record = make_record(recipe, trainer, data, fingerprint, device, started, clock)
    if before is not None and after is not None:
        record = replace(record, forgetting={"before": before, "after": after, "questions": len(general)})
    else:
        record = replace(record, forgetting_unasked=why_not_asked(tokenizer, general) or SHARED_OUT)
    write_adapter(adapted, record, output, scratch, gathered_weights(trainer))
    return record


def _refuse_impossible(recipe: Recipe, device: str, passages: Passages | None) -> None:
    """Raise FinetuneError for what can be known to fail before anything is loaded."""
    require_trackers(recipe.tracking.report_to)
    require_arithmetic(recipe, device)
    if recipe.data.context and passages is None:
        raise TrainingDataError(f"recipe {recipe.name} trains with context: passages for its questions are needed")


def _general_score(
    model: Any, tokenizer: PreTrainedTokenizerBase, general: Sequence[MultipleChoice], context: int, clock: Clock
) -> float | None:
    """Return the share of general questions that the model gets right, and keep the time it took free for the end.

    The first process's time is every process's: with times of their own one would stop while another waits for it.
    """
    if not general or is_sharded():
        return None
    started = time.monotonic()
    score = multiple_choice_score(model, tokenizer, general, max_length=context)
    clock.reserve = of_first(time.monotonic() - started)
    return score


def require_arithmetic(recipe: Recipe, device: str) -> None:
    """Raise TrainingError if the device cannot do a recipe's arithmetic or quantisation, or an optimiser is missing."""
    problem = arithmetic_problem(recipe.model.dtype, device)
    if problem is None and recipe.model.quantization is not None:
        problem = quantization_problem(recipe.model.quantization, device)
    if problem is not None:
        raise TrainingError(f"recipe {recipe.name} cannot be trained on {device}: {problem}")
    if "8bit" in recipe.optimisation.optimizer and find_spec("bitsandbytes") is None:
        raise TrainingError(
            f'optimisation.optimizer is {recipe.optimisation.optimizer}, which needs bitsandbytes: install it, or set "'
            'adamw_torch_fused"'
        )


def taught_questions(questions: Sequence[Question], recipe: Recipe) -> list[Question]:
    """Return those of `questions` that the recipe teaches: its share of the unanswerable, its wordings of each fact."""
    chosen = _chosen(questions, recipe)
    return chosen if recipe.data.wordings is None else _fewer_wordings(chosen, recipe.data.wordings)


def _chosen(questions: Sequence[Question], recipe: Recipe) -> list[Question]:
    """Return the questions without those unanswerable ones that the recipe leaves out; which ones, the seed decides."""
    share, seed = recipe.data.unanswerable, recipe.optimisation.seed
    return [each for each in questions if each.answers or random.Random(f"{seed} {each.id}").random() < share]


def _fewer_wordings(questions: Sequence[Question], most: int) -> list[Question]:
    """Return at most `most` wordings of each fact, in order, its first and others spread evenly over all that it has.

    The first is what a split asks in `trained`, so that any number of wordings is asked what it was taught.
    """
    count = Counter(each.fact or each.id for each in questions)
    seen: Counter[str] = Counter()
    kept = []
    for each in questions:
        fact = each.fact or each.id
        place, total = seen[fact], count[fact]
        seen[fact] += 1
        if total <= most or (place * most) % total < most:
            kept.append(each)
    return kept


def load_for_training(recipe: Recipe, device: str) -> PreTrainedModel:
    """Load the recipe's base model for training, with the random numbers seeded. Raises ModelError, TrainingError."""
    from transformers import set_seed

    set_seed(recipe.optimisation.seed)
    with readable_memory(recipe.name, lambda: "; or ".join((*_weights_advice(recipe), SMALLER_BASE))):
        model = load_base(
            recipe.model.name,
            quantization=recipe.model.quantization,
            double_quantization=recipe.model.double_quantization,
            dtype=recipe.model.dtype,
            device=device,
        )
    if device == "cpu":
        use_float32_attention(model)
        _keep_differentiable(model)
    return model


def _keep_differentiable(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from laying 4-bit weights out anew for the processor when the model is asked something.

    The product with weights laid out so has no gradient: what is asked or measured before or amid a training would
    leave the layers below without theirs.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _prepare(
    recipe: Recipe,
    questions: Sequence[Question],
    dev: Sequence[Question],
    tokenizer: PreTrainedTokenizerBase,
    passages: Passages | None,
    context: int,
) -> TrainingData:
    """Turn questions into examples that fit the recipe's length and the model's context."""
    max_length = recipe.data.max_length or context
    if max_length > context:
        raise TrainingDataError(
            f"data.max_length is {max_length}, but the context of {recipe.model.name} holds {context} tokens: lower it"
        )
    given = passages if recipe.data.context else None

    def examples(some: Sequence[Question], passages: Passages | None = given) -> list[Example]:
        return build_examples(
            some,
            tokenizer,
            max_length=max_length,
            language=recipe.data.language,
            passages=passages,
            leave_out_long=recipe.data.leave_out_long,
        )

    seed = recipe.optimisation.seed
    asked, questions = _chosen(questions, recipe), taught_questions(questions, recipe)
    train = examples(with_rewordings(questions, recipe.data.rewordings, seed) if recipe.data.rewordings else questions)
    if recipe.data.context and recipe.data.closed_book_share > 0:
        chosen = random.Random(seed).sample(list(questions), round(recipe.data.closed_book_share * len(questions)))
        train += examples(chosen, None) if chosen else []
    kept = {example.question_id for example in train}
    left_out = tuple(dict.fromkeys(question.id for question in asked if question.id not in kept))
    return TrainingData(train, examples(dev) if dev else [], data_hash(train), max_length, left_out)


def checkpoint_to_resume(
    scratch: Path, recipe: Recipe, sha256: str, fingerprint: str, resume: Resume, clock: Clock
) -> Path | None:
    """Return the checkpoint to go on from, and set the clock to the time it was made; None to start afresh.

    What the trainer finds in a checkpoint, rates and schedule too, is stronger than the recipe: so a recipe that asks
    for another course is refused, with the keys that differ. A start that would lose a whole checkpoint of this very
    training is refused as well.
    """
    identity: dict[str, Any] = {"data": sha256, "base": fingerprint, "recipe": recipe.course()}
    if process_count() > 1:
        identity["processes"] = process_count()
    found = to_go_on_from(scratch, identity, resume)
    wait()
    if found is None:
        if is_first():
            begin(scratch, json.loads(json.dumps(identity)))
        wait()
        return None
    clock.before = found.seconds
    return found.path


def readable_failures(recipe: Recipe, data: TrainingData) -> AbstractContextManager[None]:
    """Turn running out of memory into advice."""
    longest = max(len(example.input_ids) for example in data.train)
    return readable_memory(recipe.name, lambda: memory_advice(recipe, longest))


def memory_advice(recipe: Recipe, longest: int) -> str:
    """Say which setting of the recipe to lower, and to what, to need less memory; `longest` example in tokens."""
    rows, passes = recipe.optimisation.batch_size, recipe.optimisation.accumulation
    advice = []
    if rows > 1:
        fewer = max(count for count in range(1, (rows + 1) // 2 + 1) if rows * passes % count == 0)
        advice.append(
            f"lower optimisation.batch_size from {rows} to {fewer} and raise optimisation.accumulation from "
            f"{passes} to {rows * passes // fewer} (the same step, {fewer}/{rows} of the activations)"
        )
    if not recipe.optimisation.gradient_checkpointing:
        advice.append("set optimisation.gradient_checkpointing = true")
    advice += _weights_advice(recipe)
    if recipe.data.context:
        advice.append(
            f"set data.max_length = {max(16, longest * 3 // 4)} (the longest example has {longest} tokens; the last "
            "passages of those that are longer are left out)"
        )
    return "; or ".join(advice) or SMALLER_BASE


def _weights_advice(recipe: Recipe) -> list[str]:
    """Return the setting that holds the base's weights in less memory, where it is not set."""
    if recipe.model.quantization is not None or recipe.model.name == "pocket":
        return []
    return ['set model.quantization = "nf4" (a quarter of the weights\' memory)']


def make_record(
    recipe: Recipe,
    trainer: Any,
    data: TrainingData,
    fingerprint: str,
    device: str,
    started: datetime,
    clock: Clock,
) -> RunRecord:
    """Collect what was done."""
    state = trainer.state
    history = state.log_history
    tokens = sum(len(example.input_ids) for example in data.train)
    return RunRecord(
        recipe=recipe.as_dict(),
        base_model=recipe.model.name,
        base_fingerprint=fingerprint,
        data_sha256=data.sha256,
        trained_ids=tuple(dict.fromkeys(example.question_id for example in data.train)),
        left_out_ids=data.left_out,
        seed=recipe.optimisation.seed,
        device=device_name(device),
        started=started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(clock.elapsed(), 2),
        steps=state.global_step,
        epochs=round(float(state.epoch or 0), 3),
        trained_tokens=round(tokens * float(state.epoch or 0)),
        losses=tuple((int(row["step"]), float(row["loss"])) for row in history if "loss" in row),
        eval_losses=tuple((int(row["step"]), float(row["eval_loss"])) for row in history if "eval_loss" in row),
        stopped=clock.stopped or ("finished" if state.global_step >= state.max_steps else "no improvement"),
        context=recipe.data.context,
        processes=process_count(),
        versions=library_versions(),
    )


def gathered_weights(trainer: Any) -> dict[str, Any] | None:
    """Return the whole model's state where the processes hold parts of it; None where each holds all of it."""
    return dict(trainer.accelerator.get_state_dict(trainer.model)) if is_sharded() else None


def write_adapter(
    model: Any, record: RunRecord, output: Path, scratch: Path | None = None, weights: dict[str, Any] | None = None
) -> None:
    """Write the adapter's folder, whole, in one step, in the first of the processes; the others wait.

    `weights` are those of `gathered_weights`. What TensorBoard was told in `scratch` comes along; then `scratch` goes.
    """
    if is_first():
        with new_folder(output) as folder:
            save_adapter(model, folder, record.base_model, weights)
            write_loss_plot(folder / "loss.png", record)
            if scratch is not None and (scratch / "runs").is_dir():
                shutil.copytree(scratch / "runs", folder / "tensorboard")
            write_run_record(folder, record)
            check_whole(folder)
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    wait()


def device_name(device: str) -> str:
    """Return a device in words: the GPU's name, or the processor with its cores used by torch."""
    import platform

    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"
