"""Which checkpoint an interrupted training goes on from: the last one that is whole, of the same data and model.

A checkpoint counts only once its seal, `seal.json`, is written: it holds the SHA-256 of every file, so a checkpoint
that was being written when the process was killed, or was damaged since, is never used. Checkpoints are the trainer's
own files, for one's own resume; they are not exported.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.atomic import write_text
from finetune.errors import TrainingError

SEAL = "seal.json"
IDENTITY = "training.json"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: its folder and the seconds of training before it."""

    path: Path
    seconds: float


def begin(scratch: Path, identity: dict[str, Any]) -> None:
    """Empty `scratch` and write down what is going to be trained there."""
    shutil.rmtree(scratch, ignore_errors=True)
    write_text(scratch / IDENTITY, json.dumps(identity, sort_keys=True))


def seal(folder: Path, seconds: float) -> None:
    """Mark the checkpoint in `folder` as whole, made after `seconds` of training."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SEAL)
    hashes = {path.relative_to(folder).as_posix(): _hash(path) for path in files}
    write_text(folder / SEAL, json.dumps({"seconds": seconds, "files": hashes}))


def last_sealed(scratch: Path) -> Path | None:
    """Return the folder of the last checkpoint in `scratch` that was finished; None if there is none."""
    folders = sorted(scratch.glob("checkpoint-*"), key=_step, reverse=True)
    return next((folder for folder in folders if (folder / SEAL).is_file()), None)


def latest_checkpoint(scratch: Path, identity: dict[str, Any]) -> Checkpoint | None:
    """Return the last whole checkpoint in `scratch`; None if none was finished there.

    Raises TrainingError if the checkpoints are of another training, or if there are some and all are damaged.
    """
    folders = sorted(scratch.glob("checkpoint-*"), key=_step, reverse=True)
    if last_sealed(scratch) is None or not (scratch / IDENTITY).is_file():
        return None
    if json.loads((scratch / IDENTITY).read_text(encoding="utf-8")) != json.loads(json.dumps(identity)):
        raise TrainingError(
            f"{scratch}: the interrupted training had other questions, another base model, another [lora] section or "
            "another number of processes; train without --resume to start again"
        )
    for folder in folders:
        seconds = _sealed_seconds(folder)
        if seconds is not None:
            return Checkpoint(folder, seconds)
    raise TrainingError(f"{scratch}: every checkpoint is damaged; train without --resume to start again")


def _sealed_seconds(folder: Path) -> float | None:
    """Return the seconds in a checkpoint's seal if all its files are as they were sealed, else None."""
    try:
        data = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        whole = all(_hash(folder / name) == value for name, value in data["files"].items())
        return float(data["seconds"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _step(folder: Path) -> int:
    """Return the step in a checkpoint's name."""
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
