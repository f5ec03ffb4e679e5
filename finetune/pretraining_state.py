"""What a pretraining in plain torch keeps to go on from after it was killed: weights, optimiser, and how far it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.atomic import sync_file, sync_names
from finetune.disk_failures import readable_writing
from finetune.errors import FinetuneError
from finetune.master_weights import MasterWeights
from finetune.processes import is_first, place, process_count, wait
from finetune.sharding import joined

if TYPE_CHECKING:
    import torch

CHECKPOINT = "checkpoint.pt"
PARTS = "checkpoint-*.pt"
"""The files of processes that share a model: one of each, named in `CHECKPOINT`."""


@dataclass
class Progress:
    """What a checkpoint keeps besides weights."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    losses: list[tuple[int, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)


def save(path: Path, optimizer: MasterWeights, progress: Progress) -> None:
    """Write a checkpoint of this run, for its own resumption only, by way of a temporary file; the first process does.

    The processes hold the same, so that any number of them can go on from it. Where they share the model, each writes
    its part beforehand; the checkpoint before stays until all parts are there.
    """
    import torch

    parts = _save_part(path.parent, optimizer, progress.step) if optimizer.shared else ()
    if is_first():
        state = {"parts": list(parts)} if parts else optimizer.state()
        chance = {"chance": torch.get_rng_state(), "chance_on_gpu": _gpu_chance()}
        _write({**state, **chance, "progress": asdict(progress)}, path)
        for former in path.parent.glob(PARTS):
            if former.name not in parts:
                former.unlink()
    wait()


def _save_part(folder: Path, optimizer: MasterWeights, step: int) -> Sequence[str]:
    """Write what this process holds of a shared model; return the names of all parts when all are written."""
    count = process_count()
    names = [f"checkpoint-{step}-{number + 1}-of-{count}.pt" for number in range(count)]
    _write(optimizer.state(), folder / names[place()])
    wait()
    return names


def _write(content: dict[str, Any], path: Path) -> None:
    """Write tensors and plain values to `path`, whole or not at all. Raises FinetuneError if the disk is full."""
    import torch

    temporary = path.with_suffix(".partial")
    try:
        with readable_writing(path):
            with temporary.open("wb") as file:
                torch.save(content, file)
            sync_file(temporary)
            temporary.replace(path)
            sync_names(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def restore(path: Path, optimizer: MasterWeights) -> Progress:
    """Read this run's own checkpoint: tensors and plain values only, no code. Random numbers go on where they were."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        optimizer.restore(_own_state(state, path.parent, optimizer))
        if "chance" in state:
            torch.set_rng_state(state["chance"])
            if state["chance_on_gpu"] is not None and torch.cuda.is_available():
                torch.cuda.set_rng_state(state["chance_on_gpu"])
        return Progress(**state["progress"])
    except (RuntimeError, KeyError, ValueError, TypeError, EOFError, OSError) as error:
        raise FinetuneError(f"{path} is no checkpoint of this run ({error}); delete it to start again") from error


def _own_state(state: dict[str, Any], folder: Path, optimizer: MasterWeights) -> dict[str, Any]:
    """Return what `optimizer` takes up of a checkpoint, which processes that shared the model may have written."""
    import torch

    if "parts" not in state:
        return joined([state], optimizer) if optimizer.shared else state
    parts = [torch.load(folder / name, map_location="cpu", mmap=True, weights_only=True) for name in state["parts"]]
    return joined(parts, optimizer)


def _gpu_chance() -> torch.Tensor | None:
    """Return the state of the GPU's random numbers; None where there is no GPU."""
    import torch

    return torch.cuda.get_rng_state() if torch.cuda.is_available() else None
