"""Running out of memory while training, told with the setting to lower and by how much."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from finetune.errors import TrainingError

_SIGNS = ("out of memory", "not enough memory", "allocate memory")
_LEAST_LENGTH = 16


@contextmanager
def readable_memory(name: str, advice: Callable[[], str]) -> Iterator[None]:
    """Turn running out of memory while training `name`, recipe or model, into a TrainingError with `advice`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error).lower() for sign in _SIGNS):
            raise
        raise TrainingError(f"out of memory while training {name}: {advice()}") from error


def encoder_advice(batch_size: int, max_length: int, *, least_batch: int = 1) -> str:
    """Say which setting of an encoder's recipe to lower, and to what; `least_batch` is the smallest batch allowed."""
    halved, shorter = (batch_size + 1) // 2, max_length // 2
    advice = []
    if least_batch <= halved < batch_size:
        advice.append(f"lower batch_size from {batch_size} to {halved} (about half the activations)")
    if shorter >= _LEAST_LENGTH:
        advice.append(f"lower max_length from {max_length} to {shorter}")
    return "; or ".join([*advice, "choose a smaller model"])
