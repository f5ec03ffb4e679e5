"""Which checkpoint an interrupted training goes on from: the last that is whole, of the same data, model and recipe.

A checkpoint counts only once its seal, `seal.json`, is written: it holds the SHA-256 of every file, so a checkpoint
that was being written when the process was killed, or was damaged since, is never used. Checkpoints are the trainer's
own files, for one's own resume; they are not exported.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_prep.atomic import sync_folder, write_text
from data_prep.errors import VersusError
from finetune.disk_failures import readable_writing
from finetune.errors import TrainingError

SEAL = "seal.json"
IDENTITY = "training.json"

Resume = bool | Literal["if same"]
"""Whether an interrupted training goes on; `if same`: where it is another one, or damaged, a new one starts instead."""

_OTHER = {"data": "other data", "base": "another base model", "files": "other text files", "recipe": "another recipe"}


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
    """Mark the checkpoint in `folder`, once it is on the disk, as whole, made after `seconds` of training."""
    sync_folder(folder)
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SEAL)
    hashes = {path.relative_to(folder).as_posix(): _hash(path) for path in files}
    write_text(folder / SEAL, json.dumps({"seconds": seconds, "files": hashes}))


@contextmanager
def writing_checkpoints(scratch: Path) -> Iterator[None]:
    """Tell in one VersusError that a checkpoint cannot be written to `scratch`, and delete the unfinished one."""
    try:
        with readable_writing(scratch):
            yield
    except VersusError:
        for folder in scratch.glob("checkpoint-*"):
            if not (folder / SEAL).is_file():
                shutil.rmtree(folder, ignore_errors=True)
        raise


def last_sealed(scratch: Path) -> Path | None:
    """Return the folder of the last checkpoint in `scratch` that was finished; None if there is none."""
    folders = sorted(scratch.glob("checkpoint-*"), key=_step, reverse=True)
    return next((folder for folder in folders if (folder / SEAL).is_file()), None)


def seal_left(output: Path) -> Path | None:
    """Return the seal of the last checkpoint that a training of `output` finished and left; None if there is none."""
    folder = last_sealed(scratch_of(output))
    return folder / SEAL if folder else None


def identity_left(output: Path) -> Path | None:
    """Return the file in which an interrupted training of `output` says what it is; None if there is none."""
    path = scratch_of(output) / IDENTITY
    return path if path.is_file() else None


def scratch_of(output: Path) -> Path:
    """Return the folder beside `output` that its training works in."""
    return output.parent / f".{output.name}.training"


def to_go_on_from(scratch: Path, identity: dict[str, Any], resume: Resume) -> Checkpoint | None:
    """Return the checkpoint in `scratch` that a training goes on from; None where it starts, over what lies there.

    Raises TrainingError as `latest_checkpoint` does, if the training is to go on; and, if it is to start, where a whole
    checkpoint of this very training would be lost.
    """
    try:
        found = latest_checkpoint(scratch, identity)
    except TrainingError:
        if resume is True:
            raise
        return None
    if found is not None and not resume:
        raise would_lose(scratch, found.path.name)
    return found


def would_lose(scratch: Path, kept: str) -> TrainingError:
    """Return the error of a start that would lose what this very training kept in `scratch`."""
    return TrainingError(
        f"{scratch}: this training was interrupted and kept {kept}: resume it (--resume), train under another name, or "
        "delete that folder to start again"
    )


def enter(scratch: Path, identity: dict[str, Any], *, resume: bool, kept: str) -> None:
    """Go on, with `resume`, with what was begun in `scratch`; otherwise begin there, over what lies there.

    Raises TrainingError if what was begun is another run; and, if it is to start, where files called `kept`, its
    checkpoints, of this very run would be lost.
    """
    if resume and (scratch / IDENTITY).is_file():
        require_same(scratch, identity)
        return
    if not resume and any(scratch.rglob(kept)) and _is_same(scratch, identity):
        raise would_lose(scratch, "a checkpoint")
    begin(scratch, identity)


def _is_same(scratch: Path, identity: dict[str, Any]) -> bool:
    """Tell whether what was begun in `scratch` is what `identity` says."""
    try:
        require_same(scratch, identity)
    except TrainingError:
        return False
    return True


def latest_checkpoint(scratch: Path, identity: dict[str, Any]) -> Checkpoint | None:
    """Return the last whole checkpoint in `scratch`; None if none was finished there.

    Raises TrainingError if the checkpoints are of another training, or if there are some and all are damaged.
    """
    folders = sorted(scratch.glob("checkpoint-*"), key=_step, reverse=True)
    if last_sealed(scratch) is None or not (scratch / IDENTITY).is_file():
        return None
    require_same(scratch, identity)
    for folder in folders:
        seconds = _sealed_seconds(folder)
        if seconds is not None:
            return Checkpoint(folder, seconds)
    raise TrainingError(f"{scratch}: every checkpoint is damaged; train without --resume to start again")


def require_same(scratch: Path, identity: dict[str, Any]) -> None:
    """Raise TrainingError, naming all that differs, unless what was begun in `scratch` is what `identity` says."""
    try:
        before = json.loads((scratch / IDENTITY).read_text(encoding="utf-8"))
        differing = _differing(before, json.loads(json.dumps(identity)))
    except (OSError, ValueError, AttributeError) as error:
        raise TrainingError(
            f"{scratch / IDENTITY}: damaged or missing; train without --resume to start again"
        ) from error
    if differing:
        raise TrainingError(
            f"{scratch}: the interrupted training had {', '.join(differing)}; give it that again, or train without "
            "--resume to start again"
        )


def _differing(before: dict[str, Any], now: dict[str, Any], place: str = "") -> list[str]:
    """Return in words what differs between two identities, tables inside them key by key."""
    found = []
    for key in dict.fromkeys((*before, *now)):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differing(old, new, "" if key == "recipe" else f"{key}.")
        elif not place and key in _OTHER:
            found.append(_OTHER[key])
        else:
            found.append(f"{place}{key} = {_shown(old)} (now {_shown(new)})")
    return found


def _shown(value: Any) -> str:
    """Return a value as a recipe writes it; `none` where there is none."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _sealed_seconds(folder: Path) -> float | None:
    """Return the seconds in a checkpoint's seal if all its files are as they were sealed, else None."""
    try:
        data = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        whole = all(_hash(folder / name) == value for name, value in data["files"].items())
        return float(data["seconds"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_whole(folder: Path) -> bool:
    """Tell whether a checkpoint was sealed, and is as it was sealed."""
    return _sealed_seconds(folder) is not None


def _step(folder: Path) -> int:
    """Return the step in a checkpoint's name."""
    number = folder.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
