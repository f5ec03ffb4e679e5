"""How fast and in how much memory a recipe trains, against the plain script that people copy.

    python benchmarks/training_speed.py                 CPU: pocket; with a CUDA device also a 7B model
    python benchmarks/training_speed.py --only cuda     the 7B model alone, at most 9 minutes on one H200

Both sides train the same model on the same examples in the same order, each in a process of its own. A *useful* token
is one of an example; padding does not count. The plain side is trl's `SFTTrainer` with LoRA, a row for each example,
padded to the longest of its batch, without gradient checkpointing. On a CPU it works in float32 and our side is the
recipe `pocket`: bfloat16 where the processor has it, packed rows, the loss computed on answers alone. On a CUDA device
both sides hold a 7B model of random weights in Mistral's configuration as nf4 and compute in bfloat16; ours is the
recipe `mistral-7b-v0.3`, and the lengths are those of `$VERSUS_BENCH_DATA/tesla-model3`, as pocket's tokenizer counts.
Peak memory is the process's resident set on a CPU, what torch has reserved on a GPU. The processor's own seconds stand
beside the wall time: they hold on a busy machine too. Then the 7B model answers, in batches and one at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from peak_memory import peak_bytes

SIDES = ("plain", "ours")


@dataclass(frozen=True)
class Job:
    """What one process measures."""

    side: str
    device: str = "cpu"
    steps: int = 40
    data: str = "tern-manual"
    warm: int = 3
    """Steps that are not timed: kernels are chosen and memory is taken in them."""
    tiny: bool = False
    """A two-layer model in place of the 7B one, to try the CUDA part out."""


def measure(job: Job) -> dict[str, Any]:
    """Train `warm` + `steps` steps as the side does; return useful tokens a second and peak memory."""
    import torch
    from transformers import PrinterCallback, TrainerCallback

    from finetune.models import quiet_libraries

    quiet_libraries()
    times: list[tuple[float, float]] = []

    class Stopwatch(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if job.device != "cpu":
                torch.cuda.synchronize()
            times.append((time.perf_counter(), time.process_time()))

    rows = example_rows(job)
    trainer, counted = (ours if job.side == "ours" else plain)(job, rows)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Stopwatch())
    trainer.train()
    passes = trainer.args.gradient_accumulation_steps
    tokens = counted[job.warm * passes : (job.warm + job.steps) * passes]
    seconds, own_seconds = (end - start for end, start in zip(times[-1], times[job.warm - 1], strict=True))
    useful, laid_out = (sum(column) for column in zip(*tokens, strict=True))
    return {
        "side": job.side,
        "useful_tokens": useful,
        "useful_tokens_per_second": round(useful / seconds, 1),
        "useful_tokens_per_processor_second": round(useful / own_seconds, 1),
        "useful_share_of_the_rows": round(useful / laid_out, 3),
        "seconds_per_step": round(seconds / job.steps, 3),
        "peak_gigabytes": round(peak_gigabytes(job.device), 2),
        "last_loss": round(float(trainer.state.log_history[-2].get("loss", float("nan"))), 3),
        "threads": torch.get_num_threads(),
    }


def peak_gigabytes(device: str) -> float:
    """Return the most memory that this process has held, in units of 10**9 bytes."""
    import torch

    if device != "cpu":
        return float(torch.cuda.max_memory_reserved()) / 1e9
    return peak_bytes() / 1e9


def example_rows(job: Job) -> list[dict[str, Any]]:
    """Return the examples as token ids and labels: the sample corpus's, or those of the pairs in $VERSUS_BENCH_DATA."""
    from transformers import AutoTokenizer

    from finetune.packing import IGNORED
    from finetune.pocket import pocket_path

    tokenizer = AutoTokenizer.from_pretrained(str(pocket_path()), local_files_only=True)
    rows = []
    for question, answer in pairs(job.data):
        said = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template([*said, {"role": "assistant", "content": answer}], tokenize=False)
        ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
        asked = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        if len(ids) <= 512:
            rows.append({"input_ids": ids, "labels": [IGNORED] * asked + ids[asked:]})
    return rows


def pairs(data: str) -> list[tuple[str, str]]:
    """Return questions and answers of the training split, shuffled by a fixed seed."""
    bundled = Path(__file__).resolve().parent.parent / "docs_corpus" / data / "questions" / "train.jsonl"
    path = bundled if bundled.exists() else Path(os.environ["VERSUS_BENCH_DATA"]) / data / "questions.train.jsonl"
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    asked = [(row["question"], row["answers"][0] if row.get("answers") else row.get("answer")) for row in found]
    kept = [(question, answer) for question, answer in asked if answer]
    random.Random(0).shuffle(kept)
    return kept


def recipe_of(job: Job) -> Any:
    """Return the recipe of our side, for as many steps as are measured, without validation and checkpoints."""
    from finetune.config import TrackingSection, load_recipe

    recipe = load_recipe("pocket" if job.device == "cpu" and not job.tiny else "mistral-7b-v0.3")
    steps = replace(recipe.optimisation, epochs=None, max_steps=job.warm + job.steps)
    return replace(recipe, optimisation=steps, tracking=TrackingSection())


def ours(job: Job, rows: Sequence[dict[str, Any]]) -> tuple[Any, list[tuple[int, int]]]:
    """Return our trainer, and the list of (useful, laid out) tokens that its batches add to."""
    from finetune.adapters import attach_lora
    from finetune.cpu_attention import use_float32_attention
    from finetune.dataset import Collator
    from finetune.models import choose_dtype, load_base, load_tokenizer
    from finetune.trainer import Clock, make_trainer

    recipe, counted = recipe_of(job), []
    model = four_bit_model(job) if big(job) else load_base("pocket", device=job.device)
    if job.device == "cpu":
        use_float32_attention(model)
    dtype = choose_dtype(recipe.model.dtype, job.device)
    trainer = make_trainer(
        attach_lora(model, recipe.lora, checkpointing=recipe.optimisation.gradient_checkpointing),
        load_tokenizer("pocket"),
        recipe,
        list(rows),
        [],
        Counting(Collator(0, 512, recipe.data.packing), counted),  # type: ignore[arg-type]
        scratch=Path(tempfile.mkdtemp()),
        device=job.device,
        arithmetic=dtype,
        clock=Clock(None),
        on_step=None,
    )
    return trainer, counted


def plain(job: Job, rows: Sequence[dict[str, Any]]) -> tuple[Any, list[tuple[int, int]]]:
    """Return the plain trainer: the same adapter and optimiser steps, rows padded to the longest, no checkpointing."""
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq
    from trl import SFTConfig, SFTTrainer

    from finetune.adapters import attach_lora
    from finetune.models import load_base, load_tokenizer

    recipe, counted = recipe_of(job), []
    tokenizer, steps = load_tokenizer("pocket"), recipe.optimisation
    model = four_bit_model(job) if big(job) else load_base("pocket", device=job.device, dtype="float32")
    trainer = SFTTrainer(
        model=attach_lora(model, recipe.lora),
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=steps.batch_size,
            gradient_accumulation_steps=steps.accumulation,
            max_steps=steps.max_steps,
            learning_rate=steps.learning_rate,
            optim=steps.optimizer,
            max_grad_norm=steps.max_grad_norm,
            gradient_checkpointing=False,
            bf16=big(job),
            use_cpu=job.device == "cpu",
            dataloader_pin_memory=job.device != "cpu",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            packing=False,
            max_length=None,
            seed=steps.seed,
            remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=tokenizer,
        data_collator=Counting(DataCollatorForSeq2Seq(tokenizer), counted),
    )
    return trainer, counted


class Counting:
    """A collator that notes how many tokens its examples have, and how many places the rows hold."""

    def __init__(self, collate: Any, counted: list[tuple[int, int]]) -> None:
        self._collate, self._counted = collate, counted

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        """Return the batch that the collator makes of `rows`."""
        batch = self._collate(rows)
        self._counted.append((sum(len(row["input_ids"]) for row in rows), batch["input_ids"].numel()))
        return batch


def big(job: Job) -> bool:
    """Tell whether the model is the 7B one, or the tiny one that stands in for it."""
    return job.device != "cpu" or job.tiny


def four_bit_model(job: Job) -> Any:
    """Return a model of random weights in Mistral 7B's configuration, its linear layers held as nf4."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 16384}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = MistralConfig(vocab_size=32768, sliding_window=None) if not job.tiny else MistralConfig(**small)
    config._attn_implementation = "sdpa"
    standard = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(job.device):
            model = MistralForCausalLM(config)
    finally:
        torch.set_default_dtype(standard)
    quantise(model, job.device)
    if job.device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return model.eval()


def quantise(model: Any, device: str) -> None:
    """Replace the linear layers of `model` but its head by nf4 ones with double quantisation, in place."""
    import bitsandbytes as bnb
    import torch

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    for name, layer in layers:
        if layer is model.get_output_embeddings():
            continue
        held = bnb.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=False,
            compute_dtype=torch.bfloat16,
            compress_statistics=True,
            quant_type="nf4",
            device="meta",
        )
        held.weight = bnb.nn.Params4bit(
            layer.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True, module=held
        ).to(device)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, held)
        layer.weight = None
    model.is_loaded_in_4bit = True


def answer(job: Job, batch_size: int, questions: int, new_tokens: int) -> dict[str, Any]:
    """Answer prompts of the data's lengths greedily, `batch_size` at a time; every reply has `new_tokens` tokens."""
    import torch

    from finetune.generation import GreedyBatch
    from finetune.packing import IGNORED

    model = four_bit_model(job)
    asked = [
        [i for i, label in zip(r["input_ids"], r["labels"], strict=True) if label == IGNORED] for r in example_rows(job)
    ]
    figures: dict[str, Any] = {}
    for size, count in ((batch_size, questions), (1, max(2, questions // 32))):
        run_batch(GreedyBatch, model, asked[:size], 4)
        started = time.perf_counter()
        for start in range(0, count, size):
            run_batch(GreedyBatch, model, asked[start : min(start + size, count)], new_tokens)
        if job.device != "cpu":
            torch.cuda.synchronize()
        figures[f"answers_per_second_in_batches_of_{size}"] = round(count / (time.perf_counter() - started), 3)
    return figures


def run_batch(kind: Any, model: Any, prompts: list[list[int]], new_tokens: int) -> None:
    """Write `new_tokens` tokens after each prompt."""
    batch = kind(prompts, pad_token=0, end_tokens=set(), rooms=[new_tokens] * len(prompts))
    while not batch.done:
        batch.step(model)


def in_process(arguments: Sequence[str]) -> dict[str, Any]:
    """Run this file with `arguments` in a process of its own; return the figures that it prints last."""
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def compare(device: str, data: str, steps: int, rounds: int) -> dict[str, Any]:
    """Measure both sides in turn, `rounds` times, and return the best of each with their ratios."""
    best: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for side in SIDES:
            found = in_process(["--side", side, "--device", device, "--data", data, "--steps", str(steps)])
            known = best.get(side)
            if known is None or found["useful_tokens_per_second"] > known["useful_tokens_per_second"]:
                best[side] = found
    ours_, plain_ = best["ours"], best["plain"]
    return {
        "data": data,
        "device": device,
        "plain": plain_,
        "ours": ours_,
        "speed_ratio": round(ours_["useful_tokens_per_second"] / plain_["useful_tokens_per_second"], 2),
        "speed_ratio_per_processor_second": round(
            ours_["useful_tokens_per_processor_second"] / plain_["useful_tokens_per_processor_second"], 2
        ),
        "memory_ratio": round(ours_["peak_gigabytes"] / plain_["peak_gigabytes"], 2),
    }


def whole(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all that this machine can: the CPU part, and the 7B part where there is a CUDA device and the data."""
    import torch

    figures = []
    if options.only != "cuda":
        figures.append(compare("cpu", options.data, options.steps, options.rounds))
    if options.only == "cpu":
        return figures
    if not torch.cuda.is_available():
        return [*figures, {"cuda": "there is no CUDA device here: the 7B part was not measured"}]
    if not os.environ.get("VERSUS_BENCH_DATA"):
        return [*figures, {"cuda": "set VERSUS_BENCH_DATA to the folder that holds tesla-model3"}]
    figures.append(compare("cuda", "tesla-model3", 12, 1))
    data = ("--device", "cuda", "--data", "tesla-model3")
    return [*figures, *(in_process(["--answer", str(size), *data]) for size in (16, 64))]


def main() -> int:
    """Measure one side (in a process of its own), or everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("cpu", "cuda"))
    parser.add_argument("--data", default="tern-manual", help="the sample manual, or a folder of $VERSUS_BENCH_DATA")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=1, help="how often each side is measured; the best counts")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    options = parser.parse_args()
    job = Job(options.side or "ours", options.device, options.steps, options.data)
    if options.answer:
        print(json.dumps(answer(job, options.answer, 64, 64)))
    elif options.side:
        print(json.dumps(measure(job)))
    else:
        print(json.dumps(whole(options), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
