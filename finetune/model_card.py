"""The page that goes with a shared adapter or model: what it is, what it was made from, how it does, how to load it.

It holds what the run record holds, and nothing that was not measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from finetune.errors import ModelError
from finetune.models import POCKET, model_folder
from finetune.run_record import RunRecord

UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True)
class Score:
    """A measured figure for the card: a metric on a slice, its mean and 95 % interval over n questions."""

    slice: str
    metric: str
    mean: float
    low: float | None
    high: float | None
    n: int


def write_card(
    name: str, record: RunRecord, *, licence: str | None, merged: bool, scores: Sequence[Score] = (), run: str = ""
) -> str:
    """Return the model card, markdown behind YAML, of the adapter (or, if `merged`, the model) called `name`.

    `scores` are of the run called `run`. Without `licence` that of the base model stands, where its own card says it.
    """
    stated = licence or base_licence(record.base_model)
    parts = [
        _front(record, stated, merged),
        f"# {name}",
        _opening(record, merged),
        _loading(name, record, merged),
        _training(record),
        _results(record, scores, run),
        _limits(record, _licence_source(licence, stated)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def base_licence(base: str) -> str:
    """Return the licence in the base model's own card on this machine, `unknown` where it says none."""
    try:
        lines = (model_folder(base) / "README.md").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError, ModelError):
        return UNKNOWN_LICENCE
    if lines[:1] != ["---"]:
        return UNKNOWN_LICENCE
    front = takewhile(lambda line: line != "---", lines[1:])
    found = (line.partition(":")[2].strip().strip("\"'") for line in front if line.startswith("license:"))
    return next(found, "") or UNKNOWN_LICENCE


def base_name(record: RunRecord) -> str:
    """Return how others call the base model: a folder's last part, not its path on this machine."""
    base = record.base_model
    return Path(base).name if Path(base).is_dir() or base.startswith(("/", ".", "~")) else base


def _front(record: RunRecord, licence: str, merged: bool) -> str:
    """Return the YAML that model hubs read; values are JSON strings, which are YAML."""
    language = record.recipe.get("data", {}).get("language", "en")
    on_hub = "/" in base_name(record)
    lines = [
        "---",
        f"license: {json.dumps(licence)}",
        *([f"base_model: {json.dumps(base_name(record))}"] if on_hub else []),
        f"library_name: {'transformers' if merged else 'peft'}",
        "pipeline_tag: text-generation",
        f"language: {json.dumps(language)}",
        "tags: [rag-vs-finetune" + ("]" if merged else ", lora]"),
        "---",
    ]
    return "\n".join(lines)


def _opening(record: RunRecord, merged: bool) -> str:
    kind = "A model with its LoRA adapter merged in" if merged else "A LoRA adapter"
    way = "with passages in the prompt (RAFT)" if record.context else "to answer without documents (closed-book)"
    return (
        f"{kind}, trained by Versus (`rag-vs-finetune`) on {base_name(record)} {way}.\n\n"
        f"Base model: {base_name(record)}, SHA-256 over its weights and configuration `{record.base_fingerprint}`."
    )


def _loading(name: str, record: RunRecord, merged: bool) -> str:
    """Return how to load it: with Versus, and with transformers."""
    folder = f"path/to/{name}"
    if merged:
        versus = f'versus ask "…" --arms base --model {folder}'
        code = f'model = AutoModelForCausalLM.from_pretrained("{folder}")'
        heads = "from transformers import AutoModelForCausalLM, AutoTokenizer"
        tokenizer = folder
    else:
        model = "" if record.base_model == POCKET else f" --model {base_name(record)}"
        versus = f'versus ask "…" --arms finetuned --adapter {folder}{model}'
        heads = "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer"
        tokenizer = base_name(record)
        code = (
            f'base = AutoModelForCausalLM.from_pretrained("{tokenizer}")\n'
            f'model = PeftModel.from_pretrained(base, "{folder}")'
        )
        if record.base_model == POCKET:
            heads = f"from finetune.pocket import pocket_path\n\n{heads}"
            code = code.replace(f'"{tokenizer}"', "pocket_path()")
            tokenizer = ""
    quoted = f'"{tokenizer}"' if tokenizer else "pocket_path()"
    return (
        f"## How to load it\n\n```sh\n{versus}\n```\n\n```python\n{heads}\n\n"
        f"tokenizer = AutoTokenizer.from_pretrained({quoted})\n{code}\n```\n\n"
        "A question is one user message in the tokenizer's chat template; decode greedily."
    )


def _training(record: RunRecord) -> str:
    """Return the table of data and settings."""
    lora, steps = record.recipe.get("lora", {}), record.recipe.get("optimisation", {})
    rows = [
        ("questions trained on", len(record.trained_ids)),
        ("SHA-256 of the training data", f"`{record.data_sha256}`"),
        ("recipe", record.recipe.get("name", "")),
        ("rank, alpha", f"{lora.get('rank')}, {lora.get('alpha')}"),
        ("learning rate, schedule", f"{steps.get('learning_rate')}, {steps.get('schedule')}"),
        ("steps, epochs", f"{record.steps}, {record.epochs}"),
        ("tokens through the model", record.trained_tokens),
        ("seed", record.seed),
        ("device, seconds", f"{record.device}, {record.seconds}"),
        ("ended", f"{record.finished} ({record.stopped})"),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(record.versions.items()))),
    ]
    if record.preferences is not None:
        rows.append(("preferences (DPO)", ", ".join(f"{key} {value}" for key, value in record.preferences.items())))
    body = "\n".join(f"| {key} | {_cell(value)} |" for key, value in rows)
    return f"## How it was trained\n\n| | |\n|---|---|\n{body}"


def _results(record: RunRecord, scores: Sequence[Score], run: str) -> str:
    """Return losses, what was forgotten, and the scores of a run."""
    lines = []
    if record.losses:
        lines.append(f"Training loss {record.losses[0][1]:.3f} at first, {record.losses[-1][1]:.3f} at the end.")
    if record.eval_losses:
        lines.append(f"Loss on the dev questions {record.eval_losses[-1][1]:.3f} at the end.")
    if record.forgetting:
        told = record.forgetting
        lines.append(
            f"General multiple-choice questions right: {told['before']:.3f} before, {told['after']:.3f} after "
            f"({told['questions']:.0f} questions)."
        )
    if not scores:
        lines.append("No scores on questions were handed over with this card.")
    text = "## What was measured\n\n" + "\n".join(lines)
    if not scores:
        return text
    rows = "\n".join(f"| {s.slice} | {s.metric} | {s.mean:.3f} | {_interval(s)} | {s.n} |" for s in scores)
    heads = "| slice | metric | mean | 95 % interval | questions |\n|---|---|---|---|---|"
    return f"{text}\n\nRun `{run}`:\n\n{heads}\n{rows}"


def _licence_source(named: str | None, stated: str) -> str:
    """Say where the licence that the card states comes from."""
    if named:
        return "The licence above is named by who shared it"
    if stated == UNKNOWN_LICENCE:
        return "The base model's licence was not found with its files"
    return "The licence above is that of the base model's own card"


def _limits(record: RunRecord, licence_source: str) -> str:
    """Return what it must not be trusted with, and where the licence comes from."""
    lines = [
        "- It knows the documents it was trained on as they were then; what changed since, it does not know.",
        "- An answer may be wrong and sound sure. Where that matters, answer from the documents themselves.",
    ]
    if record.context:
        lines.append("- It was trained with passages in its prompt; without them it answers from little.")
    lines.append(f"- {licence_source}; the training documents may have terms of their own.")
    return "## Limits\n\n" + "\n".join(lines)


def _interval(score: Score) -> str:
    return "–" if score.low is None or score.high is None else f"{score.low:.3f} to {score.high:.3f}"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
