"""What a pretraining in plain torch keeps to go on from after it was killed: weights, optimiser, and how far it was."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.errors import FinetuneError
from finetune.master_weights import MasterWeights
from finetune.processes import is_first, wait

if TYPE_CHECKING:
    import torch

CHECKPOINT = "checkpoint.pt"


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

    The processes hold the same, so that any number of them can go on from it.
    """
    import torch

    if is_first():
        temporary = path.with_suffix(".partial")
        chance = {"chance": torch.get_rng_state(), "chance_on_gpu": _gpu_chance()}
        torch.save({**optimizer.state(), **chance, "progress": asdict(progress)}, temporary)
        temporary.replace(path)
    wait()


def restore(path: Path, optimizer: MasterWeights) -> Progress:
    """Read this run's own checkpoint: tensors and plain values only, no code. Random numbers go on where they were."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        optimizer.restore(state)
        if "chance" in state:
            torch.set_rng_state(state["chance"])
            if state["chance_on_gpu"] is not None and torch.cuda.is_available():
                torch.cuda.set_rng_state(state["chance_on_gpu"])
        return Progress(**state["progress"])
    except (RuntimeError, KeyError, ValueError, TypeError, EOFError, OSError) as error:
        raise FinetuneError(f"{path} is no checkpoint of this run ({error}); delete it to start again") from error


def _gpu_chance() -> torch.Tensor | None:
    """Return the state of the GPU's random numbers; None where there is no GPU."""
    import torch

    return torch.cuda.get_rng_state() if torch.cuda.is_available() else None
