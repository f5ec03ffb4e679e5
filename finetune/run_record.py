"""What an adapter was made from: the JSON file beside its weights."""

from __future__ import annotations

import dataclasses
import json
import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from data_prep.atomic import write_text
from finetune.errors import AdapterError

FORMAT = 1
FILE_NAME = "run_record.json"
_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "tokenizers", "rag-vs-finetune")


@dataclass(frozen=True)
class RunRecord:
    """How an adapter was trained; enough to train it again and to check what it has seen."""

    recipe: dict[str, Any]
    base_model: str
    base_fingerprint: str
    data_sha256: str
    trained_ids: tuple[str, ...]
    """Ids of the questions trained on: slices are recomputed from them."""
    seed: int
    device: str
    started: str
    """ISO 8601, UTC; so is `finished`."""
    finished: str
    seconds: float
    """Wall time of all parts of the training, those before a resume included."""
    steps: int
    epochs: float
    trained_tokens: int
    """Tokens that passed through the model, padding not counted, over all epochs."""
    losses: tuple[tuple[int, float], ...] = ()
    """(step, training loss)."""
    eval_losses: tuple[tuple[int, float], ...] = ()
    """(step, loss on the dev questions)."""
    stopped: str = "finished"
    """Why training ended: finished, time, or no improvement."""
    left_out_ids: tuple[str, ...] = ()
    """Ids of questions that the recipe left out: too long (`data.leave_out_long`), or one wording too many."""
    context: bool = False
    """Whether it was trained with passages in the prompt (RAFT)."""
    processes: int = 1
    """How many processes trained together."""
    versions: dict[str, str] = field(default_factory=dict)
    forgetting: dict[str, float] | None = None
    """Share of general multiple-choice questions right, `before` and `after`, over `questions`; None if not asked."""
    forgetting_unasked: str = ""
    """Why the general questions were not asked; empty if they were."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Further figures: bits per character before and after a pretraining, say."""
    preferences: dict[str, Any] | None = None
    """What `versus prefer` taught: the adapter it went on from (`start`), how many `pairs`, the mean of log p(chosen) -
    log p(rejected) as `margin_before` and `margin_after`, the share `grown`; None for other trainings."""
    format: int = FORMAT


def write_run_record(folder: Path, record: RunRecord) -> None:
    """Write the record into an adapter's folder, in one step."""
    write_text(folder / FILE_NAME, json.dumps(dataclasses.asdict(record), ensure_ascii=False, indent=1) + "\n")


def read_run_record(folder: Path) -> RunRecord:
    """Read the record of the adapter in `folder`; raises AdapterError if it is missing, damaged or of other format."""
    path = folder / FILE_NAME
    if not folder.is_dir():
        raise AdapterError(f"{folder}: there is no adapter; train one with `versus train`")
    if not path.is_file():
        raise AdapterError(f"{folder}: {FILE_NAME} is missing, so the adapter is not whole; train it again")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data.get("format") if isinstance(data, dict) else None
        if found != FORMAT:
            raise AdapterError(f"{path}: format {found!r} is not the format {FORMAT} that this version reads")
        return _record(data)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AdapterError(f"{path}: the run record is damaged ({error}); train the adapter again") from error


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that a training depends on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _record(data: dict[str, Any]) -> RunRecord:
    """Build a record from decoded JSON; raises TypeError for unknown or missing fields."""
    values = dict(data)
    for name in ("trained_ids", "left_out_ids"):
        values[name] = tuple(str(item) for item in values.get(name, ()))
    for key in ("losses", "eval_losses"):
        values[key] = tuple((int(step), float(loss)) for step, loss in values.get(key, ()))
    return RunRecord(**values)
