"""Batches made ahead of their steps, in other processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class _BySteps(Generic[Batch]):
    """A data set in torch's sense whose items are the batches of the steps."""

    make: Callable[[int], Batch]

    def __getitem__(self, step: int) -> Batch:
        return self.make(step)


def batches_of(make: Callable[[int], Batch], steps: Sequence[int], workers: int) -> Iterator[Batch]:
    """Yield `make(step)` for each of `steps`, in order, made ahead by so many processes (0: by this one, when due).

    The batches are the same, since a batch depends on its step alone. Ctrl-C is left to this process to answer.
    """
    if not workers:
        yield from map(make, steps)
        return
    from torch.utils.data import DataLoader

    yield from DataLoader(
        _BySteps(make),  # type: ignore[arg-type]
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        worker_init_fn=_leave_interrupts,
    )


def _leave_interrupts(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
