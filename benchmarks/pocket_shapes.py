"""Shapes and learning rates of pocket, each trained for the same seconds and put to the same questions.

    python benchmarks/pocket_shapes.py NAME --data DIR --work DIR [--layers 0,1,2,3,4,5] [--vocabulary 8192]
        [--rate 1.0] [--seconds 240,420] [--live 240] [--threads 1]

Makes one candidate as `make pocket` does, by the recipes' first stages ("copying", "reading"), each stopped after its
seconds, the last one with its learning rate taken down to a twentieth; then trains the 60 facts of the demo for `live`
seconds. Prints one JSON object: size, tokens seen, bits per character, what `pocket_figures` says, and after the live
training token F1 on the trained wordings and on paraphrases, with the seconds an answer takes. `rate` multiplies the
learning rates of the recipes. Examples are made once in the work folder and shared by all candidates.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune.pocket.make import INSTRUCT, PRETRAIN
from finetune.pocket.material import gather, make_base, make_examples, make_neighbours, make_tokenizer, read_settings
from finetune.pocket.stages import RECIPES, Stage, load_stages, run_stages

REPOSITORY = Path(__file__).resolve().parent.parent
SUBSET = "60"
LAST_SHARE = 0.05
"""Of the peak learning rate, at the end of the last stage."""


def candidate(
    name: str, data: Path, work: Path, layers: Sequence[int], vocabulary: int, stages: Sequence[Stage]
) -> tuple[Path, list[dict[str, Any]]]:
    """Make a candidate; return the folder of its weights and tokenizer, and the course of its stages."""
    settings = read_settings(RECIPES / PRETRAIN)
    common, own = work / "examples", work / name
    for folder in (common, own):
        folder.mkdir(parents=True, exist_ok=True)
    make_neighbours(common, make_examples(data, common, settings["examples"])[0])
    for path in common.glob("*.json*"):
        if not (own / path.name).exists():
            os.link(path, own / path.name)
    tokenizer = make_tokenizer(data, own, {**settings["tokenizer"], "vocabulary": vocabulary})
    material = gather(data, own, make_base(own, tokenizer, layers), settings)
    last, courses = run_stages(stages, material.base, material, own, _tell)
    material.tokenizer.save_pretrained(last)
    return last, courses


def _tell(stage: str, step: Any) -> None:
    if step.step % 50 == 0 or step.evaluation:
        found = json.dumps(step.evaluation) if step.evaluation else ""
        print(f"{stage} {step.step} {step.loss:.3f} {step.tokens:,} {step.seconds:.0f} s {found}", file=sys.stderr)


def timed(stages: Sequence[Stage], seconds: Sequence[float], rate: float, threads: int) -> list[Stage]:
    """Return as many of the stages as there are `seconds`, each to stop after its own."""
    chosen = [
        replace(
            stage,
            config=replace(
                stage.config,
                learning_rate=stage.config.learning_rate * rate,
                max_seconds=each,
                threads=threads,
                evaluate_every=10_000,
            ),
        )
        for stage, each in zip(stages, seconds, strict=False)
    ]
    last = chosen[-1]
    return [*chosen[:-1], replace(last, config=replace(last.config, final_share=LAST_SHARE))]


def live(model: Path, work: Path, seconds: float, threads: int) -> dict[str, float]:
    """Train the demo's facts for `seconds` with `versus train`; return F1 and seconds an answer."""
    name = work.name
    train = ["train", "pocket-live", "--corpus", str(REPOSITORY / "docs_corpus" / "tern-manual"), "--subset", SUBSET]
    options = ["--model", str(model), "--max-seconds", str(seconds), "--name", name, "--workspace", str(work)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "comparison_app.cli", *train, *options]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, cwd=REPOSITORY)
    return asked_live(model, work / "adapters" / name)


def asked_live(model: Path, adapter: Path) -> dict[str, float]:
    """Ask an adapter of the demo's facts: the test questions that it was trained on, and the paraphrases."""
    from comparison_app.metrics.overlap import token_f1
    from data_prep.corpus import SAMPLE_CORPUS, load_corpus
    from finetune.answering import FinetunedAnswerer, LocalModel
    from finetune.run_record import read_run_record

    corpus = load_corpus(REPOSITORY / "docs_corpus" / SAMPLE_CORPUS)
    record, facts = read_run_record(adapter), corpus.subset(SUBSET)
    ids = set(record.trained_ids)
    wordings = {q.question for q in corpus.questions("train") if q.id in ids}
    test = [q for q in corpus.questions("test") if q.fact in facts]
    loaded = LocalModel(str(model))
    loaded.add_adapter("live", adapter)
    answerer = FinetunedAnswerer(loaded.generator("live"))
    told = {"live_steps": float(record.steps)}
    for slice_, chosen in (
        ("trained", [q for q in test if q.slice == "trained" and q.question in wordings]),
        ("paraphrase", [q for q in test if q.slice == "paraphrase"]),
    ):
        started = time.perf_counter()
        answers = answerer.answer([q.question for q in chosen])
        told[f"live_{slice_}_seconds"] = round((time.perf_counter() - started) / len(chosen), 4)
        scores = [token_f1(a.data, q.answers) for a, q in zip(answers, chosen, strict=True)]
        told[f"live_{slice_}"] = round(sum(scores) / len(scores), 4)
    return told


def measured(model: Path, data: Path, threads: int) -> dict[str, Any]:
    """Return what `pocket_figures` says of a model, from a process of its own."""
    script = Path(__file__).with_name("pocket_figures.py")
    command = [sys.executable, str(script), "--model", str(model), "--data", str(data), "--threads", str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Make one candidate, measure it, and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--data", type=Path, required=True, help="folder of the pretraining text")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made")
    parser.add_argument("--layers", type=_numbers(int), default=(), help="of MiniLM (default: all six)")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--rate", type=float, default=1.0, help="times the recipes' learning rates")
    parser.add_argument("--seconds", type=_numbers(float), default=(240.0, 420.0), help="of each stage")
    parser.add_argument("--live", type=float, default=240.0, help="seconds of live training")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    stages = [stage for name in (PRETRAIN, INSTRUCT) for stage in load_stages(RECIPES / name)]
    stages = timed(stages, chosen.seconds, chosen.rate, chosen.threads)
    model, courses = candidate(chosen.name, chosen.data, chosen.work, chosen.layers, chosen.vocabulary, stages)
    told = {
        "name": chosen.name,
        "layers": list(chosen.layers) or list(range(6)),
        "vocabulary": chosen.vocabulary,
        "rate": chosen.rate,
        "tokens": sum(course["tokens"] for course in courses),
        **measured(model, chosen.data, chosen.threads),
        **live(model, chosen.work / chosen.name, chosen.live, chosen.threads),
    }
    print(json.dumps(told))


def _numbers(kind: type) -> Any:
    return lambda text: tuple(kind(each) for each in text.split(","))


if __name__ == "__main__":
    main()
