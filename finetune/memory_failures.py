"""Running out of memory while training, told with the setting to lower and by how much."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from finetune.errors import ModelError, TrainingError

SMALLER_BASE = "choose a smaller base model"
_SIGNS = (
    "out of memory",
    "not enough memory",
    "allocate memory",
    "status_alloc_failed",
    "issues during automatic conversion of the weights",
)
"""The last but one is what cuBLAS and cuDNN say; the last is all that transformers says when a base that is being
quantised while it loads does not fit."""
_LEAST_LENGTH = 16


@contextmanager
def readable_memory(name: str, advice: Callable[[], str]) -> Iterator[None]:
    """Turn running out of memory while training `name`, recipe or model, into a TrainingError with `advice`.

    So too where it comes as the ModelError of a base that was being loaded.
    """
    try:
        yield
    except (MemoryError, RuntimeError, ModelError) as error:
        if not ran_out(error) and not ran_out(error.__cause__):
            raise
        raise TrainingError(f"out of memory while training {name}: {advice()}") from error


def ran_out(error: BaseException | None) -> bool:
    """Tell whether an error of Python or torch is one of memory, or of transformers that stands for one."""
    said = str(error).lower() if isinstance(error, RuntimeError) else ""
    return isinstance(error, MemoryError) or any(sign in said for sign in _SIGNS)


def encoder_advice(batch_size: int, max_length: int, *, least_batch: int = 1) -> str:
    """Say which setting of an encoder's recipe to lower, and to what; `least_batch` is the smallest batch allowed."""
    halved, shorter = (batch_size + 1) // 2, max_length // 2
    advice = []
    if least_batch <= halved < batch_size:
        advice.append(f"lower batch_size from {batch_size} to {halved} (about half the activations)")
    if shorter >= _LEAST_LENGTH:
        advice.append(f"lower max_length from {max_length} to {shorter}")
    return "; or ".join([*advice, "choose a smaller model"])
