"""What an adapter loses and gains on its way out: merged, in 8 bits, in 4 bits.

    python benchmarks/exporting.py [--adapter tern-full] [--corpus NAME] [--questions 100] [--threads N]

Merge and reload: the largest difference of logits, in float32 and bfloat16, as a share of the largest logit. Then, each
in a process of its own that loads nothing else: base and adapter side by side (PEFT), the adapter folded in as arms
have it, merged, int8 and int4: size on disk, weights in memory, peak memory of the process, answer tokens a second and
token F1, on questions that the adapter was trained on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peak_memory import peak_bytes

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))
VARIANTS = ("unmerged", "arm", "merged", "int8", "int4")


def differences(adapter: Path, folder: Path) -> dict[str, float]:
    """Merge and load again in either dtype; return the largest differences of logits."""
    from finetune.export import merge_adapter

    return {
        dtype: merge_adapter(adapter, folder / f"merged-{dtype}", dtype=dtype).largest_difference
        for dtype in ("float32", "bfloat16")
    }


def ask(variant: str, adapter: Path, model: str, questions: list[dict[str, Any]]) -> dict[str, Any]:
    """Answer the questions with one variant, in this process, and return its figures."""
    from comparison_app.exporting import measure_answers
    from data_prep.questions import Question

    asked = [Question(row["id"], row["question"], tuple(row["answers"])) for row in questions]
    attached = adapter if variant in ("unmerged", "arm") else None
    figures = measure_answers(model, asked, attached, fold=False if variant == "unmerged" else None)
    return {
        "variant": variant,
        "tokens_per_second": round(figures.tokens_per_second, 1),
        "seconds_per_answer": round(figures.seconds / figures.questions, 4),
        "token_f1": round(figures.token_f1, 4),
        "peak_memory_mb": round(peak_bytes() / 2**20),
    }


def variants(adapter: Path, corpus_name: str | None, count: int, threads: int, folder: Path) -> list[dict[str, Any]]:
    """Make every variant and have a process of its own ask it."""
    from comparison_app.exporting import trained_questions
    from comparison_app.workspace import Workspace
    from finetune.export import merge_adapter, stored_dtype, weight_bytes
    from finetune.export_quantised import quantise_adapter
    from finetune.models import model_folder
    from finetune.run_record import read_run_record

    record = read_run_record(adapter)
    questions = trained_questions(Workspace(folder).corpus(corpus_name), record.trained_ids, count)
    asked = [{"id": q.id, "question": q.question, "answers": list(q.answers)} for q in questions]
    base = model_folder(record.base_model)
    merge_adapter(adapter, folder / "merged", dtype=stored_dtype(base))
    weights: dict[str, tuple[int, int | None]] = {"merged": (weight_bytes(folder / "merged"), None)}
    own = (weight_bytes(base) + weight_bytes(adapter), None)
    weights |= {"unmerged": own, "arm": own}
    for kind in ("int8", "int4"):
        report = quantise_adapter(adapter, folder / kind, kind)
        weights[kind] = (report.size_bytes, report.memory_bytes)
    rows = []
    for variant in VARIANTS:
        model = record.base_model if variant in ("unmerged", "arm") else str(folder / variant)
        told = json.dumps({"variant": variant, "adapter": str(adapter), "model": model, "questions": asked})
        done = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), "--one"],
            input=told,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        size, memory = weights[variant]
        sizes = {"size_mb": round(size / 1e6, 1), "weights_in_memory_mb": round((memory or size) / 1e6, 1)}
        rows.append({**json.loads(done.stdout.splitlines()[-1]), **sizes})
    before = next(row["token_f1"] for row in rows if row["variant"] == "arm")
    return [{**row, "token_f1_lost": round(before - row["token_f1"], 4)} for row in rows]


def main() -> None:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", default="tern-full", help="an adapter, by name or path")
    parser.add_argument("--corpus", help="the corpus it was trained on (default: the sample manual)")
    parser.add_argument("--questions", type=int, default=100, help="trained questions to ask")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        told = json.loads(sys.stdin.read())
        print(json.dumps(ask(told["variant"], Path(told["adapter"]), told["model"], told["questions"])))
        return
    from comparison_app.workspace import Workspace

    started = time.perf_counter()
    adapter = Workspace(Path("workspace")).adapter(options.adapter)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({"merge_and_reload": differences(adapter, Path(folder))}), flush=True)
        for row in variants(adapter, options.corpus, options.questions, options.threads, Path(folder)):
            print(json.dumps(row), flush=True)
    print(json.dumps({"threads": options.threads, "seconds": round(time.perf_counter() - started, 1)}))


if __name__ == "__main__":
    main()
