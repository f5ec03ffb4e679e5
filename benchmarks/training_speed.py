"""How fast and in how much memory a recipe trains, against the plain script that people copy.

    python benchmarks/training_speed.py                 CPU: pocket; with a CUDA device also a 7B model
    python benchmarks/training_speed.py --only cuda     the 7B model alone, 9 minutes at most, on one H200

All sides train the same model on the same examples in the same order, each in a process of its own. A *useful* token
is one of an example; padding does not count. The plain side is trl's `SFTTrainer` with LoRA, a row for each example,
padded to the longest of its batch. On a CPU it works in float32, without gradient checkpointing, and our side is the
recipe `pocket`: bfloat16 where the processor has it, packed rows, the loss computed on answers alone. On a CUDA device
all hold a 7B model of random weights in Mistral's configuration as nf4 and compute in bfloat16, attention without
cuDNN: `trl` as it stands by default, with gradient checkpointing, `trl-without-checkpointing`, and ours, the recipe
`mistral-7b-v0.3`. The lengths are those of `$VERSUS_BENCH_DATA/tesla-model3`, or of the sample manual where that is not
there, as pocket's tokenizer counts. Peak memory is the process's resident set on a CPU; on a GPU what torch has
reserved, and what of that it gave out. The processor's own seconds stand beside the wall time: they hold on a busy
machine too. Then the 7B model with a fresh adapter of the recipe's rank answers, in batches and one at a time.

Before all that the product's own path is tried on the CUDA device (see `four_bit_check`; not with `--no-check`). Each
figure is printed as a line of JSON when it is there, and added to `$OUT/training_speed.jsonl` if OUT is set; what fails
or takes too long is told so, and the next goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from four_bit_check import check
from in_turn import Measurements
from peak_memory import peak_bytes

REPOSITORY = Path(__file__).resolve().parent.parent
SIDES = ("plain", "ours")
CUDA_SIDES = ("ours", "trl", "trl-without-checkpointing")
CUDA_DATA, SAMPLE = "tesla-model3", "tern-manual"
CUDA_SECONDS = 540.0
"""What the whole CUDA part may take; `CHECK_SECONDS` the check, `SIDE_SECONDS` a side, `ANSWER_SECONDS` a rate."""
CHECK_SECONDS, SIDE_SECONDS, ANSWER_SECONDS = 120.0, 130.0, 70.0
NEW_TOKENS = 64
ANSWERED = {64: 64, 16: 64, 1: 8}
"""Questions answered for each size of a batch."""


@dataclass(frozen=True)
class Job:
    """What one process measures."""

    side: str
    device: str = "cpu"
    steps: int = 40
    data: str = SAMPLE
    warm: int = 3
    """Steps that are not timed: kernels are chosen and memory is taken in them."""
    tiny: bool = False
    """A two-layer model in place of the 7B one, to try the CUDA part out."""


def measure(job: Job) -> dict[str, Any]:
    """Train `warm` + `steps` steps as the side does; return useful tokens a second and peak memory."""
    import torch
    from transformers import PrinterCallback, TrainerCallback

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
        **peak_gigabytes(job.device),
        "last_loss": round(float(trainer.state.log_history[-2].get("loss", float("nan"))), 3),
        "threads": torch.get_num_threads(),
    }


def peak_gigabytes(device: str) -> dict[str, float]:
    """Return the most memory that this process has held, in units of 10**9 bytes; of a GPU's what was given out too."""
    import torch

    if device == "cpu":
        return {"peak_gigabytes": round(peak_bytes() / 1e9, 2)}
    held, given_out = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
    return {"peak_gigabytes": round(held / 1e9, 2), "peak_gigabytes_allocated": round(given_out / 1e9, 2)}


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
    """Return questions and answers of the training split, shuffled by a fixed seed. Raises FileNotFoundError."""
    path = train_questions(data)
    if path is None:
        raise FileNotFoundError(f"VERSUS_BENCH_DATA names no folder with {data}/questions.train.jsonl")
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    asked = [(row["question"], row["answers"][0] if row.get("answers") else row.get("answer")) for row in found]
    kept = [(question, answer) for question, answer in asked if answer]
    random.Random(0).shuffle(kept)
    return kept


def train_questions(data: str) -> Path | None:
    """Return the file of the training split, in this repository or $VERSUS_BENCH_DATA; None if there is none."""
    places = [REPOSITORY / "docs_corpus" / data / "questions" / "train.jsonl"]
    if folder := os.environ.get("VERSUS_BENCH_DATA"):
        places.append(Path(folder) / data / "questions.train.jsonl")
    return next((place for place in places if place.is_file()), None)


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
    from finetune.packed_rows import mask_dtype
    from finetune.trainer import Clock, make_trainer

    recipe = recipe_of(job)
    counted: list[tuple[int, int]] = []
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
        Counting(Collator(0, 512, mask_dtype(model), recipe.data.packing), counted),  # type: ignore[arg-type]
        scratch=Path(tempfile.mkdtemp()),
        device=job.device,
        arithmetic=dtype,
        clock=Clock(None),
        on_step=None,
    )
    return trainer, counted


def plain(job: Job, rows: Sequence[dict[str, Any]]) -> tuple[Any, list[tuple[int, int]]]:
    """Return the plain trainer: the same adapter and optimiser steps, rows padded to the longest.

    It computes all activations once, or, as side `trl`, does about checkpointing what trl does by default.
    """
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq
    from trl import SFTConfig, SFTTrainer

    from finetune.adapters import lora_config
    from finetune.models import load_base, load_tokenizer

    recipe = recipe_of(job)
    counted: list[tuple[int, int]] = []
    tokenizer, steps = load_tokenizer("pocket"), recipe.optimisation
    model = four_bit_model(job) if big(job) else load_base("pocket", device=job.device, dtype="float32")
    trainer = SFTTrainer(
        model=model,
        peft_config=lora_config(model, recipe.lora),
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=steps.batch_size,
            gradient_accumulation_steps=steps.accumulation,
            max_steps=steps.max_steps,
            learning_rate=steps.learning_rate,
            optim=steps.optimizer,
            max_grad_norm=steps.max_grad_norm,
            **({} if job.side == "trl" else {"gradient_checkpointing": False}),
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

    from finetune.models import without_cudnn_attention

    if job.device != "cpu":
        without_cudnn_attention()
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


def answer(job: Job, size: int, questions: int, new_tokens: int) -> dict[str, Any]:
    """Answer prompts of the data's lengths greedily, `size` at a time; every reply has `new_tokens` tokens.

    The model has a fresh adapter of the recipe's rank on it, as `LocalModel` has one.
    """
    import torch
    from peft import get_peft_model

    from finetune.adapters import lora_config
    from finetune.packing import IGNORED

    base = four_bit_model(job)
    model = get_peft_model(base, lora_config(base, recipe_of(job).lora)).eval().get_base_model()
    asked = [
        [i for i, label in zip(r["input_ids"], r["labels"], strict=True) if label == IGNORED] for r in example_rows(job)
    ]
    run_batch(model, asked[:size], 4)
    started = time.perf_counter()
    for start in range(0, questions, size):
        run_batch(model, asked[start : min(start + size, questions)], new_tokens)
    if job.device != "cpu":
        torch.cuda.synchronize()
    rate = questions / (time.perf_counter() - started)
    return {"batch_size": size, "answers_per_second": round(rate, 3), **peak_gigabytes(job.device)}


def run_batch(model: Any, prompts: list[list[int]], new_tokens: int) -> None:
    """Write `new_tokens` tokens after each prompt."""
    from finetune.generation import GreedyBatch

    batch = GreedyBatch(prompts, pad_token=0, end_tokens=set(), rooms=[new_tokens] * len(prompts))
    while not batch.done:
        batch.step(model)


def compare_on_cpu(measurements: Measurements, data: str, steps: int, rounds: int) -> None:
    """Measure both sides in turn, `rounds` times, and tell the ratios of the best of each."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            figures = measurements.run(f"cpu {side}", ["--side", side, "--data", data, "--steps", str(steps)])
            found[side] += [figures] if figures else []
    if all(found.values()):
        plain_, ours_ = (max(found[side], key=lambda each: each["useful_tokens_per_second"]) for side in SIDES)
        measurements.tell({"measurement": "cpu", "data": data, **ratios(ours_, plain_)})


def ratios(ours_: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return our figures divided by another side's."""
    named = {
        "speed_ratio": "useful_tokens_per_second",
        "speed_ratio_per_processor_second": "useful_tokens_per_processor_second",
        "memory_ratio": "peak_gigabytes",
    }
    return {"ours_against": other["side"]} | {name: round(ours_[key] / other[key], 2) for name, key in named.items()}


def measure_on_cuda(measurements: Measurements, *, checks: bool) -> None:
    """Measure what the module says of the 7B model, all of it in `CUDA_SECONDS`."""
    data = CUDA_DATA if train_questions(CUDA_DATA) else SAMPLE
    where = ["--device", "cuda", "--data", data]
    note = f"VERSUS_BENCH_DATA names no folder with {CUDA_DATA}/questions.train.jsonl: the sample manual's lengths"
    measurements.tell({"measurement": "cuda", "data": data, **({} if data == CUDA_DATA else {"note": note})})
    if checks:
        measurements.run("cuda check of the product's 4-bit path", ["--check-only", *where], CHECK_SECONDS)
    found = {}
    for side in CUDA_SIDES:
        arguments = ["--side", side, "--steps", "40", "--warm", "8", *where]
        found[side] = measurements.run(f"cuda {side}", arguments, SIDE_SECONDS)
        if side != "ours" and (ours_ := found["ours"]) and (other := found[side]):
            measurements.tell({"measurement": "cuda", "data": data, **ratios(ours_, other)})
    for size in ANSWERED:
        measurements.run(f"cuda answers in batches of {size}", ["--answer", str(size), *where], ANSWER_SECONDS)


def machine() -> dict[str, Any]:
    """Return what the figures were measured with: the device and the libraries' versions."""
    import torch

    from finetune.run_record import library_versions
    from finetune.training import device_name

    names = [device_name("cpu"), *([device_name("cuda")] if torch.cuda.is_available() else [])]
    return {"devices": names, "cuda": torch.version.cuda, "versions": library_versions()}


def whole(options: argparse.Namespace) -> None:
    """Measure all that this machine can: the CPU part, and the 7B part where there is a CUDA device."""
    import torch

    cuda = torch.cuda.is_available() and options.only != "cpu"
    measurements = Measurements(Path(__file__).resolve())
    measurements.tell(machine())
    if options.only != "cuda":
        compare_on_cpu(measurements, options.data, options.steps, options.rounds)
    if cuda:
        measure_on_cuda(Measurements(Path(__file__).resolve(), CUDA_SECONDS), checks=options.check)
    elif options.only != "cpu":
        measurements.tell({"cuda": "there is no CUDA device here: the 7B part was not measured"})


def one(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one thing, in this process, which has not imported a model library yet."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # one GPU, also where there are several
    from finetune.models import quiet_libraries

    quiet_libraries()
    job = Job(options.side or "ours", options.device, options.steps, options.data, options.warm)
    if options.check_only:
        return check(pairs(job.data)[:64], job.device)
    if options.answer:
        return answer(job, options.answer, ANSWERED[options.answer], NEW_TOKENS)
    return measure(job)


def main() -> int:
    """Measure one thing (in a process of its own), or everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("cpu", "cuda"))
    parser.add_argument(
        "--data", default=SAMPLE, help="of the CPU part: the sample manual, or a folder of $VERSUS_BENCH_DATA"
    )
    parser.add_argument("--steps", type=int, default=30, help="of the CPU part")
    parser.add_argument("--rounds", type=int, default=1, help="how often each side is measured; the best counts (CPU)")
    parser.add_argument(
        "--check", action=argparse.BooleanOptionalAction, default=True, help="on CUDA, try the product's own path first"
    )
    parser.add_argument("--side", choices=(*SIDES, *CUDA_SIDES[1:]), help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=int, choices=tuple(ANSWERED), help=argparse.SUPPRESS)
    parser.add_argument("--check-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    parser.add_argument("--warm", type=int, default=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side or options.answer or options.check_only:
        print(json.dumps(one(options)))
    else:
        whole(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
